"""Grids of runs: re-iterable generators of flat dicts that compose by product, zip and chain.

>>> from noisegen import sweeps
>>> rates = sweeps.values(learning_rate=sweeps.powers_of_two(1 / 8, 1 / 2))
>>> grid = sweeps.values(batch_size=[64, 128]) * rates * sweeps.fixed(momentum=0.9)
>>> len(list(grid))
6
>>> next(iter(grid))
{'batch_size': 64, 'learning_rate': 0.125, 'momentum': 0.9}
"""

import itertools
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from noisegen import _values
from noisegen.training import run_id

Run = Mapping[str, _values.Value]


class Grid:
    """A re-iterable sequence of runs; `a * b` is the product and `a + b` the chain.

    Every iteration starts afresh and yields new dicts, so a grid may be listed, counted and trained
    in turn. A plain list of dicts or a generator may stand wherever a grid is expected.

    Args:
      source: An iterable of runs, or a function of no arguments that returns one (a generator
        function, say). An iterator, which can be read only once, is read and kept.

    Raises:
      ValueError: If the source is a single run or no iterable; on iteration, if an item is no run.

    Examples:
      >>> @Grid
      ... def square():
      ...     for batch_size in (4, 16):
      ...         yield {"batch_size": batch_size, "learning_rate": batch_size**0.5}
      >>> list(square)
      [{'batch_size': 4, 'learning_rate': 2.0}, {'batch_size': 16, 'learning_rate': 4.0}]
    """

    def __init__(self, source: Iterable[Run] | Callable[[], Iterable[Run]]):
        if isinstance(source, Mapping | str | bytes) or not (
            callable(source) or isinstance(source, Iterable)
        ):
            raise ValueError(
                "a grid is an iterable of runs, or a function that returns one, got"
                f" {_values.shown(source)}; write [run] for a single run."
            )
        self._source = tuple(source) if isinstance(source, Iterator) else source

    def __iter__(self) -> Iterator[dict]:
        source = self._source
        return map(_copied, source() if callable(source) else source)

    def __mul__(self, other: Iterable[Run]) -> "Grid":
        return product(self, other)

    def __add__(self, other: Iterable[Run]) -> "Grid":
        return chain(self, other)


def values(**fields: Iterable) -> Grid:
    """Returns a run for every combination of the given fields, the last field varying fastest.

    Args:
      **fields: For each field its values, at least one: numbers, booleans or words, in a list,
        range, generator or array of one dimension. An array without dimensions is one value.

    Raises:
      ValueError: If a field has no values, they are in no order, or one is no value of a run.

    Examples:
      >>> list(values(batch_size=[64, 128]))
      [{'batch_size': 64}, {'batch_size': 128}]
    """
    columns = [_column(name, column) for name, column in fields.items()]
    return Grid(
        lambda: (dict(zip(fields, row, strict=True)) for row in itertools.product(*columns))
    )


def fixed(**fields: _values.Value) -> Grid:
    """Returns one run with these fields: the constants of a sweep.

    Raises:
      ValueError: If a value is no number, boolean or word.

    Examples:
      >>> list(fixed(momentum=0.9, num_epochs=15))
      [{'momentum': 0.9, 'num_epochs': 15}]
    """
    for name, value in fields.items():
        if isinstance(value, list | tuple | range | set) or getattr(value, "ndim", 0):
            raise ValueError(
                f"fixed({name}=...) needs one value, got {_values.shown(value)};"
                f" values({name}=...) makes a run for each."
            )
    return Grid((run_id.canonicalize(fields),))


def product(*grids: Iterable[Run]) -> Grid:
    """Every combination of one run from each grid, the last grid varying fastest.

    Args:
      *grids: Grids without fields in common.

    Raises:
      ValueError: On iteration, if two grids set the same field.

    Examples:
      >>> list(product(fixed(momentum=0.5), values(seed=range(2))))
      [{'momentum': 0.5, 'seed': 0}, {'momentum': 0.5, 'seed': 1}]
    """
    grids = tuple(Grid(grid) for grid in grids)
    return Grid(lambda: map(_merge, itertools.product(*grids)))


def zipped(*grids: Iterable[Run]) -> Grid:
    """The first runs of all grids merged, then the second ones, and so on.

    Args:
      *grids: Grids of equal length without fields in common.

    Raises:
      ValueError: On iteration, if the lengths differ or two grids set the same field.

    Examples:
      >>> list(zipped(values(batch_size=[64, 128]), values(num_epochs=[5, 10])))
      [{'batch_size': 64, 'num_epochs': 5}, {'batch_size': 128, 'num_epochs': 10}]
    """
    grids = tuple(Grid(grid) for grid in grids)

    def merged():
        for index, parts in enumerate(itertools.zip_longest(*grids)):
            if None in parts:
                raise ValueError(
                    f"zipped grids must have equal lengths, but grid {parts.index(None)} (counted"
                    f" from 0) has only {index} runs; use product(...) for all combinations."
                )
            yield _merge(parts)

    return Grid(merged)


