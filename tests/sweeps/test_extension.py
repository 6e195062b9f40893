"""Tests that grids are extended along every tuned field, inside its domain and up to an end."""

import math
import warnings

import pytest

from noisegen import storage, sweeps
from noisegen.sweeps import extension


def extend(runs, score, protocol, check=None):
    """Returns the runs that extend a grid if each run has the accuracy `score(run)`."""
    planned = sweeps.by_run_id("t", runs)
    records, wanted = {}, planned
    for _ in range(100):
        for name, run in wanted.items():
            accuracy = score(run)
            records[name] = storage.Record(
                run_id=name,
                hparams=run,
                status="diverged" if accuracy is None else "finished",
                metrics={"test_accuracy": accuracy},
            )
        wanted = extension.extend_grid("t", planned, [protocol], records.values(), check)
        if wanted.keys() <= records.keys():
            return [run for name, run in wanted.items() if name not in planned]
    raise AssertionError("The grid is extended forever.")


def grid(**fields):
    return sweeps.grid(**{"batch_size": [64]} | fields)


def values(runs, name):
    return [run[name] for run in runs]


@pytest.mark.parametrize(
    ("name", "tried", "expected"),
    [
        ("momentum", [0.5, 0.9], [0.98, 0.996, 0.9992]),
        ("dropout", [0.25, 0.5], [0.666666666667, 0.777777777778, 0.851851851852]),
        ("warmup_epochs", [1, 2, 3], [4, 5, 6]),
        ("learning_rate", [0.1, 0.1000000001], []),
        ("learning_rate", [0.05, 0.1, 0.1000000001], [0.2, 0.4, 0.8]),
        ("weight_decay", [0, 0.01, 0.1], [1, 10, 100]),
        ("reference_batch_size", [8, 16, 32], [64]),
        ("reference_batch_size", [16, 32, 64], []),
        ("b2", [0.9, 0.99], [0.999, 0.9999, 0.99999]),
        ("num_epochs", [1, 2], []),
    ],
)
def test_every_field_is_extended_on_its_scale_within_its_domain(name, tried, expected):
    runs = grid(**{name: tried})
    protocol = sweeps.Protocol(tune=(name,))
    assert values(extend(runs, lambda run: run[name], protocol), name) == expected


@pytest.mark.filterwarnings("ignore:the grid ends at the best")  # Of the negative rate.
@pytest.mark.parametrize(
    ("name", "tried", "expected"),
    [
        ("momentum", [0.5, 0.9], [0]),
        ("warmup_epochs", [2, 3, 4], [1, 0]),
        ("learning_rate", [0, 0.1, 0.2], []),
        ("learning_rate", [-0.1, 0.1, 0.2], []),
    ],
)
def test_fields_are_extended_downwards_within_their_domain(name, tried, expected):
    protocol = sweeps.Protocol(tune=(name,))
    added = extend(grid(**{name: tried}), lambda run: -run[name], protocol)
    assert values(added, name) == expected


def flags(runs, score, **protocol):
    records = [
        storage.Record(hparams=run, status="finished", metrics={"test_accuracy": score(run)})
        for run in runs
    ]
    [optimum] = sweeps.select(records, sweeps.Protocol(**protocol))
    return optimum.flags


@pytest.mark.parametrize(
    ("tried", "flagged"), [([16, 32], True), ([16, 32, 64], False), ([32, 64], False)]
)
def test_an_optimum_at_the_end_of_the_domain_is_not_at_boundary(tried, flagged):
    runs = grid(reference_batch_size=tried)
    found = flags(runs, lambda run: run["reference_batch_size"], tune=("reference_batch_size",))
    assert ("at_boundary" in found) == flagged


@pytest.mark.parametrize(("name", "low"), [("momentum", 0), ("learning_rate", 0)])
def test_an_optimum_at_zero_is_not_at_boundary(name, low):
    assert flags(grid(**{name: [low, 0.1, 0.2]}), lambda run: -run[name], tune=(name,)) == ()


