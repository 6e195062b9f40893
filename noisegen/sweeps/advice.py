"""Predicts what a sweep over batch sizes will find, from short runs within a budget of minutes.

`advise` trains a small race with a fraction of the sweep's horizon and, if the minutes suffice, a
second one that is two to 16 times as long. From the largest batch size without loss in each it
extrapolates to the full horizon, see `noisegen.sweeps.largest_batch`. On the way it measures the
gradient noise scale and the largest stable learning rate. All runs are records of ordinary sweeps
below the sweep's directory, so that the same call continues after an interruption.
"""

import collections
import dataclasses
import functools
import json
import math
import numbers
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisegen import statistics, storage, training
from noisegen.sweeps import checks, largest_batch, regimes
from noisegen.sweeps import protocol as protocols
from noisegen.sweeps.largest_batch import Extrapolation, LargestBatch
from noisegen.sweeps.protocol import Optimum, Protocol
from noisegen.sweeps.sweep import Sweep

LEAST_GAIN = 5.0  # tolerances, by which the smallest batch must learn

# Fraction of the horizon that the shorter race trains, and seeds. The best plan comes first. A plan
# must leave time for a race of twice the horizon.
_PLANS = (
    (1 / 4, 5),
    (1 / 4, 3),
    (1 / 8, 3),
    (1 / 16, 3),
    (1 / 32, 3),
    (1 / 32, 2),
    (1 / 64, 2),
)
_LONGEST = 1 / 2  # of the horizon, which the longer race trains at most
# Share of the budget that a plan may take by the measured speed. A race is slower than that: it
# evaluates and updates, and leaves lanes idle at the end of each round.
_SHARE = 0.2
_RUNS_A_ROW, _RUNS_A_SEED = 4, 2.5  # of a race, as measured in `experiments/benchmarks/race_replay`
_EVALUATION = 1 / 3  # cost of evaluating an example, relative to training on it
_FEWEST_UPDATES = 2  # least updates of a run in the shorter race
_FEWEST_ROWS = 4
_BEYOND = 8  # times the largest batch size found, which the longer race tries
_RATES = 7  # doublings of the learning rate, in search of the largest stable one
_TINY = 2.0**-20  # times the best learning rate, at which a network learns nothing
_GROUPS = 8  # microbatches from which the noise of a batch's gradient is measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeriesAdvice:
    """The predictions for one series of a sweep.

    Attributes:
      series: Label; '' if the protocol has no series.
      prediction: The largest batch size without loss at the full horizon. Its flag is "untrained"
        if the short runs hardly learn.
      measured: From a fraction of the horizon to the largest batch size without loss there.
      learning_rate: First tuned field at the predicted batch size, or at the largest one tried
        if there is no loss; nan if nothing is predicted.
      updates: Updates of the full runs, at the smallest batch size and at the predicted one, or at
        the largest one tried if there is no loss; None if nothing is predicted.
      noise_scale: Gradient noise scale in the second half of a run of the longer race; nan if it
        was not measured.
      stable_effective_rate: Largest stable effective learning rate in the shorter race, at
        `stable_row`; nan if it was not measured.
      stable_row: A batch size near the largest without loss there.
      stable_is_bound: Whether a larger one may be stable, too, as none above was unstable.
      smallest: Smallest batch size, and the best value of the first tuned field there.
      largest_planned: Largest batch size of the sweep. The short runs may not have compared it, as
        it makes too few updates in them, or diverged.
    """

    series: str
    prediction: Extrapolation
    measured: Mapping[float, LargestBatch]
    learning_rate: statistics.Interval
    updates: tuple[int, int] | None = None
    noise_scale: float = math.nan
    stable_effective_rate: float = math.nan
    stable_row: float = math.nan
    stable_is_bound: bool = False
    smallest: tuple[float, float] = (math.nan, math.nan)
    largest_planned: float = math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """What short runs predict for a sweep.

    Attributes:
      metric, row, rate: Names of the metric, of the rows and of the first tuned field.
      series: The predictions of each series.
      fractions: Fractions of the full horizon that were trained, ascending.
      num_seeds: Number of seeds.
      minutes: Minutes of training that the advice took.
      race_minutes: Fewest and expected minutes of training that a race of the full sweep takes.
      grid_minutes: Minutes of training that its whole grid takes.
      fixed_updates: Whether the horizon is a number of updates, so that large batches train on more
        examples.
    """

    metric: str
    row: str
    rate: str
    series: tuple[SeriesAdvice, ...]
    fractions: tuple[float, ...]
    num_seeds: int
    minutes: float
    race_minutes: tuple[float, float]
    grid_minutes: float
    fixed_updates: bool = False

    @property
    def is_longest(self) -> bool:
        """Whether more minutes would train no longer horizon."""
        return self.fractions[-1] >= _LONGEST

    @property
    def is_largest(self) -> bool:
        """Whether more minutes would train no longer horizon and no further seeds."""
        fraction, seeds = _PLANS[0]
        is_best_plan = self.fractions[0] >= fraction and self.num_seeds >= seeds
        return self.is_longest and is_best_plan


