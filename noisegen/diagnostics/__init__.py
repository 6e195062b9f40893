"""What gradient noise and curvature are: pure functions of any model's loss and parameters.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> gradients = 1 + jax.random.normal(jax.random.key(0), (8, 1000))  # of 8 groups of 32 examples
>>> noise = diagnostics.noise_of_groups(gradients, sizes=32)
>>> round(float(noise.trace / 1000)), round(float(diagnostics.gradient_noise_scale(noise)))
(33, 33)
"""

from noisegen.diagnostics.gradient_noise import (
    GradientNoise,
    GroupSums,
    RunningNoise,
    gradient_covariance,
    gradient_noise_scale,
    init_running_noise,
    noise_of_groups,
    noise_of_sums,
    signal_to_noise_ratio,
    update_running_noise,
)
from noisegen.diagnostics.hessian import (
    HessianEigenvalues,
    critical_learning_rate,
    hessian_eigenvalues,
)
from noisegen.diagnostics.interpolation import along_line, interpolate, over_plane
from noisegen.diagnostics.sharpness import sharpness

__all__ = [
    "GradientNoise",
    "GroupSums",
    "HessianEigenvalues",
    "RunningNoise",
    "along_line",
    "critical_learning_rate",
    "gradient_covariance",
    "gradient_noise_scale",
    "hessian_eigenvalues",
    "interpolate",
    "init_running_noise",
    "noise_of_groups",
    "noise_of_sums",
    "over_plane",
    "sharpness",
    "signal_to_noise_ratio",
    "update_running_noise",
]
