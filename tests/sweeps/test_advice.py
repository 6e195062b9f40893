"""Short runs predict what a sweep will find, or say that they cannot. The runs are made up."""

import dataclasses
import json
import math
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import reports, storage, sweeps, training
from noisegen.reports import answers
from noisegen.sweeps import largest_batch, short_races

EPOCHS = 64.0
NUM_EXAMPLES = 4096
SECONDS = 1e-6  # an example takes
DEVIATION = 0.01
README = pathlib.Path(__file__).parents[2] / "launch" / "README.md"
PROTOCOL = sweeps.Protocol(best=3, of=3, max_extensions=0)


def make_task(**changes):
    x = jnp.zeros(NUM_EXAMPLES)
    return training.Task(
        name="made",
        train={"x": x},
        test={"x": x[:100]},
        init=lambda key: (jnp.zeros(()), ()),
        loss=lambda w, state, batch: ((w - batch.data["x"]) ** 2, state),
        metrics=lambda w, state, batch: {"test_accuracy": batch.data["x"]},
        **{"make_optimizer": lambda hparams, key: optax.sgd(hparams["learning_rate"])} | changes,
    )


def make_sweep(workdir, horizon=None, **changes):
    runs = sweeps.grid(
        batch_size=sweeps.powers_of_two(16, 1024),
        learning_rate=sweeps.powers_of_two(2**-6, 2),
        seed=[0, 1, 2],
    ) * sweeps.fixed(**(horizon or {"num_epochs": EPOCHS}), eval_every=2.0)
    return sweeps.Sweep(make_task(), runs, **{"protocol": PROTOCOL, "workdir": workdir} | changes)


class Trainer:
    """Writes made records in place of training, and counts them.

    Args:
      largest: Largest batch size without loss at the full horizon.
      growth: Power of the horizon with which it grows.
      learns: Whether any run is better than one that is not trained.
    """

    def __init__(self, largest, growth=largest_batch.GROWTH, learns=True):
        self.largest, self.growth, self.learns = largest, growth, learns
        self.runs = []

    def run(self, sweep, **_):
        sweep.validate()
        with sweep.begun(), storage.RecordWriter(sweep.workdir, f"made-{len(self.runs)}") as writer:
            while todo := sweep.state.todo():
                for run in todo.values():
                    writer.append(self.record(run))
                sweep.state.refresh()
                sweep.state.extend()

    def record(self, run):
        self.runs.append(run)
        hparams, plan = run.hparams, run.plan
        fraction = plan.num_examples / (EPOCHS * NUM_EXAMPLES)
        largest = self.largest * fraction**self.growth
        # The best learning rate is that of the linear rule, up to a constant.
        octaves = math.log2(hparams["learning_rate"] / min(0.25, hparams["batch_size"] / 512))
        diverged = octaves > 3.5
        seed = [hparams["seed"], int(hparams["batch_size"]), plan.num_examples]
        score = 0.9 - 2 * DEVIATION * hparams["batch_size"] / largest - 0.02 * octaves**2
        if hparams["learning_rate"] < 1e-4:
            score = 0.1
        score = max(score, 0.1) if self.learns else 0.1
        score += DEVIATION * np.random.default_rng(seed).normal()
        return storage.Record(
            run_id=run.id,
            hparams=hparams,
            status="diverged" if diverged else "finished",
            metrics={
                "test_accuracy": None if diverged else score,
                "train_loss": 2.0 if hparams["learning_rate"] < 1e-4 else 1.0,
                "gradient_noise_scale": 200.0,
            },
            num_updates=plan.num_updates,
            num_examples=plan.num_examples,
            seconds=2 * SECONDS * plan.num_examples,
            settings={"lanes": 2},
        )


def make_slower(trainer, slowness):
    """Makes the runs of a trainer take longer than measured."""
    record = trainer.record

    def slower(run):
        found = record(run)
        return dataclasses.replace(found, seconds=slowness * found.seconds)

    trainer.record = slower


def read_plan(workdir):
    return json.loads((workdir / "advice" / "plan.json").read_text())


@pytest.fixture
def made(monkeypatch):
    """made(largest) makes every sweep train by a `Trainer`, and returns it."""

    def autotune(task, runs, **_):
        return None, SECONDS * sum(run.plan.num_examples for run in runs)

    def install(*args, **kwargs):
        trainer = Trainer(*args, **kwargs)
        monkeypatch.setattr(sweeps.Sweep, "run", lambda sweep, **options: trainer.run(sweep))
        monkeypatch.setattr(training, "autotune", autotune)
        return trainer

    return install


