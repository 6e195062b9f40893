"""The identity of a run: a hash of what is trained and of the run's own numbers, nothing else.

>>> from noisegen import sweeps
>>> sweeps.run_id("digits/mlp", {"batch_size": 64, "learning_rate": 0.5})
'4a7cb0136c13acce'
"""

import hashlib
import json
import math
import numbers
from collections.abc import Iterable, Mapping

WORDS = ("last_batch",)  # the fields that are no numbers

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def normalise(run: Mapping[str, object]) -> dict[str, int | float | str]:
    """The run with plain Python numbers, integral ones as integers, in the order it came.

    Args:
      run: Flat mapping from field to a finite number (Python's or NumPy's); `last_batch` alone is a
        word.

    Returns:
      A new dict that JSON keeps exactly.

    Raises:
      ValueError: If a value is neither a finite number nor the word of `last_batch`.

    Examples:
      >>> normalise({"batch_size": 64.0, "learning_rate": 0.1, "last_batch": "keep"})
      {'batch_size': 64, 'learning_rate': 0.1, 'last_batch': 'keep'}
    """
    return {  # nearly all are plain integers; to call a function takes several times as long
        name: value if type(value) is int else _value(name, value) for name, value in run.items()
    }


def run_id(task_identity: str, run: Mapping[str, object]) -> str:
    """The name of a run: 16 hexadecimal digits of the SHA-256 of its canonical JSON.

    Equal numbers give equal names, whatever their type (64 and 64.0) and order.

    Args:
      task_identity: Text that names everything compiled: model, loss, data, augmentation.
      run: As for `normalise`.

    Raises:
      ValueError: As `normalise` does.

    Examples:
      >>> run_id("t", {"a": 1, "b": 2.5}) == run_id("t", {"b": 2.5, "a": 1.0})
      True
    """
    return _hash(task_identity, normalise(run))


def by_run_id(task_identity: str, runs: Iterable[Mapping[str, object]]) -> dict[str, dict]:
    """The runs of a grid by name, each once, in the order of the grid.

    Args:
      task_identity: As for `run_id`.
      runs: A grid, or any iterable of runs.

    Returns:
      A dict from run_id to the normalised run.

    Raises:
      ValueError: As `normalise` does.

    Examples:
      >>> list(by_run_id("t", [{"seed": 0}, {"seed": 0.0}]).values())
      [{'seed': 0}]
    """
    planned = {}
    for run in map(normalise, runs):
        planned.setdefault(_hash(task_identity, run), run)
    return planned


def _hash(task_identity, run):
    """run_id of a run that is already normalised."""
    text = _encode({"task": task_identity, "run": run})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _value(name, value):
    """One field as a plain int, float or allowed word."""
    if name in WORDS and isinstance(value, str):
        return str(value)
    if type(value) is not float:  # to ask for more takes as long as all the rest
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError(
                f"run field {name} must be a finite number, got {value!r} ({type(value).__name__});"
                " a run is flat and holds numbers only: write 0 or 1 for a switch."
            )
        if isinstance(value, numbers.Integral):
            return int(value)
        value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"run field {name} must be a finite number, got {value!r}; mend the grid.")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