class TooFewMinutesError(ValueError):
    """A budget that is too small for any plan."""


def advise(sweep: Sweep, minutes: float = 10.0, *, progress: bool = True, **options: Any) -> Advice:
    """Predicts the answers of a sweep over batch sizes from short runs.

    Args:
      sweep: The sweep, whose rows are batch sizes and whose first tuned field is a learning rate.
        It needs a directory. The short runs go to the directory `advice` in it.
      minutes: About how many minutes the short runs may take. A call that was interrupted is
        continued.
      progress: Whether to show progress on stderr.
      **options: As for `Sweep.run`.

    Returns:
      The predictions.

    Raises:
      ValueError: If the sweep is of another kind, see `check`.
      TooFewMinutesError: If the budget is too small. The message says how many minutes it takes.
      OSError: If the sweep's directory cannot be written to.
    """
    check(sweep, minutes)
    adviser = _Adviser(sweep, progress, options)
    fraction, seeds = adviser.plan(minutes)
    races = [adviser.race(fraction, seeds)]
    adviser.train(races[0].sweep)
    longer = adviser.longer(races[0], seeds, minutes)
    if longer is not None:
        adviser.train(longer.sweep)
        races.append(longer)
    found = tuple(adviser.series(label, races) for label in adviser.labels)
    return adviser.advice(found, races)


def check(sweep: Sweep, minutes: float) -> None:
    """Checks that advice can be given for a sweep, before anything is measured or trained.

    Raises:
      ValueError: If the sweep does not ask how large the batch can be, has no directory or cannot
        be trained, or if the minutes are no positive number.
      OSError: If its directory cannot be written to.
    """
    # A word is refused here, before it is compared.
    if not isinstance(minutes, numbers.Real) or not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes!r:.80} must be a positive number.")
    _check_kind(sweep)
    storage.check_writable(sweep.workdir)
    adviser = _Adviser(sweep, progress=False, options={})
    longest, seeds = _PLANS[0]
    if not adviser.has_enough_rows(longest):
        raise ValueError(
            f"The sweep is too short for a prediction: 1/{1 / longest:.0f} of its horizon has fewer"
            f" than {_FEWEST_ROWS} batch sizes with {_FEWEST_UPDATES} updates; train it as it is."
        )
    adviser.race(longest, seeds).sweep.validate()


@dataclasses.dataclass(frozen=True)
class _Race:
    """A race of a fraction of the horizon."""

    sweep: Sweep
    fraction: float

    def examples(self) -> float:
        """Returns about how many examples are trained on or evaluated."""
        return _race_examples(self.sweep)

    def optima(self, label: str) -> list[Optimum]:
        """Returns the optima of a series, those without a surviving run left out."""
        return [each for each in self.sweep.optima() if each.series == label and each.n]