@pytest.mark.parametrize("largest", [100, 200, 500])
def test_the_planted_batch_size_is_within_a_factor_of_two(made, tmp_path, largest):
    trainer = made(largest)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    [series] = found.series
    size = series.prediction.batch_size
    assert largest / 2 < size.value < 2 * largest
    assert size.low < largest < size.high
    # Nothing is trained for longer than a part of the full horizon.
    assert max(run.plan.num_examples for run in trainer.runs) < EPOCHS * NUM_EXAMPLES / 2 + 1


def test_learning_rate_updates_and_cost_go_with_it(made, tmp_path):
    trainer = made(200)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    [series] = found.series
    assert series.learning_rate.low < 0.25 < series.learning_rate.high
    assert 0.1 < series.learning_rate.value < 0.5
    examples = EPOCHS * NUM_EXAMPLES
    size = series.prediction.batch_size.value
    assert series.updates == (examples // 16, examples // size)
    grid = 7 * 8 * 3 * examples * SECONDS / 60
    assert found.grid_minutes == pytest.approx(grid, rel=0.01)
    assert found.race_minutes[0] < found.race_minutes[1] < grid
    trained = sum(run.plan.num_examples for run in trainer.runs)
    assert found.minutes == pytest.approx(trained * SECONDS / 60)


def test_a_derived_metric_is_advised_like_one_that_is_measured(made, tmp_path):
    trainer = made(200)
    error = sweeps.Metric(
        "error", split="test", derive=lambda run: 1 - run.metrics["test_accuracy"]
    )
    protocol = dataclasses.replace(PROTOCOL, metric=error, mode="min")
    [series] = sweeps.advise(make_sweep(tmp_path, protocol=protocol), minutes=0.4).series
    assert 100 < series.prediction.batch_size.value < 400
    # Its function may read every evaluation.
    assert all({"eval_every", "num_evals"} & run.hparams.keys() for run in trainer.runs)


def test_the_noise_scale_and_the_largest_stable_rate_are_measured(made, tmp_path):
    made(200)
    [series] = sweeps.advise(make_sweep(tmp_path), minutes=0.4).series
    assert series.noise_scale == 200
    best = min(0.25, series.stable_row / 512)
    assert 4 * best <= series.stable_effective_rate <= 2**3.5 * best and not series.stable_is_bound


def test_more_minutes_buy_a_longer_horizon(made, tmp_path):
    made(200)
    short = sweeps.advise(make_sweep(tmp_path / "short"), minutes=0.12)
    long = sweeps.advise(make_sweep(tmp_path / "long"), minutes=4.0)
    assert short.fractions[-1] < long.fractions[-1] == 1 / 2
    assert short.minutes < 0.12


@pytest.mark.parametrize("slowness", [0.1, 1, 4, 10])
def test_the_budget_is_used_and_kept_whatever_the_measured_speed(made, tmp_path, slowness):
    make_slower(made(200), slowness)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    assert found.minutes <= 0.4
    assert found.minutes > 0.4 * 0.3 or found.fractions[-1] == 1 / 2


def test_each_race_shows_how_long_the_next_may_be(made, tmp_path):
    trainer = made(200)
    make_slower(trainer, 0.01)
    sweeps.advise(make_sweep(tmp_path), minutes=0.1)
    trained = {run.plan.num_examples for run in trainer.runs}
    # By the measured speed the whole budget is less than the last of these races takes.
    assert max(trained) == EPOCHS * NUM_EXAMPLES / 2
    fractions = [each[0] for each in read_plan(tmp_path)["races"][:-1]]
    assert fractions == sorted(fractions) and len(fractions) >= 2
    assert len(trained) == len(fractions)


def test_compilation_counts_in_the_budget(made, tmp_path, monkeypatch):
    made(200)
    fast = sweeps.advise(make_sweep(tmp_path / "fast"), minutes=0.4)
    trainer, now = made(200), [0.0]
    monkeypatch.setattr(short_races.time, "monotonic", lambda: now[0])

    def run(sweep, **options):
        before = len(trainer.runs)
        trainer.run(sweep)
        seconds = sum(SECONDS * run.plan.num_examples for run in trainer.runs[before:])
        now[0] += 5 + seconds  # five seconds to compile

    monkeypatch.setattr(sweeps.Sweep, "run", run)
    slow = sweeps.advise(make_sweep(tmp_path / "slow"), minutes=0.4)
    assert now[0] <= 60 * 0.4
    assert slow.fractions[-1] < fast.fractions[-1]


def test_the_same_call_trains_nothing_again(made, tmp_path):
    trainer = made(200)
    first = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    number = len(trainer.runs)
    assert sweeps.advise(make_sweep(tmp_path), minutes=0.4) == first
    assert len(trainer.runs) == number > 0


@pytest.mark.slow
def test_an_interrupted_call_is_continued(made, tmp_path, monkeypatch):
    whole = made(200)
    expected = sweeps.advise(make_sweep(tmp_path / "whole"), minutes=0.4)
    trainer = made(200)
    record, ids = trainer.record, []

    def stop_after_twenty(run):
        if len(ids) == 20:
            raise KeyboardInterrupt
        ids.append(run.id)
        return record(run)

    trainer.record = stop_after_twenty
    with pytest.raises(KeyboardInterrupt):
        sweeps.advise(make_sweep(tmp_path / "cut"), minutes=0.4)
    trainer.record = record
    assert sweeps.advise(make_sweep(tmp_path / "cut"), minutes=0.4) == expected
    assert {run.id for run in trainer.runs} == {run.id for run in whole.runs}
    assert len(trainer.runs) == len(whole.runs)


@pytest.mark.parametrize("slowness", [0.1, 10])
def test_a_continued_call_keeps_to_its_plan_at_another_speed(made, tmp_path, slowness):
    whole = made(200)
    sweeps.advise(make_sweep(tmp_path / "whole"), minutes=0.4)
    trainer = made(200)
    record = trainer.record

    def stop_in_the_last_race(run):
        if run.plan.num_examples == max(run.plan.num_examples for run in whole.runs):
            raise KeyboardInterrupt
        return record(run)

    trainer.record = stop_in_the_last_race
    with pytest.raises(KeyboardInterrupt):
        sweeps.advise(make_sweep(tmp_path / "cut"), minutes=0.4)
    trainer.record = record
    make_slower(trainer, slowness)
    sweeps.advise(make_sweep(tmp_path / "cut"), minutes=0.4)
    assert {run.id for run in trainer.runs} == {run.id for run in whole.runs}


def test_too_small_a_budget_is_refused_with_one_that_suffices(made, tmp_path, monkeypatch):
    trainer = made(200)
    monkeypatch.setattr(short_races.time, "monotonic", lambda: 0.0)  # compilation takes no time
    slow = lambda task, runs, **_: (None, 1e-3 * sum(run.plan.num_examples for run in runs))  # noqa: E731
    monkeypatch.setattr(training, "autotune", slow)
    with pytest.raises(ValueError, match=r" minutes=(\d+)\.$") as refused:
        sweeps.advise(make_sweep(tmp_path / "sweep"), minutes=0.5)
    assert "\n" not in str(refused.value)
    assert not trainer.runs and not (tmp_path / "sweep").exists()
    minutes = int(str(refused.value).rpartition("=")[2].rstrip("."))
    assert sweeps.advise(make_sweep(tmp_path / "sweep"), minutes=minutes).series


def test_a_sweep_that_is_too_short_is_refused_before_anything_is_trained(made, tmp_path):
    trainer = made(200)
    sweep = make_sweep(tmp_path / "sweep", {"num_epochs": 0.2})
    with pytest.raises(ValueError, match=r"too short.* 1/4 of its horizon has fewer than 4 batch"):
        sweeps.advise(sweep, minutes=1)
    assert not trainer.runs and not (tmp_path / "sweep").exists()


def test_other_errors_are_not_taken_for_a_short_horizon(made, tmp_path, monkeypatch):
    made(200)

    def refuse(sweep, **changes):
        raise ValueError("no such sweep")

    sweep = make_sweep(tmp_path)
    monkeypatch.setattr(sweeps.Sweep, "replace", refuse)
    with pytest.raises(ValueError, match="no such sweep"):
        sweeps.advise(sweep, minutes=1)


PLAN = {"minutes": 0.4, "num_epochs": EPOCHS, "races": [[0.1, 2], None]}
OTHER_PLANS = {
    "damaged": json.dumps(PLAN)[:-1],
    "of another horizon": json.dumps(PLAN | {"num_epochs": 1e9}),
    "of another budget": json.dumps(PLAN | {"minutes": 9}),
    "of another kind": json.dumps([PLAN]),
    "of an older version": json.dumps({"minutes": 0.4, "num_epochs": EPOCHS, "shorter": 0.1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("content", OTHER_PLANS.values(), ids=OTHER_PLANS)
def test_other_plans_are_made_anew(made, tmp_path, content):
    made(200)
    new = sweeps.advise(make_sweep(tmp_path / "new"), minutes=0.4)
    path = tmp_path / "old" / "advice" / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert sweeps.advise(make_sweep(tmp_path / "old"), minutes=0.4) == new
    assert path.read_text() == (tmp_path / "new" / "advice" / "plan.json").read_text()


def test_a_workload_without_loss_is_not_guessed_at(made, tmp_path):
    made(1e6)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    [series] = found.series
    assert series.prediction.flags == ("no_loss",)
    assert math.isinf(series.prediction.batch_size.value)
    text = answers.to_text(reports.advice_answers(found))
    assert "No loss up to batch size 1024" in text and "Predicted largest" not in text


def test_a_loss_from_the_smallest_batch_size_on_is_not_guessed_at(made, tmp_path):
    made(4, growth=0.0)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    [series] = found.series
    assert series.prediction.flags == ("all_lost",)
    assert math.isnan(series.prediction.batch_size.value) and math.isnan(series.learning_rate.value)
    assert "No prediction" in answers.to_text(reports.advice_answers(found))


@pytest.mark.parametrize("learns", [True, False])
def test_more_minutes_are_asked_for_only_if_they_buy_a_longer_horizon(made, tmp_path, learns):
    made(4, growth=0.0, learns=learns)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    for fractions, expected in (((1 / 8, 1 / 4), True), ((1 / 4, 1 / 2), False)):
        changed = dataclasses.replace(found, fractions=fractions)
        text = answers.to_text(reports.advice_answers(changed))
        assert "No prediction" in text and ("more minutes" in text) == expected


def test_runs_that_learn_nothing_are_no_sign_of_a_large_batch(made, tmp_path):
    made(200, learns=False)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    [series] = found.series
    assert series.prediction.flags == ("untrained",)
    assert math.isnan(series.prediction.batch_size.value)
    assert "hardly learn" in answers.to_text(reports.advice_answers(found))


def test_every_series_has_its_own_prediction(made, tmp_path):
    made(200)
    protocol = dataclasses.replace(PROTOCOL, series=lambda run: f"momentum {run['momentum']:g}")
    runs = sweeps.grid(
        batch_size=sweeps.powers_of_two(16, 1024),
        learning_rate=sweeps.powers_of_two(2**-5, 1),
        momentum=[0.0, 0.9],
        seed=[0],
    ) * sweeps.fixed(num_epochs=EPOCHS)

    def make_optimizer(hparams, key):
        return optax.sgd(hparams["learning_rate"], hparams["momentum"])

    task = make_task(make_optimizer=make_optimizer)
    found = sweeps.advise(sweeps.Sweep(task, runs, protocol, tmp_path), minutes=1)
    assert [series.series for series in found.series] == ["momentum 0", "momentum 0.9"]
    assert found.num_seeds >= 2  # further than those of the sweep
    text = answers.to_text(reports.advice_answers(found, "the command"))
    assert text.count("redicted largest batch size") == 2 and "    the command" in text


def test_a_fixed_number_of_updates_saves_none(made, tmp_path):
    made(1e6)
    sweep = make_sweep(tmp_path, {"num_updates": 1000})
    found = sweeps.advise(sweep, minutes=5)
    assert found.fixed_updates and found.series[0].prediction.flags == ("no_loss",)
    assert "save no updates" in answers.to_text(reports.advice_answers(found))


def test_a_large_difference_from_the_noise_scale_is_said(made, tmp_path):
    made(200)
    found = sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    assert "trust" not in answers.to_text(reports.advice_answers(found))
    [series] = found.series
    far = dataclasses.replace(found, series=(dataclasses.replace(series, noise_scale=2.0),))
    assert "trust the prediction less" in answers.to_text(reports.advice_answers(far))


def test_the_example_of_the_readme_runs(made, tmp_path, monkeypatch, capsys):
    trainer = made(200)
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    [code] = [block for block in found if "sweeps.advise(" in block]
    exec(compile(code, str(README), "exec"), {})
    shown = capsys.readouterr().out
    assert "The full sweep takes about" in shown and "Interval(" in shown
    assert trainer.runs and (tmp_path / "sweeps" / "advised" / "advice").is_dir()


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"workdir": None}, "no directory"),
        ({"protocol": sweeps.Protocol(row="learning_rate", tune=("batch_size",))}, "batch size"),
        ({"runs": sweeps.grid(batch_size=[16, 32], learning_rate=[0.1, 0.2], seed=[0])}, "4 batch"),
    ],
)
def test_other_sweeps_are_refused(made, tmp_path, changes, expected):
    trainer = made(200)
    if "runs" in changes:
        changes = {"runs": changes["runs"] * sweeps.fixed(num_epochs=EPOCHS)}
    with pytest.raises(ValueError, match=expected):
        sweeps.advise(make_sweep(tmp_path).replace(**changes), minutes=1)
    assert not trainer.runs