def test_a_field_without_a_domain_is_extended_only_once_declared():
    runs, tune = grid(strength=[1, 2]), ("strength",)
    assert "at_boundary" in flags(runs, lambda run: run["strength"], tune=tune)
    with pytest.warns(UserWarning, match=r"strength .* Protocol\(domains=.'strength': Domain"):
        assert extend(runs, lambda run: run["strength"], sweeps.Protocol(tune=tune)) == []
    declared = {"strength": sweeps.Domain("linear", 0, 3.5)}
    protocol = sweeps.Protocol(tune=tune, domains=declared)
    assert values(extend(runs, lambda run: run["strength"], protocol), "strength") == [3, 3.5]
    assert "at_boundary" not in flags(
        grid(strength=[1, 3.5]), lambda run: run["strength"], tune=tune, domains=declared
    )


def test_a_declared_domain_overrides_the_standard_one():
    fixed = sweeps.Protocol(domains={"learning_rate": sweeps.Domain("fixed")})
    assert extend(grid(learning_rate=[0.1, 0.2]), lambda run: run["learning_rate"], fixed) == []


def test_later_tuned_fields_are_flagged_and_extended():
    fields = {"learning_rate": [0.1, 0.2, 0.4], "b2": [0.9, 0.99], "weight_decay": [0.01, 0.1, 1]}
    tune = tuple(fields)

    def score(run):
        return (
            -abs(math.log(run["learning_rate"] / 0.2))
            - abs(math.log(run["weight_decay"] / 0.1))
            - abs(math.log((1 - run["b2"]) / 0.001))
        )

    assert flags(grid(**fields), score, tune=tune) == ("at_boundary",)
    added = extend(grid(**fields), score, sweeps.Protocol(tune=tune))
    assert set(values(added, "b2")) == {0.999, 0.9999}  # The best value, and one beyond it.
    assert len(added) == 2 * 3 * 3
    whole = grid(**fields | {"b2": [0.9, 0.99, 0.999, 0.9999]})
    assert flags(whole, score, tune=tune) == ()


def test_two_fields_are_extended_to_a_grid_without_gaps():
    runs = grid(learning_rate=[0.1, 0.2], weight_decay=[0.01, 0.02])
    protocol = sweeps.Protocol(tune=("learning_rate", "weight_decay"), max_extensions=2)
    added = extend(runs, lambda run: run["learning_rate"] + run["weight_decay"], protocol)
    pairs = {(run["learning_rate"], run["weight_decay"]) for run in [*runs, *added]}
    assert pairs == {(a, b) for a in (0.1, 0.2, 0.4, 0.8) for b in (0.01, 0.02, 0.04, 0.08)}


def test_tuned_words_and_booleans_are_not_extended():
    runs = grid(learning_rate=[0.1, 0.2, 0.4], nesterov=[False, True], optimizer=["adam", "sgd"])
    tune = ("learning_rate", "nesterov", "optimizer")

    def score(run):
        return (run["learning_rate"] == 0.2) + run["nesterov"] + (run["optimizer"] == "sgd")

    assert flags(runs, score, tune=tune) == ()
    assert extend(runs, score, sweeps.Protocol(tune=tune)) == []
    added = extend(runs, lambda run: run["learning_rate"], sweeps.Protocol(tune=tune))
    assert {run["nesterov"] for run in added} == {False, True}
    assert {run["optimizer"] for run in added} == {"adam", "sgd"}


def tied():
    return [
        {"batch_size": 8, "learning_rate": rate, "weight_decay": 1e-3 / rate, "seed": seed}
        for rate in (0.25, 0.5, 1.0)
        for seed in (0, 1)
    ]


def test_derived_fields_are_recomputed():
    protocol = sweeps.Protocol(
        best=2, of=2, derived={"weight_decay": lambda run: 1e-3 / run["learning_rate"]}
    )
    added = extend(tied(), lambda run: run["learning_rate"], protocol)
    assert values(added, "learning_rate") == [2, 2, 4, 4, 8, 8]
    products = [run["learning_rate"] * run["weight_decay"] for run in added]
    assert products == pytest.approx([1e-3] * 6)


