"""Compiles device programs for hardware that is not there, and says what bounds their speed."""

from noisegen.hardware.compilation import (
    Compilation,
    MicroStep,
    compile_program,
    default_config,
)
from noisegen.hardware.targets import Target, find

__all__ = [
    "Compilation",
    "MicroStep",
    "Target",
    "compile_program",
    "default_config",
    "find",
]
