"""Tests the runs that grids yield, that grids can be iterated again, and errors."""

import math
import time

import jax.numpy as jnp
import numpy as np
import pytest

from noisegen import sweeps


def test_values_combines_all_fields_and_varies_the_last_fastest():
    grid = sweeps.grid(a=[1, 2], b=iter([3, 4]))
    assert list(grid) == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]


@pytest.mark.parametrize(
    "make",
    [
        lambda: sweeps.grid(a=(x for x in (1, 2))),
        lambda: sweeps.product([{"a": 1}, {"a": 2}], sweeps.fixed(b=1)),
        lambda: sweeps.zipped(iter([{"a": 1}]), ({"b": x} for x in (2,))),
        lambda: sweeps.chain(iter([{"a": 1}]), [{"a": 2}]),
        lambda: sweeps.Grid(lambda: ({"a": x} for x in range(3))),
        lambda: sweeps.Grid({"a": x} for x in range(3)) * ({"b": x} for x in range(2)),
    ],
)
def test_grids_can_be_iterated_again_and_yield_new_dicts(make):
    grid = make()
    first = list(grid)
    expected = [dict(run) for run in first]
    for run in first:
        run["a"] = "changed"
    assert first and list(grid) == expected == list(grid)


def test_times_is_product_and_plus_is_chain():
    a, b = sweeps.grid(a=[1, 2]), sweeps.fixed(b=3)
    assert list(a * b) == list(sweeps.product(a, b)) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert list(a + b) == list(sweeps.chain(a, b)) == [{"a": 1}, {"a": 2}, {"b": 3}]


def test_zipped_merges_pairs_and_refuses_unequal_lengths():
    grid = sweeps.zipped(sweeps.grid(a=[1, 2]), sweeps.grid(b=[3, 4]))
    assert list(grid) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(ValueError, match="grid 1 "):
        list(sweeps.zipped(sweeps.grid(a=[1, 2]), sweeps.grid(b=[3])))


@pytest.mark.parametrize("combine", [sweeps.product, sweeps.zipped])
def test_a_field_set_twice_is_refused_and_named(combine):
    with pytest.raises(ValueError, match="momentum"):
        list(combine(sweeps.fixed(momentum=0.9, a=1), sweeps.fixed(momentum=0.5)))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([], "at least one"),
        ([0.1, 0.2, 0.1], "learning_rate.* has the value 0.1 2 times"),
        (0.1, r"\[0.1\]"),
        ("keep", r"\['keep'\]"),
        (b"keep", r"\[b'keep'\]"),
        ({0.1, 0.2}, r"learning_rate.* in order, got .* \(set\); write a list"),
        ({0.1: 1}, r"in order, got {0.1: 1} \(dict\)"),
        ([[0.1, 0.2]], r"learning_rate .* got \[0.1, 0.2\]"),
        (np.ones((2, 2)), "learning_rate .* got array"),
        ([None], "learning_rate .* got None"),
        ([0.1, math.nan], "learning_rate must be a finite number, got nan"),
    ],
)
def test_invalid_columns_are_refused(column, message):
    with pytest.raises(ValueError, match=message):
        sweeps.grid(learning_rate=column)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (np.logspace(-3, -1, 3), [0.001, 0.01, 0.1]),
        (jnp.linspace(0.1, 0.2, 2), [0.1, 0.2]),
        (jnp.arange(3), [0, 1, 2]),
        (np.array(0.5), [0.5]),
        (jnp.float32(0.1), [0.1]),
        (range(2, 8, 3), [2, 5]),
        ((2.0**k for k in (1, -1)), [2, 0.5]),
        ([np.float32(0.1), np.int64(3), True, "adam"], [0.1, 3, True, "adam"]),
        (np.array(["sgd", "adam"]), ["sgd", "adam"]),
    ],
)
def test_columns_of_every_type_become_plain_values(column, expected):
    found = [run["a"] for run in sweeps.grid(a=column)]
    assert found == expected and {*map(type, found)} <= {int, float, bool, str}


