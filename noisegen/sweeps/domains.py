"""Domains of fields: the valid values, and the next value beyond the end of a grid.

>>> from noisegen import sweeps
>>> up, down = True, False
>>> sweeps.Domain("log").step([0.1, 0.2], up), sweeps.Domain("fraction").step([0.9, 0.99], up)
(0.4, 0.999)
>>> sweeps.Domain("integer").step([1, 2, 3], up), sweeps.Domain("linear").step([0.1, 0.2], down)
(4, 0.0)
"""

import dataclasses
import fnmatch
import math
import numbers
from collections.abc import Callable, Mapping, Sequence

from noisegen._values import FLOAT32_MAX, FLOAT32_MIN
from noisegen.sweeps import grids
from noisegen.training import run_id

SCALES = ("log", "linear", "integer", "fraction", "fixed")

# An end of a domain: a number, the name of another field of the run, a function of the run, or None
# for the end of the scale.
End = float | str | Callable[[Mapping], float] | None

_ENDS = {  # Of the scales. Finite ends belong to the domain, but for 1 in a fraction.
    "log": (0, math.inf),
    "linear": (-math.inf, math.inf),
    "integer": (0, 2**31 - 1),
    "fraction": (0, 1),
    "fixed": (-math.inf, math.inf),
}
_MIN_STEP = 1e-3  # Relative difference, below which two values are not a step of a grid.


@dataclasses.dataclass(frozen=True)
class Domain:
    """Valid values of a field, and the scale on which its grid is extended.

    Attributes:
      scale: Determines the next value. "log" multiplies the last value by the ratio of the last
        two. "linear" adds their difference. "integer" does the former if all ratios are equal and
        the latter otherwise, and rounds. "fraction", for numbers in [0, 1), multiplies 1 - value by
        a ratio: 0.9, 0.99, 0.999. "fixed" is never extended.
      low, high: Ends, which belong to the domain. Each is a number, the name of another field of
        the run, a function of the run, or None for the end of the scale. The ends are 0 and
        infinity for "log", 0 and 2^31 - 1 for "integer", 0 and 1 for "fraction", and infinite for
        the others. No step reaches 0 on a log scale, and no fraction reaches 1.

    Raises:
      ValueError: If the scale is unknown, or an end has another type.
    """

    scale: str
    low: End = None
    high: End = None

    def __post_init__(self):
        if not isinstance(self.scale, str) or self.scale not in SCALES:
            raise ValueError(
                f"Domain scale must be one of {', '.join(SCALES)}, got {self.scale!r}."
            )
        for name in ("low", "high"):
            end = getattr(self, name)
            if not (end is None or isinstance(end, str) or callable(end) or _is_number(end)):
                raise ValueError(
                    f"Domain {name} must be a number, the name of a field, a function of the run or"
                    f" None, got {end!r}."
                )
        if _is_number(self.low) and _is_number(self.high) and self.low > self.high:
            raise ValueError(f"Domain needs low <= high, got {self.low!r} and {self.high!r}.")

    def ends(self, run: Mapping) -> tuple[float, float]:
        """Returns both ends for a run.

        Raises:
          ValueError: If an end names a field that the run lacks, or is not a number.
        """
        low, high = _ENDS[self.scale]
        return (_end(self.low, low, run), _end(self.high, high, run))

    def holds(self, value: float, run: Mapping) -> bool:
        """Returns whether the value lies in the domain. On a log scale, 0 does."""
        low, high = self.ends(run)
        if not low <= value <= high:
            return False
        if self.scale == "fraction":
            return run_id.rounded(float(value)) < 1
        if self.scale == "integer":
            return float(value).is_integer()
        return True

    def is_end(self, value: float, up: bool, run: Mapping) -> bool:
        """Returns whether the value is the upper end of the domain, or the lower one."""
        low, high = self.ends(run)
        end = high if up else low
        return math.isfinite(end) and _same(value, end)

    def step(self, values: Sequence[float], up: bool, run: Mapping | None = None) -> float | None:
        """Returns the next value above the largest value tried, or below the smallest.

        If the step would leave the domain, its end is the next value.

        Args:
          values: The values tried, in any order.
          up: True for the next value above, False for the next value below.
          run: A run at that end of the values. The domain's ends may depend on its fields.

        Returns:
          The value, or None if the domain ends, the values have no step, or the scale is "fixed".
        """
        run = run or {}
        outwards = sorted(values, reverse=not up)
        last = outwards[-1]
        if self.scale == "fixed" or not self.holds(last, run):
            return None
        inner = _find_inner(outwards, self.scale)
        if inner is None:
            return None
        if self.scale == "integer" and _is_geometric(outwards):
            value = _next_geometric_integer(last, inner)
        else:
            value = _NEXT[self.scale](last, inner)
        low, high = self.ends(run)
        value = min(value, high) if up else max(value, low)
        return value if self._follows(value, last, up, run) else None

    def _follows(self, value, last, up, run) -> bool:
        """Returns whether a value lies beyond the last one, and differs from it on the device."""
        is_beyond = value > last if up else value < last
        if not is_beyond or _same(value, last) or not self.holds(value, run):
            return False
        if value == 0:
            return self.scale != "log"
        return FLOAT32_MIN <= abs(value) <= FLOAT32_MAX  # The device flushes smaller numbers to 0.


