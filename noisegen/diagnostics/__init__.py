"""What gradient noise and curvature are: pure functions of any model's loss and parameters.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> noise = diagnostics.noise_of_groups(jax.random.normal(jax.random.key(0), (8, 100)), sizes=32)
>>> float(diagnostics.gradient_noise_scale(noise)) > 0
True
"""

from noisegen.diagnostics.gradient_noise import (
    GradientNoise,
    GroupSums,
    RunningNoise,
    gradient_covariance,
    gradient_noise_scale,
    no_running_noise,
    noise_of_groups,
    noise_of_sums,
    signal_to_noise_ratio,
    update_running_noise,
)

__all__ = [
    "GradientNoise",
    "GroupSums",
    "RunningNoise",
    "gradient_covariance",
    "gradient_noise_scale",
    "no_running_noise",
    "noise_of_groups",
    "noise_of_sums",
    "signal_to_noise_ratio",
    "update_running_noise",
]