def test_later_derived_fields_read_recomputed_earlier_ones():
    protocol = sweeps.Protocol(
        derived={
            "weight_decay": lambda run: 2 * run["learning_rate"],
            "strength": lambda run: 3 * run["weight_decay"],
        }
    )
    runs = [
        {"batch_size": 8, "learning_rate": rate, "weight_decay": 2 * rate, "strength": 6 * rate}
        for rate in (0.25, 0.5)
    ]
    added = extend(runs, lambda run: run["learning_rate"], protocol)
    assert values(added, "strength") == [6, 12, 24]


def test_an_undeclared_tie_prevents_extension_and_is_named_once():
    with pytest.warns(UserWarning, match="weight_decay changes with learning_rate") as caught:
        assert extend(tied(), lambda run: run["learning_rate"], sweeps.Protocol(best=2, of=2)) == []
    assert "derived={'weight_decay': lambda run: ...}" in str(caught[0].message)
    assert len(caught) == 1


def test_a_tie_prevents_extension_of_the_tied_field_only():
    runs = [
        {"batch_size": 8, "learning_rate": rate, "eta": eta, "warmup": 10 * eta}
        for rate in (0.1, 0.2)
        for eta in (0.3, 0.6)
    ]
    protocol = sweeps.Protocol(tune=("learning_rate", "eta"), max_extensions=1)
    with pytest.warns(UserWarning, match="warmup changes with eta"):
        added = extend(runs, lambda run: run["learning_rate"] + run["eta"], protocol)
    assert [(run["learning_rate"], run["eta"], run["warmup"]) for run in added] == [
        (0.4, 0.3, 3),
        (0.4, 0.6, 6),
    ]


def test_fields_that_follow_the_row_need_no_declaration():
    runs = [
        {"batch_size": size, "num_epochs": size / 8, "learning_rate": rate}
        for size in (8, 16)
        for rate in (0.1, 0.2)
    ]
    protocol = sweeps.Protocol(max_extensions=1)
    added = extend(runs, lambda run: run["learning_rate"], protocol)
    assert [(run["batch_size"], run["num_epochs"]) for run in added] == [(8, 1), (16, 2)]


def test_runs_that_cannot_be_trained_are_left_out_with_a_warning():
    def check(run):
        if run["learning_rate"] > 1:
            raise ValueError(f"learning_rate={run['learning_rate']} is\ntoo large")

    with pytest.warns(UserWarning, match="learning_rate=1.6.* is too large"):
        added = extend(
            grid(learning_rate=[0.2, 0.4]),
            lambda run: run["learning_rate"],
            sweeps.Protocol(),
            check,
        )
    assert values(added, "learning_rate") == [0.8]


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        (
            {"series": lambda run: {0.1: "low", 0.2: "low"}[run["learning_rate"]]},
            "series reads 0.4",
        ),
        (
            {"derived": {"decay": lambda run: [1, 2][run["seed"] + (run["learning_rate"] > 0.3)]}},
            "",
        ),
        ({"derived": {"decay": lambda run: math.acos(run["learning_rate"] * 3)}}, "domain error"),
    ],
)
def test_user_functions_that_fail_on_a_new_run_prevent_extension(protocol, reason):
    runs = sweeps.by_run_id(
        "t",
        [
            {
                "batch_size": 8,
                "learning_rate": rate,
                "seed": 1,
                **dict.fromkeys(protocol.get("derived", ()), 1),
            }
            for rate in (0.1, 0.2)
        ],
    ).values()
    with pytest.warns(UserWarning, match=f"learning_rate=0.4.*{reason}"):
        assert extend(runs, lambda run: run["learning_rate"], sweeps.Protocol(**protocol)) == []