def standard(name: str, values: Sequence[float] = ()) -> Domain | None:
    """Returns the domain of a field with a usual name, or None for any other name.

    Args:
      name: Name of the field.
      values: Values tried. If one has a fractional part, the scale "integer" becomes "linear".

    Examples:
      >>> standard("final_learning_rate").scale, standard("attention_dropout").scale
      ('log', 'fraction')
      >>> standard("warmup_epochs").scale, standard("warmup_epochs", [0.5, 1]).scale
      ('integer', 'linear')
      >>> standard("my_field") is None
      True
    """
    domain = _STANDARD.get(name)
    if domain is None:
        domain = _match_pattern(name)
    if domain and domain.scale == "integer" and any(value % 1 for value in values):
        return dataclasses.replace(domain, scale="linear")
    return domain


def _match_pattern(name) -> Domain | None:
    """Returns the domain of the first pattern that a name matches, if any."""
    for pattern, domain in _PATTERNS:
        if fnmatch.fnmatchcase(name, pattern):
            return domain
    return None


def _is_number(value) -> bool:
    """Returns whether a value is a real number other than nan."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value


def _end(end, default, run) -> float:
    """Returns an end of a domain as a number."""
    if end is None:
        return default
    if isinstance(end, str):
        if end not in run:
            raise ValueError(
                f"a Domain ends at the field {end!r}, but a run has only {', '.join(run)}."
            )
        number = run[end]
    elif callable(end):
        number = end(run)
    else:
        number = end
    if not _is_number(number):
        raise ValueError(f"a Domain must end at a number, got {number!r}.")
    return number


def _same(first, second) -> bool:
    """Returns whether two numbers are equal on the device."""
    return run_id.rounded(float(first)) == run_id.rounded(float(second))


def _find_inner(outwards, scale) -> float | None:
    """Returns the nearest value far enough from the last one to be a step of the grid, if any."""
    last = outwards[-1]
    for inner in reversed(outwards[:-1]):
        if _is_step(inner, last, scale):
            return inner
    return None


def _is_step(inner, last, scale) -> bool:
    """Returns whether two values are far enough apart to be a step of a grid."""
    if _same(inner, last):
        return False
    if scale == "integer":
        return True
    if scale == "fraction":
        inner, last = 1 - inner, 1 - last
    if scale != "linear" and not (inner > 0 and last > 0):
        return False  # Zero and negative numbers have no ratio.
    return abs(inner - last) > _MIN_STEP * max(abs(inner), abs(last))


def _next_by_ratio(last, inner) -> float:
    """Returns the next value of a geometric grid, last^2 / inner. Powers of two stay exact."""
    ratio = last / inner
    value = last * ratio
    if grids.is_power_of_two(ratio):
        return value
    return float(f"{value:.12g}")  # Drops the rounding error: 0.1, 0.2, 0.4 instead of 0.4000...1.


def _next_by_difference(last, inner) -> float:
    """Returns the next value of an arithmetic grid, last + (last - inner), to twelve digits."""
    step = last - inner
    digits = 12 - math.ceil(math.log10(max(abs(last), abs(step))))
    return round(last + step, digits)


def _next_fraction(last, inner) -> float:
    """Returns the next value of a grid that is geometric in 1 - value."""
    return round(1 - _next_by_ratio(1 - last, 1 - inner), 15)


def _next_integer(last, inner) -> int:
    """Returns the next value of an arithmetic grid of integers."""
    return last + (last - inner)


def _next_geometric_integer(last, inner) -> int:
    """Returns the next value of a geometric grid of integers."""
    return round(last * last / inner)


def _is_geometric(values) -> bool:
    """Returns whether all ratios of successive values are equal. Two values have one ratio."""
    if min(values) <= 0:
        return False
    # Ratios are equal if each value is the geometric mean of its neighbors. This is exact for
    # integers.
    triples = zip(values, values[1:], values[2:], strict=False)
    return all(before * after == middle**2 for before, middle, after in triples)


_NEXT = {
    "log": _next_by_ratio,
    "linear": _next_by_difference,
    "integer": _next_integer,
    "fraction": _next_fraction,
}


def _horizon(name) -> Callable[[Mapping], float]:
    """Makes an end at the run's number of epochs or updates, or at infinity if it has none."""
    return lambda run: run.get(name, math.inf)


_STANDARD = {
    **dict.fromkeys(("learning_rate", "lr", "weight_decay", "temperature"), Domain("log")),
    **dict.fromkeys(("eta", "noise", "stddev", "sigma", "variance", "l2"), Domain("log")),
    **dict.fromkeys(("eps", "epsilon", "clip_norm", "max_norm"), Domain("log")),
    **dict.fromkeys(("momentum", "b1", "b2", "b3", "beta1", "beta2", "beta3"), Domain("fraction")),
    **dict.fromkeys(("ema", "ema_decay", "label_smoothing"), Domain("fraction")),
    **dict.fromkeys(("label_noise", "mask_rate", "drop_rate"), Domain("fraction")),
    **dict.fromkeys(("batch_size", "num_epochs", "num_updates", "seed"), Domain("fixed")),
    "reference_batch_size": Domain("log", 0, "batch_size"),
}
_PATTERNS = (  # The first match counts.
    ("*warmup*epochs", Domain("integer", 0, _horizon("num_epochs"))),
    ("*warmup*updates", Domain("integer", 0, _horizon("num_updates"))),
    ("*warmup*steps", Domain("integer", 0, _horizon("num_updates"))),
    ("*_learning_rate", Domain("log")),
    ("*_weight_decay", Domain("log")),
    ("*_temperature", Domain("log")),
    ("*_stddev", Domain("log")),
    ("*_variance", Domain("log")),
    ("*_momentum", Domain("fraction")),
    ("*_ema_decay", Domain("fraction")),
    ("*dropout*", Domain("fraction")),
    ("*batch_size", Domain("fixed")),
    ("num_*", Domain("integer", 1)),
)
