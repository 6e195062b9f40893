"""Gradient noise and curvature: pure functions of any model's loss and parameters.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> gradients = 1 + jax.random.normal(jax.random.key(0), (8, 1000))  # of 8 groups of 32 examples
>>> noise = diagnostics.estimate_gradient_noise(gradients, sizes=32)
>>> round(float(noise.trace / 1000)), round(float(diagnostics.gradient_noise_scale(noise)))
(33, 33)
"""

from noisegen.diagnostics.gradient_noise import (
    GradientNoise,
    GroupSums,
    estimate_gradient_noise,
    estimate_gradient_noise_from_sums,
    gradient_covariance,
)
from noisegen.diagnostics.hessian import (
    HessianEigenvalues,
    critical_learning_rate,
    hessian_eigenvalues,
)
from noisegen.diagnostics.interpolation import (
    evaluate_on_line,
    evaluate_on_plane,
    interpolate,
)
from noisegen.diagnostics.noise_scale import (
    RunningNoise,
    gradient_noise_scale,
    init_running_noise,
    signal_to_noise_ratio,
    update_running_noise,
)
from noisegen.diagnostics.sharpness import sharpness

__all__ = [
    "GradientNoise",
    "GroupSums",
    "HessianEigenvalues",
    "RunningNoise",
    "critical_learning_rate",
    "estimate_gradient_noise",
    "estimate_gradient_noise_from_sums",
    "evaluate_on_line",
    "evaluate_on_plane",
    "gradient_covariance",
    "gradient_noise_scale",
    "hessian_eigenvalues",
    "init_running_noise",
    "interpolate",
    "sharpness",
    "signal_to_noise_ratio",
    "update_running_noise",
]
