"""Regions of data parallelism: planted ends of perfect scaling and of all returns are found."""

import math

import numpy as np
import pytest

from noisegen import storage, sweeps
from noisegen.statistics import Interval

SIZES = [2.0**k for k in range(3, 12)]


def make_row(size, updates, target=0.1, series="", flags=()):
    """A row with the updates of each of its runs."""
    updates = np.atleast_1d(updates).astype(float)
    record = storage.Record(hparams={}, status="finished", metrics={})
    crossings = tuple(
        sweeps.Crossing(updates=each, examples=each * size, record=record) for each in updates
    )
    point = sweeps.TargetPoint(values={}, crossings=crossings, tried=len(crossings))
    mean = float(updates.mean())
    return sweeps.RowTarget(
        series=series,
        row=size,
        target=target,
        updates=Interval(mean, math.nan, math.nan, 0.95),
        examples=Interval(mean * size, math.nan, math.nan, 0.95),
        point=point,
        points=(point,),
        n=len(crossings),
        flags=flags,
    )


def make_rows(perfect=32, useful=256, noise=0.0, seeds=1, sizes=SIZES):
    """Updates that halve up to one batch size, fall less up to another, and then no further."""
    random = np.random.default_rng(0)
    rows = []
    for size in sizes:
        ideal = 20_000 / min(size, perfect)
        updates = ideal * (min(max(size, perfect), useful) / perfect) ** -0.5
        rows.append(make_row(size, updates * np.exp(noise * random.standard_normal(seeds))))
    return rows


@pytest.mark.parametrize("perfect, useful", [(32, 256), (8, 64), (64, 64), (16, 2048)])
@pytest.mark.parametrize("noise, seeds", [(0, 1), (0.02, 5)])
def test_planted_regions_are_found(perfect, useful, noise, seeds):
    [found] = sweeps.scaling_regions(make_rows(perfect, useful, noise, seeds))
    assert (found.perfect_up_to, found.largest_useful) == (perfect, useful)
    assert ("no_slope" in found.flags) == (perfect == 8)
    assert ("no_plateau" in found.flags) == (useful == 2048)


def test_the_line_of_perfect_scaling_goes_through_the_smallest_batch_size():
    [found] = sweeps.scaling_regions(make_rows())
    assert found.examples == pytest.approx(20_000)


def test_differences_within_the_tolerance_do_not_count():
    rows = [make_row(size, 100 * (1.03 - 0.01 * index)) for index, size in enumerate(SIZES[:4])]
    [found] = sweeps.scaling_regions(rows)
    assert (found.perfect_up_to, found.largest_useful) == (8, 8)
    [found] = sweeps.scaling_regions(rows, tolerance=0.0)
    assert found.largest_useful == 64


def test_differences_that_cannot_be_measured_do_not_count():
    rows = [make_row(8, [100, 200, 300]), make_row(16, [60, 150, 200])]
    [found] = sweeps.scaling_regions(rows)
    assert (found.perfect_up_to, found.largest_useful) == (16, 8)
    rows = [make_row(8, [199, 200, 201]), make_row(16, [136, 137, 138])]
    [found] = sweeps.scaling_regions(rows)
    assert (found.perfect_up_to, found.largest_useful) == (8, 16)


def test_rows_that_are_not_measured_are_left_out():
    never = make_row(4, math.inf, flags=("not_reached",))
    never = sweeps.RowTarget(**vars(never) | {"n": 0, "point": None})
    censored = make_row(4096, 1, flags=("censored",))
    rows = make_rows()
    assert sweeps.scaling_regions([never, *rows, censored]) == sweeps.scaling_regions(rows)


def test_one_batch_size_has_no_regions():
    [found] = sweeps.scaling_regions([make_row(8, 100), make_row(16, 1, flags=("censored",))])
    assert found.flags == ("few_rows",) and math.isnan(found.largest_useful)


def test_each_series_and_target_has_regions_of_its_own():
    rows = [
        make_row(size, 1000 / size, target=target, series=series)
        for size in SIZES
        for target in (0.1, 0.2)
        for series in ("a", "b")
    ]
    found = sweeps.scaling_regions(rows)
    assert {(each.series, each.target) for each in found} == {
        ("a", 0.1), ("a", 0.2), ("b", 0.1), ("b", 0.2)
    }  # fmt: skip


@pytest.mark.parametrize("row", [0, -8, math.nan, math.inf, "adam", True])
def test_rows_that_are_no_batch_sizes_are_refused(row):
    with pytest.raises(ValueError, match="batch sizes"):
        sweeps.scaling_regions(
            [make_row(8, 100), sweeps.RowTarget(**vars(make_row(8, 1)) | {"row": row})]
        )


@pytest.mark.parametrize("tolerance", [-0.1, 1, math.nan])
def test_a_tolerance_out_of_range_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        sweeps.scaling_regions(make_rows(), tolerance=tolerance)
