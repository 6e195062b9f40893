"""Schedules of the update index, and laws that relate learning rate, batch size and noise."""

from noisegen.schedules.decay import (
    hold_then_decay_schedule,
    hold_then_decay_to_schedule,
    power_decay_from_variance_schedule,
    power_decay_schedule,
    step_decay_schedule,
)
from noisegen.schedules.onecycle import cosine_onecycle_schedule, linear_onecycle_schedule
from noisegen.schedules.optax_schedules import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    join_schedules,
    linear_schedule,
    piecewise_constant_schedule,
    polynomial_schedule,
)
from noisegen.schedules.scaling import (
    constant_rule,
    linear_rule,
    logarithmic_rule,
    scale_learning_rate,
    scale_momentum,
    square_root_rule,
)
from noisegen.schedules.temperature import (
    batch_size_from_sgd_noise_scale,
    batch_size_from_temperature,
    effective_learning_rate,
    learning_rate_from_effective,
    learning_rate_from_sgd_noise_scale,
    learning_rate_from_temperature,
    sgd_noise_scale,
    temperature,
)
from noisegen.schedules.warmup import (
    constant_warmup_schedule,
    gradual_warmup_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_inverse_square_root_schedule,
)

__all__ = [
    "batch_size_from_sgd_noise_scale",
    "batch_size_from_temperature",
    "constant_rule",
    "constant_schedule",
    "constant_warmup_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "effective_learning_rate",
    "exponential_decay",
    "gradual_warmup_schedule",
    "hold_then_decay_schedule",
    "hold_then_decay_to_schedule",
    "join_schedules",
    "learning_rate_from_effective",
    "learning_rate_from_sgd_noise_scale",
    "learning_rate_from_temperature",
    "linear_onecycle_schedule",
    "linear_rule",
    "linear_schedule",
    "logarithmic_rule",
    "piecewise_constant_schedule",
    "polynomial_schedule",
    "power_decay_from_variance_schedule",
    "power_decay_schedule",
    "scale_learning_rate",
    "scale_momentum",
    "sgd_noise_scale",
    "square_root_rule",
    "step_decay_schedule",
    "temperature",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_inverse_square_root_schedule",
]