class _Adviser:
    """Plans and trains the short runs of a sweep, and reads them.

    Args:
      sweep: The full sweep.
      progress, options: As for `Sweep.run`.

    Attributes:
      labels: Labels of the series, in the order of the protocol.
      trained: The sweeps of short runs that are trained.
    """

    def __init__(self, sweep: Sweep, progress: bool, options: Mapping[str, Any]):
        self._full, self._progress, self._options = sweep, progress, options
        self._protocol = sweep.protocols[0]
        self._workdir = sweep.workdir / storage.ADVICE
        self._horizon = _horizon_field(sweep)
        # Tasks are made once for all short sweeps, as each of them loads the data.
        if sweep.state.is_per_batch_size:
            self._task = lambda batch_size: sweep.task_of({"batch_size": batch_size})
        else:
            self._task = functools.partial(sweep.task_of, sweep.planned[0])
        labels = {self._protocol.group(run)[0] for run in sweep.planned}
        self.labels = [label for label, _ in self._protocol.order((each, 0) for each in labels)]
        self.trained: list[Sweep] = []

    def train(self, sweep: Sweep, options: Mapping[str, Any] | None = None) -> None:
        """Trains a sweep of short runs.

        Args:
          sweep: The sweep.
          options: As for `Sweep.run`, by default those of the call.
        """
        sweep.run(progress=self._progress, **(self._options if options is None else options))
        self.trained.append(sweep)

    # Planning

    def plan(self, minutes: float) -> tuple[float, int]:
        """Returns the saved plan of this budget, or makes one.

        Returns:
          The fraction of the horizon that the shorter race trains, and the number of seeds.

        Raises:
          TooFewMinutesError: If the budget is too small.
        """
        path = self._workdir / "plan.json"
        longest = max(run[self._horizon] for run in self._full.planned)
        plan = _read_plan(path)
        # Older plans name no horizon, and have the fraction of twice the shorter one.
        if plan.get("minutes") == minutes and plan.get(self._horizon, longest) == longest:
            shorter = plan["shorter"] if "shorter" in plan else plan["fraction"] / 2
            return shorter, plan["seeds"]
        shorter, seeds = self._make_plan(minutes)
        plan = {"minutes": minutes, self._horizon: longest, "shorter": shorter, "seeds": seeds}
        self._workdir.mkdir(parents=True, exist_ok=True)
        storage.write_file(path, json.dumps(plan) + "\n")
        return shorter, seeds

    def _make_plan(self, minutes):
        seconds_per_example, autotuning = self._measure()
        needed = []
        for fraction, seeds in _PLANS:
            if self.has_enough_rows(fraction):
                examples = sum(self.race(f, seeds).examples() for f in (fraction, 2 * fraction))
                needed.append((autotuning + seconds_per_example * examples / _SHARE) / 60)
                if needed[-1] <= minutes:
                    return fraction, seeds
        raise TooFewMinutesError(
            f"{minutes:g} minutes are too few to say anything about this sweep here; it takes "
            f"minutes={math.ceil(min(needed))}."
        )

    def _measure(self):
        """Returns seconds an example, and seconds of autotuning for all tasks."""
        rows = sorted({run[self._protocol.row] for run in self._full.planned})
        middle = rows[len(rows) // 2]
        hparams = next(run for run in self._full.planned if run[self._protocol.row] == middle)
        task = self._full.task_of(hparams)
        [run] = training.make_runs(task, [hparams])
        pool = dict(self._options.get("pool", {}))
        started = time.monotonic()
        # Enough runs to keep every device busy, as a race does.
        _, seconds = training.autotune(task, [run] * 64, **pool)
        elapsed = time.monotonic() - started
        num_tasks = len({id(self._full.task_of(run)) for run in self._full.planned})
        return seconds / (64 * run.plan.num_examples), elapsed * num_tasks

    def has_enough_rows(self, fraction: float) -> bool:
        """Returns whether enough batch sizes can be trained for a fraction of the horizon."""
        rows = {run[self._protocol.row] for run in self._runs(fraction, seeds=1)}
        return len(rows) >= _FEWEST_ROWS

    def race(self, fraction: float, seeds: int, shorter: _Race | None = None) -> _Race:
        """Returns the race of a fraction of the horizon.

        Args:
          fraction: Of the full horizon.
          seeds: Number of seeds.
          shorter: A shorter race that is trained. Batch sizes far beyond the largest without loss
            there are left out.
        """
        runs = self._runs(fraction, seeds)
        if shorter is not None:
            most = {label: self._most(label, shorter) for label in self.labels}
            row = self._protocol.row
            runs = [run for run in runs if run[row] <= most[self._protocol.group(run)[0]]]
        race = dataclasses.replace(self._protocol, best=seeds, of=seeds, search="race", report=())
        return _Race(self._sweep(runs, race), fraction)

    def longer(self, shorter: _Race, seeds: int, minutes: float) -> _Race | None:
        """Returns the longer race: two to 16 times the horizon of the shorter one, or none.

        The machine may be slower or faster than measured before. This is decided by the records
        of the shorter race alone, so that a call that continues another one decides alike.
        """
        per_example = _seconds_per_example(shorter.sweep)
        left = 60 * minutes - _seconds(shorter.sweep)
        for factor in (16, 8, 4, 2):
            # The longer the race, the more runs it may take beyond those expected.
            share = 1.0 if factor == 2 else 0.9
            if factor * shorter.fraction <= _LONGEST:
                longer = self.race(factor * shorter.fraction, seeds, shorter)
                examples = longer.examples() + self._probe_examples(shorter, longer)
                if examples * per_example <= share * left:
                    return longer
        return None

    def _probe_examples(self, shorter, longer):
        """Returns about how many examples the runs beside the races take."""
        stable, noisy = _run_examples(shorter.sweep), _run_examples(longer.sweep)
        return len(self.labels) * ((1 + _RATES) * stable + noisy)

    def _most(self, label, shorter):
        """Returns the largest batch size that the longer race tries."""
        found = largest_batch.find(shorter.optima(label), self._protocol)
        if math.isnan(found.log2) or "no_loss" in found.flags:
            return math.inf
        return _BEYOND * 2 ** (found.log2 + found.error)

    def _runs(self, fraction, seeds):
        """Returns the runs of a fraction of the horizon that make enough updates."""
        runs = [
            _shortened(hparams, self._horizon, fraction, self._protocol)
            for hparams in _with_seeds(self._full.planned, seeds)
        ]
        return [run for run in runs if self._has_updates(run)]

    def _has_updates(self, run):
        """Returns whether a shortened run makes enough updates."""
        if "num_updates" in run:
            return run["num_updates"] >= _FEWEST_UPDATES
        task = self._full.task_of(run)
        return run["num_epochs"] * task.num_examples >= _FEWEST_UPDATES * run["batch_size"]

    def _sweep(self, runs, protocol, **changes):
        """Returns a sweep of short runs."""
        arguments = {
            "task": self._task,
            "runs": runs,
            "protocol": protocol,
            "workdir": self._workdir,
            "name": f"{self._full.name} advice",
            "title": f"Advice: {self._full.title}",
            "published": {},
            "origin": None,
        }
        return self._full.replace(**arguments | changes)

    # Reading

    def series(self, label: str, races: Sequence[_Race]) -> SeriesAdvice:
        """Returns the predictions of one series, and trains what they need besides."""
        protocol = self._protocol
        measured = {
            race.fraction: largest_batch.find(race.optima(label), protocol) for race in races
        }
        prediction = largest_batch.extrapolate(measured)
        optima = [race.optima(label) for race in races]
        nothing = statistics.Interval(math.nan, math.nan, math.nan, prediction.batch_size.level)
        planned = [run for run in self._full.planned if protocol.group(run)[0] == label]
        largest = max(run[protocol.row] for run in planned)
        if not all(optima):
            return SeriesAdvice(
                series=label,
                prediction=prediction,
                measured=measured,
                learning_rate=nothing,
                largest_planned=largest,
            )
        smallest = optima[-1][0]
        near = _nearest(optima[0], measured[races[0].fraction].log2)
        stable, is_bound, untrained = self._stable(near)
        gain = protocol.sign * (smallest.mean - untrained)
        if gain < LEAST_GAIN * measured[races[-1].fraction].tolerance:
            prediction = Extrapolation(batch_size=nothing, flags=("untrained",))
        row = prediction.batch_size.value
        if math.isinf(row):
            row = prediction.batch_size.low
        return SeriesAdvice(
            series=label,
            prediction=prediction,
            measured=measured,
            learning_rate=nothing if math.isnan(row) else _rate_at(optima, row, protocol),
            updates=self._updates(label, row),
            noise_scale=self._noise(_nearest(optima[-1], math.log2(near.row))),
            stable_effective_rate=stable,
            stable_row=near.row,
            stable_is_bound=is_bound,
            smallest=(smallest.row, smallest.values[protocol.tune[0]]),
            largest_planned=largest,
        )

    def _updates(self, label, row):
        """Returns the updates of the full runs at the smallest batch size and at another one."""
        if math.isnan(row):
            return None
        runs = [run for run in self._full.planned if self._protocol.group(run)[0] == label]
        first = min(runs, key=lambda run: run[self._protocol.row])
        if self._horizon == "num_updates":
            return (int(first["num_updates"]), int(first["num_updates"]))
        examples = first["num_epochs"] * self._full.task_of(first).num_examples
        return (int(examples // first["batch_size"]), int(examples // row))

    def _stable(self, optimum):
        """Finds the largest stable learning rate at one batch size, in runs of the shorter race.

        A run is stable if it ends with a smaller training loss than a run that learns nothing. Such
        a run, at a tiny learning rate, is among them.

        Returns:
          The effective learning rate, whether a larger one may be stable, too, and the metric of
          the run that learns nothing.
        """
        name = self._protocol.tune[0]
        run = dict(optimum.counted[0].hparams)
        factors = [_TINY, *(2.0**k for k in range(_RATES))]
        runs = [run | {name: run[name] * factor} for factor in factors]
        protocol = Protocol(
            metric="train_loss", mode="min", tune=(name,), max_extensions=0, scaling_rule=False
        )
        # In a directory of its own, as a resumed race counts every planned run with a record.
        sweep = self._sweep(runs, protocol, workdir=self._workdir / "stable")
        self.train(sweep)
        records = sorted(sweep.records(), key=lambda record: record.hparams[name])
        untrained = protocols.metric_of(records[0], "train_loss")
        if untrained is None:
            return math.nan, True, math.nan
        stable = regimes.largest_stable(records[1:], limit=untrained)
        rates = [regimes.effective_learning_rate_of(record.hparams) for record in records]
        score = protocols.metric_of(records[0], self._protocol.metric.name)
        return stable, stable == rates[-1], math.nan if score is None else score

    def _noise(self, optimum):
        """Measures the gradient noise scale in the second half of a run, nan if it cannot be."""
        run = dict(optimum.counted[0].hparams)
        run.pop("eval_every", None)
        run["num_evals"] = 2
        task = self._full.task_of(run)
        unit = task.ghost_size
        size = max(1, int(run["batch_size"]) // _GROUPS // unit) * unit
        if 2 * size > run["batch_size"] or task.takes_whole_batches:
            return math.nan
        try:
            task = dataclasses.replace(
                task, noise_microbatch=size, name=f"{task.name}, with gradient noise"
            )
            sweep = self._sweep(
                [run],
                dataclasses.replace(self._protocol, series=None, best=1, of=1, max_extensions=0),
                task=task,
                per_batch_size=False,
                workdir=self._workdir / "gradient_noise",
            )
            sweep.validate()
        except ValueError:  # The task has batches of another kind.
            return math.nan
        # The pool's settings are made for races. They need not fit a single run with noise.
        self.train(sweep, {name: each for name, each in self._options.items() if name != "pool"})
        [record] = sweep.records()
        scale = record.metrics.get("gradient_noise_scale")
        return scale if scale is not None and scale > 0 else math.nan

    def advice(self, found: tuple[SeriesAdvice, ...], races: Sequence[_Race]) -> Advice:
        """Returns the predictions with the cost of everything."""
        seconds = _seconds_per_example(races[-1].sweep)
        of = min(self._protocol.of, _fewest_seeds(self._full.planned))
        best = min(self._protocol.best, of)
        protocol = dataclasses.replace(self._protocol, best=best, of=of, search="race")
        race = self._full.replace(task=self._task, protocol=protocol, workdir=None)
        fewest, most = (
            sum(_work(run, race.task_of(run.hparams)) for run in runs.values()) * seconds / 60
            for runs in (race.state.fewest_runs(), race.state.most_runs())
        )
        expected = _race_examples(race) * seconds / 60
        return Advice(
            metric=self._protocol.metric.name,
            row=self._protocol.row,
            rate=self._protocol.tune[0],
            series=found,
            fractions=tuple(race.fraction for race in races),
            num_seeds=races[0].sweep.protocols[0].of,
            minutes=sum(map(_seconds, self.trained)) / 60,
            race_minutes=(fewest, min(most, max(fewest, expected))),
            grid_minutes=most,
            fixed_updates=self._horizon == "num_updates",
        )


def _check_kind(sweep):
    """Checks that a sweep asks how large the batch can be.

    Raises:
      ValueError: If it does not, or has no directory.
    """
    protocol = sweep.protocols[0]
    if sweep.workdir is None:
        raise ValueError("This sweep has no directory; give Sweep(..., workdir=...).")
    if protocol.row != "batch_size" or not protocol.has_scaling_rule:
        raise ValueError(
            "Advice is for sweeps that tune a learning rate for each batch size; this one tunes "
            f"{protocol.tune[0]} for each {protocol.row}."
        )
    if len({run["batch_size"] for run in sweep.planned}) < _FEWEST_ROWS:
        raise ValueError(
            f"Advice needs a sweep of at least {_FEWEST_ROWS} batch sizes; add some to the grid."
        )


def _horizon_field(sweep) -> str:
    """Returns the field with the horizon, which all runs share."""
    horizons = {(run.get("num_epochs"), run.get("num_updates")) for run in sweep.planned}
    if len(horizons) > 1:
        raise ValueError(
            f"Advice is for sweeps whose runs share one horizon; this one has {len(horizons)}. "
            "Give one num_epochs or num_updates."
        )
    return "num_updates" if horizons.pop()[0] is None else "num_epochs"


def _with_seeds(planned, number) -> list[dict]:
    """Returns the planned runs with a number of seeds each, the planned seeds first."""
    seeds = sorted({run.get(checks.SEED, 0) for run in planned})
    seeds += [seed for seed in range(len(seeds) + number) if seed not in seeds]
    points = {}
    for run in planned:
        without_seed = {name: value for name, value in run.items() if name != checks.SEED}
        points[tuple(sorted(without_seed.items()))] = without_seed
    return [run | {checks.SEED: seed} for seed in seeds[:number] for run in points.values()]


def _fewest_seeds(planned) -> int:
    """Returns the number of seeds of the point with the fewest planned runs."""
    others = [{**run, checks.SEED: 0} for run in planned]
    return min(collections.Counter(frozenset(run.items()) for run in others).values())


def _shortened(run, horizon, fraction, protocol) -> dict:
    """Returns a run with a fraction of its horizon, evaluated at its end only.

    If the metric is not measured on test or validation examples, such as `train_loss`, the
    evaluations stay, as it may be a mean since the last one.
    """
    short = dict(run)
    short[horizon] = fraction * run[horizon]
    if horizon == "num_updates":
        short[horizon] = max(1, round(short[horizon]))
    if protocol.metric.split:
        short.pop("eval_every", None)
        short.pop("num_evals", None)
    elif "eval_every" in short:
        short["eval_every"] = fraction * run["eval_every"]
    return short


def _work(run, task) -> float:
    """Returns a run's examples, evaluated ones weighted by `_EVALUATION`."""
    examples = task.num_test_examples + task.num_valid_examples
    return run.plan.num_examples + _EVALUATION * len(run.plan.eval_updates) * examples


def _race_examples(sweep) -> float:
    """Returns about how many examples a race trains on, with evaluations as in `_work`."""
    protocol = sweep.protocols[0]
    groups: dict[tuple, list] = {}
    for run in sweep.planned:
        groups.setdefault(protocol.group(run), []).append(run)
    total = 0.0
    for runs in groups.values():
        task = sweep.task_of(runs[0])
        [run] = training.make_runs(task, runs[:1])
        total += min(len(runs), _RUNS_A_ROW + _RUNS_A_SEED * protocol.of) * _work(run, task)
    return total


def _read_plan(path) -> dict[str, Any]:
    """Returns a saved plan, empty if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _run_examples(sweep) -> float:
    """Returns the examples of a run at a middle batch size, with evaluations as in `_work`."""
    by_row = sorted(sweep.planned, key=lambda run: run[sweep.protocols[0].row])
    middle = by_row[len(by_row) // 2]
    task = sweep.task_of(middle)
    [run] = training.make_runs(task, [middle])
    return _work(run, task)


def _seconds_per_example(sweep) -> float:
    """Returns the seconds that an example took, from the records of a sweep."""
    runs = sweep.state.runs()
    work = 0.0
    for record in sweep.records():
        work += _work(runs[record.run_id], sweep.task_of(record.hparams))
    return _seconds(sweep) / max(1.0, work)


def _seconds(sweep) -> float:
    """Returns the seconds in which the records of a sweep were trained."""
    total = 0.0
    for record in sweep.records():
        lanes = (record.settings or {}).get("lanes", 1)
        total += (record.seconds or 0.0) / lanes
    return total


def _nearest(optima: Sequence[Optimum], log2: float) -> Optimum:
    """Returns the optimum of the row nearest to a batch size, the largest one if it is unknown."""
    if math.isnan(log2):
        return optima[-1]
    return min(optima, key=lambda each: abs(math.log2(each.row) - log2))


def _rate_at(races: Sequence[Sequence[Optimum]], row: float, protocol) -> statistics.Interval:
    """Predicts the first tuned field at a batch size.

    The best values of each race are interpolated in the logarithms, and the two races averaged. The
    interval holds the error bars of the rows beside, and a step of the grid.
    """
    name = protocol.tune[0]
    logs, lows, highs = [], [], []
    for optima in races:
        x = np.log2([each.row for each in optima])
        at = float(np.clip(math.log2(row), x[0], x[-1]))
        columns = [
            [each.values[name] for each in optima],
            [each.low for each in optima],
            [each.high for each in optima],
        ]
        if min(map(min, columns)) <= 0:
            return statistics.Interval(math.nan, math.nan, math.nan, 0.95)
        for found, column in zip((logs, lows, highs), columns, strict=True):
            found.append(float(np.interp(at, x, np.log2(column))))
    step = _step(races[-1], name)
    bounds = (np.mean(logs), min(lows) - step, max(highs) + step)
    return statistics.Interval(*(float(2**each) for each in bounds), 0.95)


def _step(optima, name) -> float:
    """Returns the distance of neighboring values that were tried, in octaves."""
    values = sorted({point.values[name] for optimum in optima for point in optimum.points})
    return float(np.min(np.diff(np.log2(values)))) if len(values) > 1 else 1.0
