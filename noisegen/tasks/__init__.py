"""Tasks: model, loss and data put together for the pool."""

from noisegen.tasks.autoencoding import autoencoding
from noisegen.tasks.image_classification import image_classification
from noisegen.tasks.language_modelling import language_modelling
from noisegen.tasks.matched_noise import check_matched_noise
from noisegen.tasks.nnx_task import from_nnx

__all__ = [
    "autoencoding",
    "check_matched_noise",
    "from_nnx",
    "image_classification",
    "language_modelling",
]
