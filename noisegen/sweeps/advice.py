"""Predicts what a sweep over batch sizes will find, from short runs within a budget of minutes.

`advise` trains races with growing fractions of the sweep's horizon, see
`noisegen.sweeps.short_races`. From the largest batch size without loss in the two longest it
extrapolates to the full horizon, see `noisegen.sweeps.largest_batch`. On the way it measures the
gradient noise scale and the largest stable learning rate. All runs are records of ordinary sweeps
below the sweep's directory, so that the same call continues after an interruption.
"""

import collections
import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisegen import statistics, storage
from noisegen.sweeps import checks, largest_batch, regimes, short_races
from noisegen.sweeps import protocol as protocols
from noisegen.sweeps.largest_batch import Extrapolation, LargestBatch
from noisegen.sweeps.protocol import Optimum, Protocol
from noisegen.sweeps.short_races import Planner, Race
from noisegen.sweeps.sweep import Sweep

LEAST_GAIN = 5.0  # tolerances by which the smallest batch must do better than no training
# Learning rates tried in search of the largest stable one: the best, doubled 0, 1, 2, ... times.
# One more run learns nothing.
_RATES = short_races.STABILITY_RUNS - 1
_TINY = 2.0**-20  # A network learns nothing at this multiple of the best learning rate.
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
      stable_is_bound: Whether a larger one may be stable, too, because no larger one was tried.
      smallest: Smallest batch size, and the best value of the first tuned field there.
      largest_planned: Largest batch size of the sweep. The short runs may not have compared it,
        because it makes too few updates in them or diverged.
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
      fractions: Fractions of the full horizon of the one or two longest races, ascending.
      num_seeds: Number of seeds of the longest race.
      minutes: Minutes of training that the advice took.
      race_minutes: Fewest and expected minutes of training that a race of the full sweep takes.
      grid_minutes: Minutes of training that its whole grid takes.
      fixed_updates: Whether the horizon is a number of updates. Large batches then train on more
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
        """Whether a race has trained the longest horizon that advice ever trains."""
        return self.fractions[-1] >= short_races.LONGEST

    @property
    def is_largest(self) -> bool:
        """Whether that race also had as many seeds as advice ever uses."""
        return self.is_longest and self.num_seeds >= short_races.MOST_SEEDS


def advise(sweep: Sweep, minutes: float = 10.0, *, progress: bool = True, **options: Any) -> Advice:
    """Predicts the answers of a sweep over batch sizes from short runs.

    Args:
      sweep: The sweep, whose rows are batch sizes and whose first tuned field is a learning rate.
        It needs a directory. The short runs go to the directory `advice` in it.
      minutes: About how many minutes the short runs may take, compilation included. A call that was
        interrupted is continued.
      progress: Whether to show progress on stderr.
      **options: As for `Sweep.run`.

    Returns:
      The predictions.

    Raises:
      ValueError: If the sweep is of another kind, see `check`.
      short_races.TooFewMinutesError: If the budget is too small. The message says how many
        minutes it takes.
      OSError: If the sweep's directory cannot be written to.
    """
    check(sweep, minutes)
    planner = Planner(sweep, progress, options)
    # Very short races plan the longer ones, but say little about the full horizon.
    adviser = _Adviser(planner, planner.train_races(minutes)[-2:])
    found = tuple(adviser.series(label) for label in planner.labels)
    return adviser.advice(found)


def check(sweep: Sweep, minutes: float) -> None:
    """Checks that advice can be given for a sweep, before anything is measured or trained.

    Raises:
      ValueError: If the sweep does not ask how large the batch can be, has no directory or cannot
        be trained, or if the minutes are not a positive number.
      OSError: If its directory cannot be written to.
    """
    # Text is refused here, because it cannot be compared with numbers.
    if not isinstance(minutes, numbers.Real) or not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes!r:.80} must be a positive number.")
    _check_kind(sweep)
    storage.check_writable(sweep.workdir)
    planner = Planner(sweep)
    longest = short_races.LONGEST_FIRST
    if not planner.has_enough_rows(longest):
        raise ValueError(
            f"The sweep is too short for a prediction: 1/{1 / longest:.0f} of its horizon has fewer"
            f" than {short_races.FEWEST_ROWS} batch sizes with {short_races.FEWEST_UPDATES}"
            " updates; train it as it is."
        )
    planner.race(longest, seeds=2).sweep.validate()


