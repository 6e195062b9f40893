"""Compiles programs for accelerators that you do not have, and says what bounds their speed."""

from noisegen.hardware.compilation import (
    Compilation,
    MicroStep,
    Update,
    compile_program,
    default_config,
)
from noisegen.hardware.pricing import EFFICIENCY, bound_speed, count_products
from noisegen.hardware.targets import Target, extra, find_target, is_installed

__all__ = [
    "EFFICIENCY",
    "Compilation",
    "MicroStep",
    "Target",
    "Update",
    "bound_speed",
    "compile_program",
    "count_products",
    "default_config",
    "extra",
    "find_target",
    "is_installed",
]
