"""Grids of runs, which compose by product, zip and chain.

A grid yields a flat dict of hyperparameters for each run, and may be iterated again.

>>> from noisegen import sweeps
>>> rates = sweeps.grid(learning_rate=sweeps.powers_of_two(1 / 8, 1 / 2))
>>> grid = sweeps.grid(batch_size=[64, 128]) * rates * sweeps.fixed(momentum=0.9)
>>> len(list(grid))
6
>>> next(iter(grid))
{'batch_size': 64, 'learning_rate': 0.125, 'momentum': 0.9}
"""

import collections
import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from noisegen import _values
from noisegen.training import run_id

HParams = Mapping[str, _values.Value]


class Grid:
    """Re-iterable sequence of runs. `a * b` is the product and `a + b` the chain.

    Every iteration starts again and yields new dicts, so a grid may be listed, counted and trained
    in turn. Functions that take a grid also take a list of dicts or a generator.

    Args:
      source: An iterable of runs, or a function without arguments that returns one, such as a
        generator function. An iterator, which can be read only once, is read and kept.

    Raises:
      ValueError: If the source is a single run or not iterable. On iteration, if an item is not a
        run.

    Examples:
      >>> @Grid
      ... def square():
      ...     for batch_size in (4, 16):
      ...         yield {"batch_size": batch_size, "learning_rate": batch_size**0.5}
      >>> list(square)
      [{'batch_size': 4, 'learning_rate': 2.0}, {'batch_size': 16, 'learning_rate': 4.0}]
    """

    def __init__(self, source: Iterable[HParams] | Callable[[], Iterable[HParams]]):
        is_single = isinstance(source, Mapping | str | bytes)
        if is_single or not (callable(source) or isinstance(source, Iterable)):
            raise ValueError(
                "a grid is an iterable of runs, or a function that returns one, got"
                f" {_values.shown(source)}; write [run] for a single run."
            )
        self._source = tuple(source) if isinstance(source, Iterator) else source

    def __iter__(self) -> Iterator[dict]:
        runs = self._source() if callable(self._source) else self._source
        return map(_copied, runs)

    def __mul__(self, other: Iterable[HParams]) -> "Grid":
        return product(self, other)

    def __add__(self, other: Iterable[HParams]) -> "Grid":
        return chain(self, other)


def grid(**fields: Iterable) -> Grid:
    """Returns a run for every combination of the given fields. The last field varies fastest.

    Args:
      **fields: At least one value for each field: numbers, booleans or words, in a list, range,
        generator or one-dimensional array. An array without dimensions is a single value.

    Raises:
      ValueError: If a field has no values, or one of them more than once, if they have no order, or
        if one is not a number, boolean or word.

    Examples:
      >>> list(grid(batch_size=[64, 128]))
      [{'batch_size': 64}, {'batch_size': 128}]
    """
    columns = [_column(name, column) for name, column in fields.items()]

    def runs() -> Iterator[dict]:
        for row in itertools.product(*columns):
            yield dict(zip(fields, row, strict=True))

    return Grid(runs)


def fixed(**fields: _values.Value) -> Grid:
    """Returns a single run with these fields, the constants of a sweep.

    Raises:
      ValueError: If a value is not a number, boolean or word.

    Examples:
      >>> list(fixed(momentum=0.9, num_epochs=15))
      [{'momentum': 0.9, 'num_epochs': 15}]
    """
    for name, value in fields.items():
        if isinstance(value, list | tuple | range | set) or getattr(value, "ndim", 0):
            raise ValueError(
                f"fixed({name}=...) needs one value, got {_values.shown(value)};"
                f" grid({name}=...) makes a run for each."
            )
    return Grid((run_id.canonicalize(fields),))


def product(*grids: Iterable[HParams]) -> Grid:
    """Returns every combination of one run from each grid. The last grid varies fastest.

    Args:
      *grids: Grids without fields in common.

    Raises:
      ValueError: On iteration, if two grids set the same field.

    Examples:
      >>> list(product(fixed(momentum=0.5), grid(seed=range(2))))
      [{'momentum': 0.5, 'seed': 0}, {'momentum': 0.5, 'seed': 1}]
    """
    grids = tuple(Grid(grid) for grid in grids)
    return Grid(lambda: map(_merge, itertools.product(*grids)))


def zipped(*grids: Iterable[HParams]) -> Grid:
    """Merges the first runs of all grids, then their second runs, and so on.

    Args:
      *grids: Grids of equal length without fields in common.

    Raises:
      ValueError: On iteration, if the lengths differ or two grids set the same field.

    Examples:
      >>> list(zipped(grid(batch_size=[64, 128]), grid(num_epochs=[5, 10])))
      [{'batch_size': 64, 'num_epochs': 5}, {'batch_size': 128, 'num_epochs': 10}]
    """
    grids = tuple(Grid(grid) for grid in grids)

    def merged() -> Iterator[dict]:
        for index, parts in enumerate(itertools.zip_longest(*grids)):
            if None in parts:
                raise ValueError(
                    f"zipped grids must have equal lengths, but grid {parts.index(None)} (counted"
                    f" from 0) has only {index} runs; use product(...) for all combinations."
                )
            yield _merge(parts)

    return Grid(merged)


