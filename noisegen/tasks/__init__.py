"""Tasks: model, loss and data put together for the pool."""

from noisegen.tasks.image_classification import image_classification
from noisegen.tasks.nnx_task import from_nnx

__all__ = ["from_nnx", "image_classification"]