def chain(*grids: Iterable[Run]) -> Grid:
    """The runs of the first grid, then those of the second, and so on.

    Examples:
      >>> list(chain(values(eta=[0]), values(eta=[0.1, 0.3])))
      [{'eta': 0}, {'eta': 0.1}, {'eta': 0.3}]
    """
    grids = tuple(Grid(grid) for grid in grids)
    return Grid(lambda: itertools.chain(*grids))


def powers_of_two(first: float, last: float) -> tuple[int | float, ...]:
    """The powers of two from first to last, exactly representable: integers from 1 up, else floats.

    Args:
      first: A power of two, positive.
      last: A power of two, at least first.

    Returns:
      first, 2 first, 4 first, ..., last.

    Raises:
      ValueError: If an end is not a power of two, or last < first.

    Examples:
      >>> powers_of_two(64, 512)
      (64, 128, 256, 512)
      >>> powers_of_two(2**-2, 2)
      (0.25, 0.5, 1, 2)
    """
    first, last = _end("powers_of_two", first), _end("powers_of_two", last)
    for end in (first, last):
        if not is_power_of_two(end):
            raise ValueError(
                "powers_of_two needs ends that are powers of two (such as 0.125 or 64), got"
                f" {end!r}; doublings(first, last) starts from any number."
            )
    return tuple(int(v) if v >= 1 else v for v in doublings(float(first), float(last)))


def doublings(first: float, last: float) -> tuple[int | float, ...]:
    """A base-2 grid from any start: first * 2^k for k = 0, 1, ... while not above last.

    Args:
      first: Smallest value, positive; an integer gives integers.
      last: Upper end, at least first; met up to rounding.

    Returns:
      The values, ascending. Doubling is exact in floating point.

    Raises:
      ValueError: If not 0 < first <= last < infinity.

    Examples:
      >>> doublings(0.05, 0.4)
      (0.05, 0.1, 0.2, 0.4)
    """
    first, last = _end("doublings", first), _end("doublings", last)
    if not 0 < first <= last < math.inf:
        raise ValueError(
            f"a base-2 grid needs 0 < first <= last, got first={first!r}, last={last!r}."
        )
    steps = int(math.log2(last) - math.log2(first) + 1e-9)
    double = operator.lshift if isinstance(first, int) else math.ldexp
    return tuple(double(first, k) for k in range(steps + 1))


def is_power_of_two(value: float) -> bool:
    """Returns whether a value is the number 2^k for an integer k, which may be negative."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and 0 < value < math.inf and math.frexp(value)[0] == 0.5


def _copied(run):
    """Copies a run of a grid."""
    if not hasattr(run, "keys"):
        raise ValueError(
            f"a grid holds runs, mappings from field to value, got {_values.shown(run)}."
        )
    return dict(run)


def _is_array(column):
    """Returns whether this is an array of NumPy's kind; its scalars are none."""
    return hasattr(column, "__array__") and not isinstance(column, np.generic)


def _end(function, value):
    """Returns an end of a grid as a Python number."""
    try:
        end = value if type(value) in (int, float) else _values.plain("end", value)
        float(end)
    except (OverflowError, ValueError):
        end = None
    if type(end) not in (int, float):
        raise ValueError(
            f"{function} needs finite numbers for its ends, got {_values.shown(value)}."
        )
    return end


def _column(name, column):
    """Returns the values of one field, plain and kept."""
    if isinstance(column, str | bytes) or not (isinstance(column, Iterable) or _is_array(column)):
        raise ValueError(
            f"values({name}=...) needs an iterable of values, got {column!r};"
            f" write [{column!r}], or fixed({name}={column!r})."
        )
    if isinstance(column, Mapping | set | frozenset):
        raise ValueError(
            f"values({name}=...) needs values in order, got {_values.shown(column)}"
            f" ({type(column).__name__}); write a list of them, such as sorted(...)."
        )
    if _is_array(column):
        column = np.atleast_1d(np.asarray(column))
    column = tuple(value if type(value) is int else _values.plain(name, value) for value in column)
    if not column:
        raise ValueError(f"values({name}=...) needs at least one value, got none.")
    return column


def _merge(parts):
    """One run out of several; no field twice."""
    run = {}
    for part in parts:
        if twice := run.keys() & part.keys():
            raise ValueError(f"more than one grid sets {', '.join(sorted(twice))}; set each once.")
        run.update(part)
    return run
