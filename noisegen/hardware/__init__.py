"""Compiles programs for accelerators that you do not have, and says what bounds their speed."""

from noisegen.hardware.compilation import (
    Compilation,
    MicroStep,
    Update,
    compile_program,
    default_config,
)
from noisegen.hardware.targets import Target, find_target

__all__ = [
    "Compilation",
    "MicroStep",
    "Target",
    "Update",
    "compile_program",
    "default_config",
    "find_target",
]