def test_a_domain_that_depends_on_the_tuned_field_is_checked_for_the_new_run():
    shrinking = {"learning_rate": sweeps.Domain("log", 0, lambda run: 1 - run["learning_rate"])}
    protocol = sweeps.Protocol(domains=shrinking)
    with pytest.warns(UserWarning, match="learning_rate=0.6.* outside the domain"):
        added = extend(grid(learning_rate=[0.15, 0.3]), lambda run: run["learning_rate"], protocol)
    assert added == []


def test_ties_at_the_end_of_a_domain_give_no_warning():
    runs = [
        {"batch_size": 64, "reference_batch_size": size, "eta": 1 / size} for size in (16, 32, 64)
    ]
    protocol = sweeps.Protocol(tune=("reference_batch_size",))
    assert extend(runs, lambda run: run["reference_batch_size"], protocol) == []


def test_a_grid_is_not_extended_into_another_series():
    runs = grid(learning_rate=[0.1, 0.2, 0.4], momentum=[0.5, 0.9])
    protocol = sweeps.Protocol(
        tune=("learning_rate", "momentum"), series=lambda run: "with" if run["momentum"] else "no"
    )
    added = extend(runs, lambda run: (run["learning_rate"] == 0.2) - run["momentum"], protocol)
    assert added == []  # The next momentum is 0.


def test_values_that_are_equal_on_the_device_are_one_point():
    third = float.fromhex("0x1.5555560000000p-2")  # 1 / 3 in float32.
    records = [
        storage.Record(
            hparams={"batch_size": 8, "learning_rate": rate, "eta": eta, "seed": seed},
            status="finished",
            metrics={"test_accuracy": accuracy},
        )
        for rate, eta, seed, accuracy in [
            (0.1, 1 / 3, 0, 0.5),
            (0.1 + 1e-12, third, 0, 0.9),  # The same run on the device: counts once.
            (0.1 + 1e-12, third, 1, 0.7),
            (0.2, third, 0, 0.1),
        ]
    ]
    for ordered in (records, records[::-1]):
        [optimum] = sweeps.select(ordered, sweeps.Protocol(best=2, of=3, row="eta"))
        assert optimum.values == {"learning_rate": 0.1} and len(optimum.points) == 2
        assert optimum.points[0].tried == 2 and optimum.mean == pytest.approx(0.6)


@pytest.mark.parametrize("score", [lambda run: None, lambda run: math.nan])
def test_a_grid_is_extended_downwards_if_all_runs_diverged(score):
    added = extend(grid(learning_rate=[0.1, 0.2], optimizer=["adam", "sgd"]), score, two_fields())
    assert values(added, "learning_rate") == [0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]


def two_fields():
    return sweeps.Protocol(tune=("learning_rate", "optimizer"))


def test_a_grid_of_single_points_is_not_extended():
    runs = [{"batch_size": 0, "learning_rate": 0.1}, {"batch_size": 8, "learning_rate": 0.1}]
    assert extend(runs, lambda run: 1.0, sweeps.Protocol()) == []


def test_no_warning_is_given_if_extension_is_off():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extend(tied(), lambda run: run["learning_rate"], sweeps.Protocol(of=2, max_extensions=0))


@pytest.mark.parametrize(
    ("name", "tried", "best"),
    [("weight_decay", [0, 1e-4], max), ("learning_rate", [-0.1, 0.1, 0.2], min)],
)
def test_an_end_without_a_next_value_is_a_warning(name, tried, best):
    protocol = sweeps.Protocol(tune=(name,))
    runs = list(sweeps.grid(batch_size=[64], **{name: tried}))
    with pytest.warns(UserWarning, match=f"best {name} .* no step of its 'log'"):
        added = extend(runs, lambda run: float(run[name] == best(tried)), protocol)
    assert added == []


def test_a_warm_up_in_updates_ends_at_the_horizon():
    protocol = sweeps.Protocol(tune=("num_warmup_updates",))
    grid = sweeps.grid(batch_size=[64], num_warmup_updates=[50, 100], num_updates=[120])
    added = extend(list(grid), lambda run: run["num_warmup_updates"], protocol)
    assert values(added, "num_warmup_updates") == [120]
