"""Schedules of the update index, and laws that relate learning rate, batch size and noise."""

from noisegen.schedules.decay import (
    hold_then_decay_schedule,
    hold_then_decay_to_schedule,
    power_decay_from_variance_schedule,
    power_decay_schedule,
    step_decay_schedule,
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
from noisegen.schedules.warmup import constant_warmup_schedule, gradual_warmup_schedule

__all__ = [
    "batch_size_from_sgd_noise_scale",
    "batch_size_from_temperature",
    "constant_rule",
    "constant_warmup_schedule",
    "effective_learning_rate",
    "gradual_warmup_schedule",
    "hold_then_decay_schedule",
    "hold_then_decay_to_schedule",
    "learning_rate_from_effective",
    "learning_rate_from_sgd_noise_scale",
    "learning_rate_from_temperature",
    "linear_rule",
    "logarithmic_rule",
    "power_decay_from_variance_schedule",
    "power_decay_schedule",
    "scale_learning_rate",
    "scale_momentum",
    "sgd_noise_scale",
    "square_root_rule",
    "step_decay_schedule",
    "temperature",
]