@pytest.mark.parametrize("value", [np.array([1, 2]), jnp.ones(1), [1], (1, 2), range(2)])
def test_fixed_refuses_several_values(value):
    with pytest.raises(ValueError, match=r"fixed\(rate=.*grid\(rate="):
        sweeps.fixed(rate=value)


def test_fixed_fields_become_plain_values():
    [run] = sweeps.fixed(rate=jnp.float32(0.1), nesterov=np.bool_(True), optimizer="adam")
    assert run == {"rate": 0.1, "nesterov": True, "optimizer": "adam"}


@pytest.mark.parametrize("source", [{"a": 1}, "ab", 3, None])
def test_sources_without_runs_are_refused(source):
    with pytest.raises(ValueError, match=r"\[run\]"):
        sweeps.Grid(source)


@pytest.mark.parametrize("item", [1, "ab", [("a", 1)], None])
def test_items_that_are_not_runs_are_refused(item):
    with pytest.raises(ValueError, match="runs, .* got"):
        list(sweeps.Grid([{"a": 1}, item]))


def test_powers_of_two_are_exact_and_integers_from_1_up():
    grid = sweeps.powers_of_two(2**-20, 64)
    assert grid == tuple(2.0**k for k in range(-20, 7))
    assert [type(value) for value in grid] == [float] * 20 + [int] * 7
    assert sweeps.powers_of_two(64, 64) == (64,)


@pytest.mark.parametrize("ends", [(60, 128), (64, 100), (0, 4), (-2, 2), (math.nan, 2), (4, 2)])
def test_powers_of_two_refuses_other_ends(ends):
    with pytest.raises(ValueError, match="got"):
        sweeps.powers_of_two(*ends)


def test_doublings_reach_the_end_and_never_exceed_it():
    assert sweeps.doublings(0.1, 0.8) == (0.1, 0.2, 0.4, 0.8)
    assert sweeps.doublings(3, 23) == (3, 6, 12)
    assert len(sweeps.doublings(0.1 + 0.2, 1.2)) == 3  # In floating point, 0.1 + 0.2 > 0.3.
    assert sweeps.doublings(0.3, 0.3 * 2**10)[-1] == 0.3 * 2**10
    with pytest.raises(ValueError, match="first=0"):
        sweeps.doublings(0, 1)


def test_base_2_grids_take_numpy_numbers_and_huge_spans():
    assert sweeps.powers_of_two(np.int32(64), np.int32(256)) == (64, 128, 256)
    assert sweeps.powers_of_two(np.float32(0.25), jnp.float32(1)) == (0.25, 0.5, 1)
    assert sweeps.doublings(np.float32(0.05), np.float32(0.2)) == (0.05, 0.1, 0.2)
    assert sweeps.doublings(np.int64(3), np.uint64(2**63))[-1] == 3 * 2**61
    assert len(sweeps.powers_of_two(2.0**-1074, 2.0**1023)) == 2098
    assert sweeps.doublings(1, 2**1000)[-1] == 2**1000


@pytest.mark.parametrize("make", [sweeps.powers_of_two, sweeps.doublings])
@pytest.mark.parametrize("bad", ["64", None, True, 10**400, np.array([1, 2])])
def test_base_2_grids_refuse_ends_that_are_not_finite_numbers(make, bad):
    with pytest.raises(ValueError, match="finite numbers .*got"):
        make(1, bad)


@pytest.mark.slow
def test_100_000_runs_are_planned_in_seconds():
    grid = sweeps.grid(
        batch_size=sweeps.powers_of_two(64, 32768),
        learning_rate=sweeps.powers_of_two(2**-9, 1),
        eta=[0.01 * k for k in range(10)],
        seed=range(100),
    ) * sweeps.fixed(momentum=0.9, num_epochs=15, last_batch="keep")
    start = time.process_time()
    assert len(sweeps.by_run_id("task", grid)) == 100_000
    assert time.process_time() - start < 5
