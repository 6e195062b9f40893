"""Domains of fields: the values that make sense, and the next one beyond the end of a grid.

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

from noisegen.sweeps import grid
from noisegen.training import run_id

SCALES = ("log", "linear", "integer", "fraction", "fixed")

# An end of a domain: a number, the name of another field of the run, or a function of the run.
End = float | str | Callable[[Mapping], float] | None

_ENDS = {  # Both belong to the domain where the scale allows them.
    "log": (0, math.inf),
    "linear": (-math.inf, math.inf),
    "integer": (0, 2**31 - 1),
    "fraction": (0, 1),
    "fixed": (-math.inf, math.inf),
}
_TINY, _HUGE = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # normal numbers of float32
_CLOSE = 1e-3  # Values that differ by less, relatively, are no step of a grid.


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that a field may take, and the scale on which its grid grows.

    Attributes:
      scale: "log" grows by the ratio at the end of the grid, "linear" by the difference.
        "integer" grows by the ratio if all ratios are equal, else by the difference, and rounds.
        "fraction", for numbers in [0, 1), grows 1 - value by the ratio: 0.9, 0.99, 0.999.
        "fixed" never grows.
      low, high: The ends, which belong to the domain: numbers, names of other fields of the run, or
        functions of the run. None is the scale's own: 0 and infinity for "log", 0 and 2^31 - 1 for
        "integer", 0 and 1 for "fraction", none for the others. On a log scale no step reaches 0; a
        fraction never reaches 1.

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
          ValueError: If an end names a field that the run lacks, or is no number.
        """
        own = _ENDS[self.scale]
        return (_end(self.low, own[0], run), _end(self.high, own[1], run))

    def holds(self, value: float, run: Mapping) -> bool:
        """Returns whether the value lies in the domain; 0 counts as the low end of a log scale."""
        low, high = self.ends(run)
        below_one = self.scale != "fraction" or run_id.rounded(float(value)) < 1
        whole = self.scale != "integer" or float(value).is_integer()
        return low <= value <= high and below_one and whole

    def is_end(self, value: float, up: bool, run: Mapping) -> bool:
        """Returns whether the value is the domain's own end, beyond which nothing lies."""
        end = self.ends(run)[up]
        return math.isfinite(end) and _same(value, end)

    def step(self, values: Sequence[float], up: bool, run: Mapping | None = None) -> float | None:
        """Returns the next value beyond the largest of those tried, or the smallest.

        The domain's own end is the next value if the step would leave the domain.

        Args:
          values: Those tried, in any order.
          up: True for the next value above, False for the one below.
          run: Any run at that end; its fields are the domain's ends that are named.

        Returns:
          The value; None if nothing lies beyond, the values have no step, or the scale is "fixed".
        """
        run = run or {}
        ordered = sorted(values, reverse=not up)
        end = ordered[-1]
        if self.scale == "fixed" or not self.holds(end, run):
            return None
        scale = self.scale
        inner = next((each for each in ordered[-2::-1] if _apart(each, end, scale)), None)
        if inner is None:
            return None
        geometric = scale == "integer" and _is_geometric(ordered)
        value = _NEXT["geometric" if geometric else scale](end, inner)
        limit = self.ends(run)[up]
        if value > limit if up else value < limit:
            value = limit
        return value if self._follows(value, end, up, run) else None

    def _follows(self, value, end, up, run):
        """Returns whether a value is a new one beyond `end` that the device can hold."""
        reached = _TINY <= abs(value) <= _HUGE or (value == 0 and self.scale != "log")
        outwards = value > end if up else value < end
        return reached and outwards and not _same(value, end) and self.holds(value, run)


def standard(name: str, values: Sequence[float] = ()) -> Domain | None:
    """Returns the domain of a field with a usual name, None for a name that says nothing.

    Args:
      name: Name of the field.
      values: Those tried; where one is fractional, what usually is an integer grows linearly.

    Examples:
      >>> standard("final_learning_rate").scale, standard("attention_dropout").scale
      ('log', 'fraction')
      >>> standard("warmup_epochs").scale, standard("warmup_epochs", [0.5, 1]).scale
      ('integer', 'linear')
      >>> standard("my_field") is None
      True
    """
    patterns = (domain for pattern, domain in _PATTERNS if fnmatch.fnmatchcase(name, pattern))
    domain = _STANDARD.get(name) or next(patterns, None)
    if domain and domain.scale == "integer" and any(value % 1 for value in values):
        return dataclasses.replace(domain, scale="linear")
    return domain


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value


def _end(end, own, run):
    """Returns an end of a domain as a number."""
    if end is None:
        return own
    if isinstance(end, str):
        if end not in run:
            raise ValueError(
                f"a Domain ends at the field {end!r}, but a run has only {', '.join(run)}."
            )
        found = run[end]
    else:
        found = end(run) if callable(end) else end
    if not _is_number(found):
        raise ValueError(f"a Domain must end at a number, got {found!r}.")
    return found


def _same(first, second):
    """Returns whether the device takes two numbers for one."""
    return run_id.rounded(float(first)) == run_id.rounded(float(second))


def _apart(inner, end, scale):
    """Returns whether two values are far enough apart to be the step of a grid."""
    if _same(inner, end):
        return False
    if scale == "integer":
        return True
    if scale == "fraction":
        inner, end = 1 - inner, 1 - end
    if scale != "linear" and not (inner > 0 and end > 0):
        return False
    return abs(inner - end) > _CLOSE * max(abs(inner), abs(end))


def _ratio_further(end, inner):
    """Returns the next value of a geometric grid; powers of two stay exact."""
    value = end * (end / inner)
    return value if grid.is_power_of_two(end / inner) else float(f"{value:.12g}")


def _difference_further(end, inner):
    """Returns the next value of an arithmetic grid, without the difference's rounding error."""
    step = end - inner
    digits = 12 - math.ceil(math.log10(max(abs(end), abs(step))))
    return round(end + step, digits)


def _fraction_further(end, inner):
    """Returns the next value of a grid that is geometric in 1 - value."""
    return round(1 - _ratio_further(1 - end, 1 - inner), 15)


def _is_geometric(values):
    """Returns whether the ratios of successive values, at least two, are all equal."""
    triples = zip(values, values[1:], values[2:], strict=False)
    return min(values) > 0 and all(a * c == b * b for a, b, c in triples)


def _integer_ratio_further(end, inner):
    """Returns the next value of a geometric grid of integers."""
    return round(end * end / inner)


def _integer_difference_further(end, inner):
    """Returns the next value of an arithmetic grid of integers."""
    return end + (end - inner)


_NEXT = {
    "log": _ratio_further,
    "linear": _difference_further,
    "integer": _integer_difference_further,
    "geometric": _integer_ratio_further,
    "fraction": _fraction_further,
}


def _horizon(name):
    """Makes an end at the run's own horizon, infinity if it has none of this name."""
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
_PATTERNS = (  # The first that fits counts.
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
