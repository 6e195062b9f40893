"""Protocols on records whose optimum is known."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegen import storage, sweeps
from noisegen.sweeps import checks
from noisegen.sweeps.extension import extend_grid


def make(accuracies, diverged=(), **fixed):
    """Records from {learning rate: accuracies by seed}; None is a run that diverged."""
    return [
        storage.Record(
            run_id=f"{rate}-{seed}",
            hparams={"batch_size": 64, **fixed, "learning_rate": rate, "seed": seed},
            status="diverged" if accuracy is None else "finished",
            metrics={
                "test_accuracy": accuracy,
                "train_loss": 1 / accuracy if accuracy else None,
            },
        )
        for rate, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    ]


def one(records, **protocol):
    [optimum] = sweeps.select(records, sweeps.Protocol(**protocol))
    return optimum


GRID = {0.1: [0.5, 0.6, 0.1], 0.2: [0.80, 0.84, 0.2], 0.4: [0.82, 0.81, 0.3], 0.8: [0.7, 0.6, 0]}


def test_best_k_of_n_mean_std_and_error_bar():
    optimum = one(make(GRID), best=2, of=3)
    assert optimum.values == {"learning_rate": 0.2} and optimum.n == 2
    assert optimum.mean == pytest.approx(0.82)
    assert optimum.std == pytest.approx(statistics.stdev([0.80, 0.84]))  # ddof = 1
    assert (optimum.low, optimum.high) == (0.2, 0.4)  # 0.815 > 0.82 - 0.028
    assert [record.hparams["seed"] for record in optimum.counted] == [1, 0]
    assert optimum.flags == () and optimum.series == "" and optimum.row == 64


def test_error_bar_uses_the_optimums_own_std():
    narrow = GRID | {0.2: [0.82, 0.8201, 0.2], 0.4: [0.95, 0.68, 0.1]}  # 0.4: mean .815, std .19
    assert (one(make(narrow), best=2, of=3).low, one(make(narrow), best=2, of=3).high) == (0.2, 0.2)
    wide = GRID | {0.2: [0.7, 0.98, 0.1]}  # mean .84, std .198: reaches 0.65, but not 0.55
    assert (one(make(wide), best=2, of=3).low, one(make(wide), best=2, of=3).high) == (0.2, 0.8)


def test_order_of_records_does_not_matter():
    records = make(GRID)
    for _ in range(5):
        np.random.default_rng(0).shuffle(records)
        assert one(records, best=2, of=3) == one(make(GRID), best=2, of=3)


def test_ties_go_to_the_smaller_value():
    optimum = one(make({0.4: [0.9], 0.2: [0.9], 0.1: [0.1], 0.8: [0.1]}))
    assert optimum.values == {"learning_rate": 0.2}
    assert (optimum.low, optimum.high) == (0.2, 0.4)  # Without a std the bar holds the ties.
    assert math.isnan(optimum.std)


def test_mode_min_and_reported_metrics():
    least = {"metric": "train_loss", "mode": "min", "report": ("test_accuracy",)}
    optimum = one(make(GRID), best=2, of=3, **least)
    assert optimum.values == {"learning_rate": 0.2}
    assert optimum.mean == pytest.approx((1 / 0.8 + 1 / 0.84) / 2)
    assert optimum.report["test_accuracy"] == (
        pytest.approx(0.82),
        pytest.approx(statistics.stdev([0.80, 0.84])),
    )


def test_only_the_first_n_seeds_count():
    optimum = one(make({0.1: [0.1, 0.1, 0.9], 0.2: [0.5, 0.5], 0.4: [0.3, 0.3]}), best=2, of=2)
    assert optimum.values == {"learning_rate": 0.2} and optimum.flags == ()


def test_diverged_runs_count_as_the_worst():
    accuracies = {0.1: [0.5] * 3, 0.2: [0.9, 0.7, None], 0.4: [0.99, None, None], 0.8: [None] * 3}
    optimum = one(make(accuracies), best=2, of=3)
    assert optimum.values == {"learning_rate": 0.2} and optimum.mean == pytest.approx(0.8)
    assert optimum.flags == ()  # 0.4 and 0.8 are settled: they diverge.
    assert [point.diverged for point in optimum.points] == [0, 1, 2, 3]
    assert [point.tried for point in optimum.points] == [3] * 4


def test_a_finished_run_without_a_finite_metric_counts_as_diverged():
    records = make({0.1: [0.5], 0.2: [0.9]})
    records[1].metrics["test_accuracy"] = math.nan
    assert one(records).values == {"learning_rate": 0.1}
    records[1].metrics["test_accuracy"] = None
    assert one(records).values == {"learning_rate": 0.1}


def test_too_few_runs_are_flagged_and_do_not_win():
    lucky = make({0.1: [0.5, 0.5], 0.2: [0.6, 0.6], 0.4: [0.99], 0.8: [0.1, 0.1]})
    optimum = one(lucky, best=2, of=2)
    assert optimum.values == {"learning_rate": 0.2} and optimum.flags == ("unsettled",)
    harmless = make({0.1: [0.5, 0.5], 0.2: [0.6, 0.6], 0.4: [0.2], 0.8: [0.1]})
    assert one(harmless, best=2, of=2).flags == ()
    single = make({0.1: [0.5], 0.2: [0.6], 0.4: [0.2]})
    assert one(single, best=2, of=2).flags == ("few_runs",)
    assert one(single, best=2, of=2).n == 1
    # A third of .99 would make .4 the best.
    two = make({0.1: [0.1] * 3, 0.2: [0.90, 0.94, 0.5], 0.4: [0.91, 0.91], 0.8: [0.0] * 3})
    assert one(two, best=2, of=3).flags == ("unsettled",)
    partly = make({0.1: [0.5, 0.5], 0.2: [0.6, 0.6], 0.4: [0.2, 0.2]})
    assert one(partly, best=2, of=3).flags == ("few_runs",)


def test_all_diverged():
    optimum = one(make({0.1: [None], 0.2: [None]}))
    assert optimum.flags == ("all_diverged",) and optimum.values == {} and optimum.n == 0
    assert math.isnan(optimum.mean) and math.isnan(optimum.low)
    assert len(optimum.points) == 2


def test_runs_that_finished_without_a_value_have_not_diverged():
    records = make({0.1: [math.nan], 0.2: [None]})
    assert one(records).flags == ("no_value",)


@pytest.mark.parametrize(
    ("accuracies", "flagged"),
    [
        ({0.1: [0.9], 0.2: [0.5]}, True),
        ({0.1: [0.5], 0.2: [0.9]}, True),
        ({0.1: [0.5], 0.2: [0.9], 0.4: [0.5]}, False),
        ({0.1: [0.5], 0.2: [0.9], 0.4: [None]}, False),
        ({0.1: [0.5], 0.2: [0.9], 0.4: [0.9]}, True),  # The bar touches, the optimum does not.
    ],
)
def test_boundary_flag(accuracies, flagged):
    assert ("at_boundary" in one(make(accuracies)).flags) == flagged


def test_a_single_learning_rate_is_not_called_tuned():
    assert one(make({0.1: [0.9]})).flags == ("one_value",)


def test_rows_series_and_two_tuned_fields():
    records = [
        record
        for batch_size in (128, 64)
        for eta, shift in ((0, 0.0), (0.3, 0.05), (0.1, 0.01))
        for record in make({0.1: [0.4 + shift], 0.2: [0.5 + shift]}, batch_size=batch_size, eta=eta)
    ]
    protocol = sweeps.Protocol(
        series=lambda run: "noise" if run["eta"] else "none",
        labels=("none",),
        tune=("learning_rate", "eta"),
    )
    optima = sweeps.select(records, protocol)
    assert [(o.series, o.row) for o in optima] == [
        ("none", 64),
        ("none", 128),
        ("noise", 64),
        ("noise", 128),
    ]
    assert optima[0].values == {"learning_rate": 0.2, "eta": 0}
    assert optima[3].values == {"learning_rate": 0.2, "eta": 0.3}
    assert [len(optimum.points) for optimum in optima] == [2, 2, 4, 4]


def test_runs_that_differ_in_another_field_are_refused():
    records = make({0.1: [0.5]}, momentum=0.9) + make({0.1: [0.5]}, momentum=0.5)
    with pytest.raises(ValueError, match=r"differ in momentum \(\[0.5\] and \[0.9\]\)"):
        one(records)


def test_missing_fields_and_metrics_are_named():
    with pytest.raises(ValueError, match="needs the field 'eta', but a run has only batch_size"):
        one(make(GRID), tune=("learning_rate", "eta"))
    with pytest.raises(ValueError, match="metric 'accuracy', but there are only test_accuracy"):
        one(make(GRID), metric="accuracy")
    protocol = sweeps.Protocol(report=("loss",))
    with pytest.raises(ValueError, match="metric 'loss', but there are only test_accuracy, train"):
        checks.check_metrics(("test_accuracy", "train_loss"), protocol)


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "best"},
        {"tune": "learning_rate"},
        {"tune": ()},
        {"tune": ("seed",)},
        {"tune": ("batch_size",)},
        {"best": 0},
        {"best": 3, "of": 2},
        {"max_extensions": -1},
        {"mode": ["max"]},
        {"metric": abs},
        {"metric": ["test_accuracy"]},
        {"metric": None},
        {"row": ("batch_size",)},
        {"row": len},
        {"tune": (abs,)},
        {"tune": {"learning_rate", "eta"}},
        {"tune": {"learning_rate": [0.1]}},
        {"tune": ("eta", "eta")},
        {"report": (1,)},
        {"report": {"test_loss"}},
        {"labels": "plain"},
        {"best": True},
        {"domains": {"eta": "log"}},
        {"domains": [sweeps.Domain("log")]},
        {"domains": {1: sweeps.Domain("log")}},
        {"derived": {"weight_decay": 0.1}},
        {"derived": {"learning_rate": abs}},
        {"derived": {"batch_size": abs}},
        {"derived": abs},
    ],
)
def test_bad_protocols_are_refused(bad):
    with pytest.raises(ValueError, match=f"Protocol .*{next(iter(bad))}") as error:
        sweeps.Protocol(**bad)
    assert "\n" not in str(error.value)


def test_lists_of_words_become_tuples_and_protocols_can_be_keys():
    protocol = sweeps.Protocol(
        tune=["learning_rate"], report=["test_loss"], domains={"eta": sweeps.Domain("log")}
    )
    assert protocol.tune == ("learning_rate",)
    assert protocol.metric_names == ("test_accuracy", "test_loss")
    assert {protocol: 1}[protocol] == 1


def runs_of(records):
    return [record.hparams for record in records]


def extension(records, protocol, runs):
    """The runs that one protocol calls for beyond the planned ones."""
    planned = sweeps.by_run_id("task", runs)
    named = [
        dataclasses.replace(record, run_id=sweeps.run_id("task", record.hparams))
        for record in records
    ]
    found = extend_grid("task", planned, [protocol], named)
    assert list(found)[: len(planned)] == list(planned)
    return list(found.values())[len(planned) :]


def rates(runs):
    return [run["learning_rate"] for run in runs]


def test_extension_repeats_the_edge_one_ratio_further():
    records = make({0.1: [0.1, 0.1], 0.2: [0.2, 0.2], 0.5: [0.3, 0.3]}, momentum=0.9)
    added = extension(records, sweeps.Protocol(best=2, of=2), runs_of(records))
    assert added == [
        {"batch_size": 64, "momentum": 0.9, "learning_rate": 1.25, "seed": seed} for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({0.1: [0.3], 0.3: [0.2], 0.9: [0.1]}, [0.0333333333333]),
        ({2**-20: [0.3], 2**-19: [0.2]}, [2**-21]),
        ({0.1: [0.3], 0.2: [0.3]}, [0.05, 0.4]),  # The bar touches both ends.
        ({0.1: [0.1], 0.2: [0.3], 0.4: [0.1]}, []),
        ({0.1: [0.1], 0.2: [0.3], 0.4: [None]}, []),  # Divergence bounds it from above.
        ({0.1: [None], 0.2: [None]}, [0.05]),
        ({0.1: [0.3]}, []),
        ({0: [0.3], 0.2: [0.1]}, []),
    ],
)
def test_extension_goes_where_optimum_or_bar_touch(accuracies, expected):
    records = make(accuracies)
    added = extension(records, sweeps.Protocol(max_extensions=1), runs_of(records))
    assert rates(added) == expected


@pytest.mark.parametrize(("side", "expected"), [(1, 0.05), (-1, 0.8)])
def test_extension_where_the_bar_alone_touches(side, expected):
    seeds = [[0.8, 0.8], [0.8, 0.9], [0.1, 0.1]][::side]
    records = make(dict(zip((0.1, 0.2, 0.4), seeds, strict=True)))
    protocol = sweeps.Protocol(best=2, of=2)
    assert rates(extension(records, protocol, runs_of(records))) == [expected] * 2


def test_extension_waits_for_missing_runs_and_ignores_foreign_ones():
    records = make({0.1: [0.1, 0.1], 0.2: [0.2, 0.2]})
    protocol = sweeps.Protocol(best=2, of=2)
    assert extension(records[:-1], protocol, runs_of(records)) == []
    foreign = make({0.8: [0.1, 0.1]})
    assert rates(extension(records + foreign, protocol, runs_of(records))) == [0.4, 0.4]


def train(run):
    """A valley with its best learning rate at 1.6, in a world where 6.4 diverges."""
    rate = run["learning_rate"]
    accuracy = None if rate > 5 else 0.9 - 0.1 * abs(math.log2(rate / 1.6)) + 0.001 * run["seed"]
    return dataclasses.replace(make({rate: [accuracy]})[0], hparams=run)


@pytest.mark.parametrize(("limit", "last"), [(0, 0.2), (1, 0.4), (3, 1.6), (9, 3.2)])
def test_extension_ends_at_the_optimum_or_the_limit_however_often_it_is_resumed(limit, last):
    protocol = sweeps.Protocol(best=2, of=2, max_extensions=limit)
    planned = list(sweeps.grid(batch_size=[64], learning_rate=[0.1, 0.2], seed=[0, 1]))
    records = []
    while True:
        todo = planned + extension(records, protocol, planned)
        done = runs_of(records)
        todo = [run for run in todo if run not in done]
        if not todo:
            break
        records.append(train(todo[0]))  # One run, then killed and resumed.
    assert max(rates(runs_of(records))) == last
    assert len(records) == 2 * len(set(rates(runs_of(records))))
    assert extension(records, protocol, planned) == runs_of(records)[len(planned) :]


SEEDS = st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3)


@given(st.dictionaries(st.integers(-5, 5), SEEDS, min_size=1))
def test_the_optimum_is_the_best_point_and_lies_in_its_bar(grid):
    records = make({2.0**k: seeds for k, seeds in grid.items()})
    optimum = one(records, best=2, of=3)
    tops = {k: sorted(a for a in seeds if a is not None)[-2:] for k, seeds in grid.items()}
    means = {2.0**k: statistics.fmean(top) for k, top in tops.items() if len(top) == 2}
    if means:
        assert optimum.mean == pytest.approx(max(means.values()))
        inside = [
            rate for rate, mean in means.items() if mean >= optimum.mean - optimum.std - 1e-12
        ]
        assert optimum.low <= optimum.values["learning_rate"] <= optimum.high
        assert min(inside) <= optimum.low and optimum.high <= max(inside)


@pytest.mark.filterwarnings(
    "ignore:the grid ends at the best eta"
)  # whose step from 0 has no ratio
def test_a_zero_in_the_grid_bounds_its_own_end_only():
    def tuned(accuracies):
        records = [
            dataclasses.replace(
                record,
                hparams={"eta": record.hparams["learning_rate"], "batch_size": 64, "seed": 0},
            )
            for record in make(accuracies)
        ]
        protocol = sweeps.Protocol(tune=("eta",), max_extensions=1)
        return [run["eta"] for run in extension(records, protocol, runs_of(records))]

    assert tuned({0: [0.5], 0.1: [0.6], 0.2: [0.7]}) == [0.4]
    assert tuned({0: [0.7], 0.1: [0.6], 0.2: [0.5]}) == []
    assert tuned({0: [0.6], 0.1: [0.7]}) == []


def test_a_grid_of_batch_sizes_does_not_grow():
    runs = [{"batch_size": size, "learning_rate": 0.1, "seed": 0} for size in (64, 128)]
    metrics = ({"test_accuracy": 0.5}, {"test_accuracy": 0.6})
    records = [
        storage.Record(run_id=str(run), hparams=run, status="finished", metrics=measured)
        for run, measured in zip(runs, metrics, strict=True)
    ]
    protocol = sweeps.Protocol(row="learning_rate", tune=("batch_size",))
    assert extension(records, protocol, runs) == []
    assert sweeps.select(records, protocol)[0].flags == ("at_boundary",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"of": 1.5}, "whole number of, got 1.5"),
        ({"best": "1"}, "whole number best"),
        ({"report": "test_loss"}, r"report must be a tuple of words; write \('test_loss',\)"),
        ({"series": "momentum"}, "series must be a function from a run to a label"),
    ],
)
def test_protocols_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        sweeps.Protocol(**fields)


def test_a_series_that_reads_what_the_runs_lack():
    protocol = sweeps.Protocol(series=lambda run: run["noise"])
    with pytest.raises(ValueError, match="series reads 'noise', but a run has only batch_size"):
        checks.check_points([{"batch_size": 1, "learning_rate": 1}], protocol)


@pytest.mark.parametrize("label", [0.5, None])
def test_labels_are_text(label):
    with pytest.raises(ValueError, match=f"must give text, got {label}"):
        checks.check_points(
            [{"batch_size": 1, "learning_rate": 1}], sweeps.Protocol(series=lambda run: label)
        )


def plan(**fields):
    return list(sweeps.grid(**{"batch_size": [8], "learning_rate": [0.1, 0.2]} | fields))


@pytest.mark.parametrize(
    ("runs", "protocol", "message"),
    [
        (
            plan(optimizer=["sgd", "adam"]),
            {"tune": ("optimizer", "learning_rate")},
            "finite numbers in the field 'optimizer', but the runs have words .* 'sgd'; .* series",
        ),
        (
            plan(nesterov=[False, True]),
            {"tune": ("nesterov", "learning_rate")},
            "numbers in the field 'nesterov', but the runs have booleans",
        ),
        (
            plan(optimizer=["sgd", "adam"]),
            {"row": "optimizer"},
            "numbers in the field 'optimizer', but the runs have words .*another row",
        ),
        (
            [*plan(nesterov=[True]), *plan(nesterov=[1])],
            {},
            "field nesterov holds booleans and numbers .True and 1.",
        ),
        (
            [*plan(kind=["a"]), *plan(kind=[1])],
            {"tune": ("learning_rate", "kind")},
            "field kind holds words and numbers .'a' and 1.",
        ),
        (
            plan(),
            {"domains": {"learning_rate": sweeps.Domain("log", 0, 0.15)}},
            "learning_rate=0.2 lies outside the domain .* log from 0 to 0.15",
        ),
        (
            plan(),
            {"domains": {"learning_rate": sweeps.Domain("log", 0, "limit")}},
            "ends at the field 'limit', but a run has only batch_size, learning_rate",
        ),
        (
            plan(warmup=[1.5]),
            {"domains": {"warmup": sweeps.Domain("integer")}},
            "warmup=1.5 lies outside",
        ),
        (
            plan(weight_decay=[0.01]),
            {"derived": {"weight_decay": lambda run: 1e-3 / run["learning_rate"]}},
            "derives weight_decay=0.005, but the run .*0.2.* has weight_decay=0.01",
        ),
        (
            plan(),
            {"derived": {"weight_decay": lambda run: 1}},
            "derives 'weight_decay', which the run .* lacks",
        ),
        (
            plan(learning_rate=[0, 0.1], weight_decay=[0.01]),
            {"derived": {"weight_decay": lambda run: 1e-3 / run["learning_rate"]}},
            "derived weight_decay fails on the run .*ZeroDivisionError",
        ),
        (
            plan(weight_decay=[0.01]),
            {"derived": {"weight_decay": lambda run: math.inf}},
            "weight_decay must be a finite number, got inf",
        ),
    ],
)
def test_plans_that_a_protocol_cannot_read_are_refused(runs, protocol, message):
    with pytest.raises(ValueError, match=message) as error:
        checks.check_points(runs, sweeps.Protocol(**protocol))
    assert "\n" not in str(error.value)


def test_plans_of_derived_fields_match_but_for_rounding():
    runs = [
        {"batch_size": 8, "learning_rate": rate, "weight_decay": float(np.float32(1e-3 / rate))}
        for rate in (0.1, 0.3)
    ]
    follows = {"weight_decay": lambda run: 1e-3 / run["learning_rate"]}
    checks.check_points(runs, sweeps.Protocol(derived=follows))


def test_records_of_true_and_of_one_are_not_one_point():
    records = make({0.1: [0.5]}, nesterov=True) + make({0.1: [0.6]}, nesterov=1)
    with pytest.raises(ValueError, match="nesterov holds booleans and numbers"):
        one(records, tune=("learning_rate", "nesterov"))
