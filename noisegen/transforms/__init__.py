"""Gradient transformations that chain with those of optax."""

from noisegen.transforms._noise_stream import AddGradientNoiseState
from noisegen.transforms.additive import add_gradient_noise
from noisegen.transforms.langevin import langevin_noise
from noisegen.transforms.matched_noise import matched_noise
from noisegen.transforms.matching import matched_reference, matched_variance, matched_weights
from noisegen.transforms.samplers import Sampler, normal_noise, sphere_noise, uniform_noise
from noisegen.transforms.temperature import scale_by_temperature

__all__ = [
    "AddGradientNoiseState",
    "Sampler",
    "add_gradient_noise",
    "langevin_noise",
    "matched_noise",
    "matched_reference",
    "matched_variance",
    "matched_weights",
    "normal_noise",
    "scale_by_temperature",
    "sphere_noise",
    "uniform_noise",
]
