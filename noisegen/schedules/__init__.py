"""Schedules (update index -> value), and the laws that tie learning rate, batch size and noise."""

from noisegen.schedules._types import ScalarOrSchedule, Schedule
from noisegen.schedules.decay import (
    hold_then_decay,
    hold_then_decay_to,
    power_decay,
    power_decay_from_variance,
    step_decay,
)
from noisegen.schedules.scaling import (
    constant_rule,
    linear_rule,
    logarithmic_rule,
    scale_learning_rate,
    scale_momentum,
    square_root_rule,
)
from noisegen.schedules.temperatures import (
    batch_size_from_noise_scale,
    batch_size_from_temperature,
    effective_learning_rate,
    learning_rate_from_effective,
    learning_rate_from_noise_scale,
    learning_rate_from_temperature,
    noise_scale,
    temperature,
)
from noisegen.schedules.warmup import constant_warmup, gradual_warmup

__all__ = [
    "ScalarOrSchedule",
    "Schedule",
    "batch_size_from_noise_scale",
    "batch_size_from_temperature",
    "constant_rule",
    "constant_warmup",
    "effective_learning_rate",
    "gradual_warmup",
    "hold_then_decay",
    "hold_then_decay_to",
    "learning_rate_from_effective",
    "learning_rate_from_noise_scale",
    "learning_rate_from_temperature",
    "linear_rule",
    "logarithmic_rule",
    "noise_scale",
    "power_decay",
    "power_decay_from_variance",
    "scale_learning_rate",
    "scale_momentum",
    "square_root_rule",
    "step_decay",
    "temperature",
]