def chain(*grids: Iterable[HParams]) -> Grid:
    """Returns the runs of the first grid, then the runs of the second, and so on.

    Examples:
      >>> list(chain(grid(eta=[0]), grid(eta=[0.1, 0.3])))
      [{'eta': 0}, {'eta': 0.1}, {'eta': 0.3}]
    """
    grids = tuple(Grid(grid) for grid in grids)
    return Grid(lambda: itertools.chain(*grids))


def powers_of_two(first: float, last: float) -> tuple[int | float, ...]:
    """Returns the powers of two from first to last, as integers from 1 up and as floats below.

    Args:
      first: Smallest value, a positive power of two.
      last: Largest value, a power of two.

    Returns:
      The values first, 2 * first, 4 * first, ..., last.

    Raises:
      ValueError: If an end is not a power of two, or if last < first.

    Examples:
      >>> powers_of_two(64, 512)
      (64, 128, 256, 512)
      >>> powers_of_two(2**-2, 2)
      (0.25, 0.5, 1, 2)
    """
    first = _end("powers_of_two", first)
    last = _end("powers_of_two", last)
    for end in (first, last):
        if not is_power_of_two(end):
            raise ValueError(
                "powers_of_two needs ends that are powers of two (such as 0.125 or 64), got"
                f" {end!r}; doublings(first, last) starts from any number."
            )
    powers = doublings(float(first), float(last))
    return tuple(int(power) if power >= 1 else power for power in powers)


def doublings(first: float, last: float) -> tuple[int | float, ...]:
    """Returns first * 2^k for k = 0, 1, ... up to last, a base-2 grid from any start.

    Args:
      first: Smallest value, positive. An integer gives integers.
      last: Upper end, at least first. A value equal to it up to rounding is included.

    Returns:
      The values, ascending. Doubling is exact in floating point.

    Raises:
      ValueError: Unless 0 < first <= last < infinity.

    Examples:
      >>> doublings(0.05, 0.4)
      (0.05, 0.1, 0.2, 0.4)
    """
    first = _end("doublings", first)
    last = _end("doublings", last)
    if not 0 < first <= last < math.inf:
        raise ValueError(
            f"a base-2 grid needs 0 < first <= last, got first={first!r}, last={last!r}."
        )
    # A difference of logarithms, as the ratio may overflow. The summand absorbs its rounding error.
    num_steps = int(math.log2(last) - math.log2(first) + 1e-9)
    if isinstance(first, int):
        return tuple(first * 2**k for k in range(num_steps + 1))
    return tuple(math.ldexp(first, k) for k in range(num_steps + 1))


def is_power_of_two(value: float) -> bool:
    """Returns whether a value is the number 2^k for an integer k, which may be negative."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return 0 < value < math.inf and math.frexp(value)[0] == 0.5


def _copied(run) -> dict:
    """Copies a run of a grid, after checking that it is one."""
    if not hasattr(run, "keys"):
        raise ValueError(
            f"a grid holds runs, mappings from field to value, got {_values.shown(run)}."
        )
    return dict(run)


def _is_array(column) -> bool:
    """Returns whether this is an array of NumPy or JAX. NumPy's scalars are not."""
    return hasattr(column, "__array__") and not isinstance(column, np.generic)


def _end(function, value) -> int | float:
    """Returns an end of a grid as a Python number. An integer stays one, and a float stays one."""
    try:
        end = value if type(value) in (int, float) else _values.plain("end", value)
        float(end)  # Refuses integers beyond every float.
    except (OverflowError, ValueError):
        end = None
    if type(end) not in (int, float):
        raise ValueError(
            f"{function} needs finite numbers for its ends, got {_values.shown(value)}."
        )
    return end


def _column(name, column) -> tuple[_values.Value, ...]:
    """Returns the values of one field as plain Python values."""
    if isinstance(column, str | bytes) or not (isinstance(column, Iterable) or _is_array(column)):
        raise ValueError(
            f"grid({name}=...) needs an iterable of values, got {column!r};"
            f" write [{column!r}], or fixed({name}={column!r})."
        )
    if isinstance(column, Mapping | set | frozenset):
        raise ValueError(
            f"grid({name}=...) needs values in order, got {_values.shown(column)}"
            f" ({type(column).__name__}); write a list of them, such as sorted(...)."
        )
    if _is_array(column):
        column = np.atleast_1d(np.asarray(column))
    # Integers, of which there are most, are plain already: a range of seeds may be long.
    plain = tuple(value if type(value) is int else _values.plain(name, value) for value in column)
    if not plain:
        raise ValueError(f"grid({name}=...) needs at least one value, got none.")
    if len(set(plain)) < len(plain):
        [(value, times)] = collections.Counter(plain).most_common(1)
        raise ValueError(
            f"grid({name}=...) has the value {value!r} {times} times, which makes the same runs"
            " again; give each value once."
        )
    return plain


def _merge(parts) -> dict:
    """Merges runs without fields in common into one."""
    merged = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise ValueError(f"more than one grid sets {', '.join(sorted(twice))}; set each once.")
        merged.update(part)
    return merged