class _Adviser:
    """Reads the short races of a sweep, and trains the other runs that advice needs.

    Args:
      planner: The planner that has trained the races.
      races: One or two races, the shorter one first.
    """

    def __init__(self, planner: Planner, races: Sequence[Race]):
        self._planner, self._races = planner, races
        self._full, self._protocol = planner.full, planner.full.protocols[0]

    def series(self, label: str) -> SeriesAdvice:
        """Returns the predictions of one series."""
        protocol, races = self._protocol, self._races
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
        if self._planner.horizon == "num_updates":
            return (int(first["num_updates"]), int(first["num_updates"]))
        examples = first["num_epochs"] * self._full.task_of(first).num_examples
        return (int(examples // first["batch_size"]), int(examples // row))

    def _stable(self, optimum):
        """Finds the largest stable learning rate at one batch size, in runs of the shorter race.

        A run is stable if it ends with a smaller training loss than a run that learns nothing. One
        run has a tiny learning rate for this comparison.

        Returns:
          The effective learning rate, whether a larger one may be stable, too, and the metric of
          the run that learns nothing.
        """
        name = self._protocol.tune[0]
        run = dict(optimum.counted[0].hparams)
        factors = [_TINY, *(2.0**k for k in range(_RATES))]
        runs = [run | {name: run[name] * factor} for factor in factors]
        protocol = Protocol(
            metric="train_loss",
            mode="min",
            tune=(name,),
            report=(self._protocol.metric,),  # It may be derived.
            max_extensions=0,
            scaling_rule=False,
        )
        # In a directory of its own, as a resumed race counts every planned run with a record.
        sweep = self._planner.sweep(runs, protocol, workdir=self._planner.workdir / "stable")
        self._planner.train(sweep)
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
            sweep = self._planner.sweep(
                [run],
                dataclasses.replace(self._protocol, series=None, best=1, of=1, max_extensions=0),
                task=task,
                static=(),
                workdir=self._planner.workdir / "gradient_noise",
            )
            sweep.validate()
        except ValueError:  # The task cannot measure noise, e.g. if its examples are not shuffled.
            return math.nan
        # The pool's settings are made for races. A single run with noise leaves no choice, so
        # nothing needs to be measured.
        settings = optimum.counted[0].settings or {}
        pool = {
            "lanes": 1,
            "lane_devices": 1,
            "lanes_per_rare_step": 1,
            "microbatch": size,
            "eval_batch": settings.get("eval_batch", size),
        }
        self._planner.train(sweep, pool)
        [record] = sweep.records()
        scale = record.metrics.get("gradient_noise_scale")
        return scale if scale is not None and scale > 0 else math.nan

    def advice(self, found: tuple[SeriesAdvice, ...]) -> Advice:
        """Returns the predictions with the cost of the advice and of the full sweep."""
        last = self._races[-1].sweep
        of = min(self._protocol.of, _fewest_seeds(self._full.planned))
        best = min(self._protocol.best, of)
        protocol = dataclasses.replace(self._protocol, best=best, of=of, search="race")
        race = self._full.replace(task=self._planner.task, protocol=protocol, workdir=None)
        fewest, most = short_races.work_bounds(race)
        per_example = short_races.seconds_per_example(last) / 60
        # The full race is expected to exceed its fewest runs as much as the short one did.
        per_fewest = short_races.seconds_per_fewest(last) / 60
        expected = fewest * max(per_example, per_fewest)
        return Advice(
            metric=self._protocol.metric.name,
            row=self._protocol.row,
            rate=self._protocol.tune[0],
            series=found,
            fractions=tuple(race.fraction for race in self._races),
            num_seeds=last.protocols[0].of,
            minutes=sum(map(short_races.seconds_of, self._planner.trained)) / 60,
            race_minutes=(fewest * per_example, min(most * per_example, expected)),
            grid_minutes=most * per_example,
            fixed_updates=self._planner.horizon == "num_updates",
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
    if len({run["batch_size"] for run in sweep.planned}) < short_races.FEWEST_ROWS:
        raise ValueError(
            f"Advice needs a sweep of at least {short_races.FEWEST_ROWS} batch sizes; add some to"
            " the grid."
        )


def _fewest_seeds(planned) -> int:
    """Returns the number of seeds of the point with the fewest planned runs."""
    others = [{**run, checks.SEED: 0} for run in planned]
    return min(collections.Counter(frozenset(run.items()) for run in others).values())


def _nearest(optima: Sequence[Optimum], log2: float) -> Optimum:
    """Returns the optimum of the row nearest to a batch size, the largest one if it is unknown."""
    if math.isnan(log2):
        return optima[-1]
    return min(optima, key=lambda each: abs(math.log2(each.row) - log2))


def _rate_at(races: Sequence[Sequence[Optimum]], row: float, protocol) -> statistics.Interval:
    """Predicts the first tuned field at a batch size.

    The best values of each race are interpolated in their logarithms, and averaged over the races.
    The interval includes the error bars of the neighboring rows and a step of the grid.
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
