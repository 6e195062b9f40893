"""Compiles programs for accelerators that you do not have, and says what bounds their speed."""

from noisegen.hardware.compilation import (
    Compilation,
    MicroStep,
    Update,
    compile_program,
    default_config,
)
from noisegen.hardware.speed_bound import EFFICIENCY, bound_speed
from noisegen.hardware.targets import Target, find_target, install_command, is_installed

__all__ = [
    "EFFICIENCY",
    "Compilation",
    "MicroStep",
    "Target",
    "Update",
    "bound_speed",
    "compile_program",
    "default_config",
    "find_target",
    "install_command",
    "is_installed",
]
