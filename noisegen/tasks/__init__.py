"""Tasks: model, loss and data combined for training in a pool."""

from noisegen.tasks.autoencoding import autoencoding
from noisegen.tasks.image_classification import image_classification
from noisegen.tasks.language_modeling import language_modeling
from noisegen.tasks.matched_noise import check_matched_noise
from noisegen.tasks.nnx_task import from_nnx
from noisegen.tasks.windowed_language_modeling import windowed_language_modeling

__all__ = [
    "autoencoding",
    "check_matched_noise",
    "from_nnx",
    "image_classification",
    "language_modeling",
    "windowed_language_modeling",
]