@pytest.mark.parametrize("minutes", [0, -1, math.inf, math.nan, "ten", None, [1.0]])
def test_a_budget_that_is_none_is_refused(made, tmp_path, minutes):
    made(200)
    with pytest.raises(ValueError, match="positive") as refused:
        sweeps.advise(make_sweep(tmp_path), minutes=minutes)
    assert str(refused.value).startswith(f"minutes={minutes!r} ")


def test_a_workdir_that_is_a_file_is_refused_before_anything_is_measured(made, tmp_path):
    trainer = made(200)
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "sweep"):
        with pytest.raises(NotADirectoryError, match="is a file, not a directory; choose a"):
            sweeps.advise(make_sweep(workdir), minutes=0.4)
    assert not trainer.runs


def test_a_directory_that_holds_advice_only_says_how_to_begin_the_sweep(made, tmp_path):
    made(200)
    sweeps.advise(make_sweep(tmp_path), minutes=0.4)
    with pytest.raises(FileNotFoundError, match=r"holds advice only.* train the sweep"):
        sweeps.Sweep.open(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Nothing is trained in .*call sweep.run\(\)"):
        make_sweep(tmp_path).answers()


# An advice of each kind: the largest batch size of the made runs, its growth, whether they learn.
KINDS = {
    "prediction": (200, largest_batch.GROWTH, True),
    "no loss": (1e6, largest_batch.GROWTH, True),
    "all lost": (4, 0.0, True),
    "untrained": (200, largest_batch.GROWTH, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_has_the_rule_that_it_was_found_by(made, tmp_path, kind):
    largest, growth, learns = KINDS[kind]
    made(largest, growth, learns)
    found = reports.advice_answers(sweeps.advise(make_sweep(tmp_path), minutes=0.4))
    assert [answer.text for answer in found if not answer.rule] == []
    loss = "A loss is more than two standard deviations of a run."
    assert (loss in answers.to_text(found)) == (kind != "untrained")


def with_flag(found, flag):
    """The same advice, whose short runs predict nothing for one reason."""
    [series] = found.series
    prediction = dataclasses.replace(series.prediction, flags=(flag,))
    return dataclasses.replace(found, series=(dataclasses.replace(series, prediction=prediction),))


def test_more_minutes_are_asked_for_only_if_they_buy_something(made, tmp_path):
    made(200)
    short = sweeps.advise(make_sweep(tmp_path / "short"), minutes=0.12)
    long = sweeps.advise(make_sweep(tmp_path / "long"), minutes=4.0)
    assert not short.is_longest and long.is_longest and long.is_largest
    fewer_seeds = dataclasses.replace(long, num_seeds=3)
    for flag in ("untrained", "uncertain", "all_lost"):
        asked = [
            "ive more minutes" in text or "or more minutes" in text
            for text in (
                reports.advice_answers(with_flag(each, flag))[0].text
                for each in (short, fewer_seeds, long)
            )
        ]
        # Further seeds help against scatter, but only a longer horizon lets the runs learn.
        assert asked == [True, flag == "uncertain", False]
    for flag in ("untrained", "uncertain"):
        text = reports.advice_answers(with_flag(long, flag))[0].text
        assert text.endswith("only the full sweep can tell.")


def test_batch_sizes_that_short_runs_cannot_compare_are_not_asked_for_again(made, tmp_path):
    made(1e6)
    found = sweeps.advise(make_sweep(tmp_path, {"num_epochs": 0.5}), minutes=4.0)
    [series] = found.series
    tried = max(each.rows[1] for each in series.measured.values())
    assert tried < series.largest_planned == 1024 and found.is_longest
    text = reports.advice_answers(found)[0].text
    assert "The larger ones, up to 1024, make too few updates" in text
    assert "Give larger batch sizes" not in text and "Give more minutes" not in text
