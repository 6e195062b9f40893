"""Reads the fields of a run as plain Python values that the device can hold."""

import math
from collections.abc import Mapping
from typing import Any

from noisegen import _values
from noisegen._values import FLOAT32_MAX, FLOAT32_MIN
from noisegen.training.run_id import Value, canonicalize, check_is_mapping

# The fields that a plan reads. All others belong to the task's optimizer, weights or batch size.
RUN_FIELDS = {
    "batch_size",
    "num_epochs",
    "num_updates",
    "seed",
    "last_batch",
    "eval_every",
    "num_evals",
}

_NUMBERS = RUN_FIELDS - {"last_batch"}  # The fields that must not be a boolean or a word.


def plain_fields(run: Mapping[str, Any]) -> dict[str, Value]:
    """Returns a run with Python's own numbers, booleans and words.

    Args:
      run: Flat mapping from field to a finite number, a boolean or a word. NumPy scalars and
        arrays of shape ``()``, also JAX's, count as such.

    Returns:
      A new dict with the fields in their order.

    Raises:
      ValueError: If a field holds anything else, or a number that float32 cannot hold.
    """
    check_is_mapping(run)
    return {name: _plain(name, value) for name, value in run.items()}


def canonical_fields(run: Mapping[str, Any]) -> dict[str, Value]:
    """Returns a run as `canonicalize` does, and refuses the values that `plain_fields` refuses."""

    def convert(name: str, value: Any) -> Value:
        # The inner call refuses values. The outer one makes equal numbers identical: 64.0 becomes
        # 64, and float32's 0.1 becomes 0.1.
        return _values.plain(name, _plain(name, value))

    return canonicalize(run, convert)


def _plain(name: str, value: Any) -> Value:
    """Returns the plain value of one field; raises ValueError if it has none."""
    # Nearly all values take this path, which matters to grids of a million runs. The types are
    # compared by identity, because a boolean is an instance of int.
    if type(value) in (int, float) and (value == 0 or FLOAT32_MIN <= abs(value) <= FLOAT32_MAX):
        return value
    try:
        # An integer gets here only if it is beyond float32, and is refused below.
        plain = value if type(value) is int else _values.plain(name, value)
    except ValueError as error:
        raise ValueError(
            f"Run field {name}={_values.shown(value)} must be a finite number, a boolean or a word."
        ) from error
    # A number in quotes is a slip of the pen. As a word it would be a constant of the program, so
    # every value of a grid would compile a program of its own.
    if isinstance(plain, str) and _is_number_in_quotes(plain):
        raise ValueError(
            f"Run field {name}={plain!r} must be a finite number; write it without quotes."
        )
    if isinstance(plain, bool | str):
        if name in _NUMBERS:
            raise ValueError(f"Run field {name}={plain!r} must be a number.")
        return plain
    if plain and not FLOAT32_MIN <= abs(plain) <= FLOAT32_MAX:
        raise ValueError(
            f"Run field {name}={_values.shown(plain)} is beyond the float32 numbers that devices "
            f"compute with: from {FLOAT32_MIN:.2g} to {FLOAT32_MAX:.2g}, or 0."
        )
    return plain


def _is_number_in_quotes(word: str) -> bool:
    """Returns whether a word spells a finite number."""
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
