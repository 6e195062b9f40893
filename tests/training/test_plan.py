"""Plans against counting on one's fingers, and the step counts of the papers."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegen import training

RUN = {"batch_size": 8, "num_epochs": 2, "seed": 0}


def count_batches(size, n, last_batch, total):
    """The number of examples consumed at each of `total` updates, example by example."""
    ends, taken, seen = [], 0, 0
    usable = n - n % size if last_batch == "drop" else n
    while len(ends) < total:
        taken, seen = taken + 1, seen + 1
        if seen == size or (last_batch == "keep" and taken % usable == 0):
            ends.append(taken)
            seen = 0
    return ends


@given(
    n=st.integers(1, 40),
    size=st.integers(1, 40),
    last_batch=st.sampled_from(["straddle", "keep", "drop", "resample"]),
    updates=st.integers(1, 60),
    eval_every=st.sampled_from([0, 0.01, 0.1, 0.3, 0.5, 1, 1.7, 30]),
    microbatch=st.integers(1, 50),
)
def test_course_of_a_run_is_what_counting_gives(
    n, size, last_batch, updates, eval_every, microbatch
):
    size = min(size, n)
    run = {"batch_size": size, "num_updates": updates, "seed": 0}
    plan = training.plan(run | {"last_batch": last_batch, "eval_every": eval_every}, n)
    ends = count_batches(size, n, last_batch, updates)
    length = n - n % size if last_batch == "drop" else n
    assert plan.examples_seen.tolist() == ends
    assert (plan.num_updates, plan.num_examples) == (updates, ends[-1])
    assert (plan.epoch_length, plan.epoch_ends_batch) == (length, last_batch == "keep")
    assert plan.permutation_length == (size if last_batch == "resample" else length)

    # A micro-step ends with its microbatch and its batch.
    steps = held = 0
    for taken in range(1, ends[-1] + 1):
        held += 1
        if held == microbatch or taken in ends:
            steps, held = steps + 1, 0
    assert plan.micro_steps(microbatch) == steps

    every = Fraction(str(eval_every)) * length
    due = {updates}
    for update, (before, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
        if every and end // every > before // every:
            due.add(update)
    assert plan.eval_updates == tuple(sorted(due))


@given(
    n=st.integers(1, 300),
    size=st.integers(1, 300),
    tenths=st.integers(1, 100),
    last_batch=st.sampled_from(["straddle", "keep", "drop", "resample"]),
)
def test_number_of_updates_in_some_epochs(n, size, tenths, last_batch):
    size = min(size, n)
    rounded = {"keep": -(-n // size), "drop": n // size}
    per_epoch = rounded.get(last_batch, Fraction(n, size))
    expected = math.floor(Fraction(tenths, 10) * per_epoch)
    run = {"batch_size": size, "num_epochs": tenths / 10, "seed": 0, "last_batch": last_batch}
    if not expected:
        with pytest.raises(ValueError, match="shorter than one update"):
            training.plan(run, n)
        return
    plan = training.plan(run, n)
    assert plan.num_updates == expected
    assert plan.updates_per_epoch == pytest.approx(float(per_epoch))


# Anonymous draft on additive noise, Table 1 (MNIST, 15 epochs) and Table 2 (CIFAR-10, 20 epochs).
@pytest.mark.parametrize(
    "num_examples, num_epochs, batch_size, kept, dropped",
    [
        (60_000, 15, 2048, 450, 435),
        (60_000, 15, 4096, 225, 210),
        (60_000, 15, 8192, 120, 105),
        (60_000, 15, 16384, 60, 45),
        (60_000, 15, 32768, 30, 15),
        (60_000, 15, 45000, 30, 15),
        (50_000, 20, 1024, 980, 960),
        (50_000, 20, 2048, 500, 480),
        (50_000, 20, 4096, 260, 240),
        (50_000, 20, 8192, 140, 120),
    ],
)
def test_step_counts_of_the_papers(num_examples, num_epochs, batch_size, kept, dropped):
    run = {"batch_size": batch_size, "num_epochs": num_epochs, "seed": 0}
    keep = training.plan(run | {"last_batch": "keep"}, num_examples)
    drop = training.plan(run | {"last_batch": "drop"}, num_examples)
    assert (keep.num_updates, drop.num_updates) == (kept, dropped)
    assert keep.num_examples == num_epochs * num_examples
    last = (
        keep.examples_seen[keep.num_updates // num_epochs - 1]
        - drop.examples_seen[dropped // num_epochs - 1]
    )
    assert last == num_examples % batch_size  # 10848, 27232 and 15000 in Table 1


def test_evaluations_in_equal_parts_of_the_updates():
    for last, parts, expected in [
        (10, 1, (10,)),
        (10, 4, (3, 5, 8, 10)),
        (10, 4.0, (3, 5, 8, 10)),
        (3, 20, (1, 2, 3)),
    ]:
        run = {"batch_size": 8, "num_updates": last, "num_evals": parts, "seed": 0}
        found = training.plan(run, 60).eval_updates
        assert found == expected and all(isinstance(update, int) for update in found)
    for wrong in ({"num_evals": 0}, {"num_evals": 2, "eval_every": 1.0}):
        with pytest.raises(ValueError, match="num_evals="):
            training.plan(RUN | wrong, 60)


def test_resampling_needs_an_order_to_draw(tanh_task):
    run = RUN | {"last_batch": "resample"}
    task = dataclasses.replace(tanh_task, make_optimizer=lambda hparams, key: optax.sgd(0.1))
    assert training.make_runs(task, [run])
    with pytest.raises(ValueError, match="last_batch='resample' draws every batch"):
        training.make_runs(dataclasses.replace(task, shuffle=False), [run])


def test_smith_et_al_count_one_continuous_stream():
    plan = training.plan({"batch_size": 1024, "num_epochs": 200, "seed": 0}, 50_000)
    assert plan.num_updates == 9765


def test_runs_that_differ_in_other_numbers_share_a_plan():
    assert training.plan(RUN, 60) is training.plan(RUN | {"learning_rate": 0.1, "seed": 1}, 60)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 0}, "batch_size=0 must be between 1 and the 60 examples"),
        ({"batch_size": 61}, "batch_size=61 must be .* batch_size=60 is full-batch"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be an integer"),
        ({"learning_rate": math.nan}, "learning_rate=nan must be a finite number"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1' must be a finite number"),
        ({"learning_rate": None}, "learning_rate=None must be a finite number"),
        ({"num_epochs": math.inf}, "num_epochs=inf must be a finite number"),
        ({"num_updates": 3}, "exactly one of num_epochs and num_updates, got num_epochs=2 and"),
        ({"num_epochs": 0.1}, "num_updates=0 .* shorter than one update; give more epochs"),
        ({"num_epochs": -1}, "must be (at least 1|a whole number)"),
        ({"num_epochs": 1e10}, "more than the device counts"),
        ({"last_batch": "pad"}, "last_batch='pad' must be one of straddle, keep, drop, resample"),
        ({"eval_every": -1}, "eval_every=-1 must be a number of epochs"),
        ({"seed": 0.5}, "seed=0.5 must be an integer"),
        ({"seed": -1}, "seed=-1 must be between 0 and"),
        ({"seed": 2**31}, "seed=2147483648 must be between 0 and"),
    ],
)
def test_numbers_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        training.plan(RUN | changes, 60)


@pytest.mark.parametrize("missing", ["batch_size", "seed", "num_epochs"])
def test_missing_numbers(missing):
    with pytest.raises(ValueError, match=missing):
        training.plan({name: value for name, value in RUN.items() if name != missing}, 60)


@pytest.mark.parametrize("num_updates", [0, 2.5, -3])
@pytest.mark.parametrize("schedule", [None, lambda count: 4 + count])
def test_horizons_in_updates_are_whole(num_updates, schedule):
    with pytest.raises(ValueError, match="must be (at least 1|a whole number)"):
        training.plan({"batch_size": 8, "num_updates": num_updates, "seed": 0}, 60, schedule)


@given(
    start=st.integers(1, 9),
    growth=st.sampled_from([0, 0.01, 0.2, 2]),
    horizon=st.one_of(
        st.integers(1, 200).map(lambda u: {"num_updates": u}),
        st.integers(4, 60).map(lambda q: {"num_epochs": q / 4}),
    ),
)
def test_growing_batches_are_what_counting_gives(start, growth, horizon):
    def size(count):
        return np.minimum(start + growth * count, 50).astype(int)

    plan = training.plan({"batch_size": start, "seed": 0, "eval_every": 1} | horizon, 50, size)
    ends = np.cumsum([size(np.int64(count)) for count in range(800)])
    if "num_updates" in horizon:
        ends = ends[: horizon["num_updates"]]
    else:
        ends = ends[ends <= horizon["num_epochs"] * 50]
    np.testing.assert_array_equal(plan.examples_seen, ends)
    assert plan.updates_per_epoch == pytest.approx(len(ends) / (ends[-1] / 50))


def test_schedule_is_asked_little_further_than_the_run_goes():
    asked = []

    def doubling(count):
        asked.append(count.max())
        return 2.0**count

    run = {"batch_size": 1, "num_epochs": 1, "seed": 0}
    plan = training.plan(run, 2**20, doubling)
    assert plan.num_updates == 20 and max(asked) < 100
    plan = training.plan(run | {"num_epochs": 1000}, 50_000, lambda count: 50_000)
    assert plan.num_updates == 1000  # a schedule may be a constant


@pytest.mark.parametrize(
    "changes, schedule, message",
    [
        ({}, lambda count: 3 - count, "gives 0 at update 3; it must stay between 1 and the 60"),
        ({"num_epochs": 9}, lambda count: 59 + count, "gives 61 at update 2; it must stay between"),
        ({"num_epochs": 0.1}, lambda count: 8 + count, "shorter than one update"),
        ({"last_batch": "keep"}, lambda count: 8 + count, "takes last_batch='straddle'"),
        ({"last_batch": "drop"}, lambda count: 8 + count, "takes last_batch='straddle'"),
    ],
)
def test_schedules_that_make_no_sense(changes, schedule, message):
    with pytest.raises(ValueError, match=message):
        training.plan(RUN | changes, 60, schedule)


def test_more_evaluations_than_updates_are_one_an_update():
    run = {"batch_size": 10, "num_epochs": 2, "seed": 0, "eval_every": 1e-9}
    assert training.plan(run, 100).eval_updates == tuple(range(1, 21))


def test_a_growing_batch_that_reads_what_the_runs_lack(tanh_task):
    task = dataclasses.replace(tanh_task, batch_size=lambda hparams: hparams["growth"])
    with pytest.raises(ValueError, match="batch size of task 'tanh' reads 'growth'"):
        training.make_runs(task, [{"batch_size": 10, "num_epochs": 2, "seed": 0}])
