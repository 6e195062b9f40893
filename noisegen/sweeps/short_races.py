"""Plans and trains the short races of advice, within a budget of minutes.

The duration of a race depends on the machine and on how many runs of the grid it needs. Neither is
known beforehand. The first race is therefore short enough for any workload, and each race shows how
long the next one may be:

1. The first race may take an eighth of the budget, by the speed that `training.autotune` measures
   and the geometric mean of the fewest and the most runs of a race.
2. The next race is the longest one that fits in the minutes left. It is expected to exceed its
   fewest runs as much as the race before did. Batch sizes that are far too large are left out.
3. This is repeated until no race fits, or a race has trained half of the horizon.

Each decision is saved in `plan.json` before its race begins. If the call is killed and repeated, it
trains the same races.
"""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from noisegen import storage, training
from noisegen.sweeps import checks, largest_batch
from noisegen.sweeps.protocol import Optimum
from noisegen.sweeps.sweep import Sweep

# Fraction of the horizon, and seeds. The best race comes first.
_RACES = (
    (1 / 2, 5),
    (1 / 2, 3),
    (1 / 4, 5),
    (1 / 4, 3),
    (1 / 8, 3),
    (1 / 16, 3),
    (1 / 32, 3),
    (1 / 32, 2),
    (1 / 64, 2),
)
LONGEST, MOST_SEEDS = _RACES[0]
LONGEST_FIRST = LONGEST / 2  # fraction of the first race
FEWEST_UPDATES = 2  # least updates of a run
FEWEST_ROWS = 4
# Share of the budget for the first race. It is small, because some workloads need most of the grid
# and a machine may become busy. The measured speed was off by only a fifth in trials.
_FIRST_SHARE = 1 / 8
_SHARE = 0.8  # of the minutes left for the next race, which may need more runs than the one before
_BEYOND = 5  # times the expected largest batch size without loss: the largest one tried next
_EVALUATION = 1 / 3  # cost of evaluating an example, relative to training on it
# Cost of the runs beside the races, in runs of a race: those that find the largest stable learning
# rate, and one that measures gradient noise and leaves the other lanes idle.
STABILITY_RUNS, NOISE_RUNS = 8, 2


class TooFewMinutesError(ValueError):
    """A budget that is too small for any race."""


@dataclasses.dataclass(frozen=True)
class Race:
    """A race of a fraction of the horizon."""

    sweep: Sweep
    fraction: float

    def optima(self, label: str) -> list[Optimum]:
        """Returns the optima of a series, those without a surviving run left out."""
        return [each for each in self.sweep.optima() if each.series == label and each.n]


class Planner:
    """Plans and trains the short runs of a sweep.

    Args:
      full: The full sweep.
      progress, options: As for `Sweep.run`.

    Attributes:
      full: As given.
      horizon: The field with the horizon.
      labels: Labels of the series, in the order of the protocol.
      workdir: Directory of the short runs.
      task: Makes the task of the short sweeps. They share the tasks of the full sweep, because each
        task loads the data.
      trained: The sweeps of short runs that are trained.
    """

    def __init__(
        self, full: Sweep, progress: bool = False, options: Mapping[str, Any] | None = None
    ):
        self.full, self._progress, self._options = full, progress, dict(options or {})
        self._protocol = full.protocols[0]
        self.workdir = full.workdir / storage.ADVICE
        self.horizon = _horizon_field(full)
        static = full.state.static
        self.task = lambda *values: full.task_of(dict(zip(static, values, strict=True)))
        labels = {self._protocol.group(run)[0] for run in full.planned}
        self.labels = [label for label, _ in self._protocol.order((each, 0) for each in labels)]
        self.trained: list[Sweep] = []
        self._overhead = 0.0  # seconds of compilation and the like, when a sweep is trained

    def train_races(self, minutes: float) -> list[Race]:
        """Trains races of growing horizon while the minutes suffice.

        Args:
          minutes: The budget.

        Raises:
          TooFewMinutesError: If the budget is too small.
        """
        started = time.monotonic()
        plan = self._read_plan(minutes)
        races: list[Race] = []
        while True:
            if len(plan) == len(races):
                if races:
                    # The clock counts compilation, the records also earlier calls.
                    spent = max(time.monotonic() - started, sum(map(seconds_of, self.trained)))
                    plan.append(self._next(races[-1], 60 * minutes - spent))
                else:
                    plan.append(self._first(minutes))
                self._write_plan(minutes, plan)
            if plan[len(races)] is None:
                return races
            fraction, seeds = plan[len(races)]
            race = self.race(fraction, seeds, races[-1] if races else None)
            self.train(race.sweep)
            races.append(race)

    def train(self, sweep: Sweep, pool: Mapping[str, Any] | None = None) -> None:
        """Trains a sweep of short runs.

        Args:
          sweep: The sweep.
          pool: Settings of the pool, by default the given ones.
        """
        options = self._options if pool is None else self._options | {"pool": pool}
        started = time.monotonic()
        sweep.run(progress=self._progress, **options)
        overhead = time.monotonic() - started - seconds_of(sweep)
        self._overhead = max(self._overhead, overhead)
        self.trained.append(sweep)

    def has_enough_rows(self, fraction: float) -> bool:
        """Returns whether enough batch sizes can be trained for a fraction of the horizon."""
        rows = {run[self._protocol.row] for run in self._runs(fraction, seeds=1)}
        return len(rows) >= FEWEST_ROWS

    def race(self, fraction: float, seeds: int, shorter: Race | None = None) -> Race:
        """Returns the race of a fraction of the horizon.

        Args:
          fraction: Fraction of the full horizon.
          seeds: Number of seeds.
          shorter: A shorter race that is trained. Batch sizes far beyond the expected largest one
            without loss are left out.
        """
        runs = self._runs(fraction, seeds)
        if shorter is not None:
            most = {label: self._most(label, shorter, fraction) for label in self.labels}
            row = self._protocol.row
            runs = [run for run in runs if run[row] <= most[self._protocol.group(run)[0]]]
        race = dataclasses.replace(self._protocol, best=seeds, of=seeds, search="race", report=())
        return Race(self.sweep(runs, race), fraction)

    def sweep(self, runs, protocol, **changes) -> Sweep:
        """Returns a sweep of short runs.

        Args:
          runs: Its runs.
          protocol: Its protocol.
          **changes: Other arguments of `Sweep`.
        """
        arguments = {
            "task": self.task,
            "runs": runs,
            "protocol": protocol,
            "workdir": self.workdir,
            "name": f"{self.full.name} advice",
            "title": f"Advice: {self.full.title}",
            "published": {},
            "origin": None,
        }
        return self.full.replace(**arguments | changes)

    # Decisions

    def _first(self, minutes):
        """Returns fraction and seeds of the first race."""
        per_example, autotuning = self._measure()
        needed = []
        for fraction, seeds in _RACES:
            if fraction <= LONGEST_FIRST and self.has_enough_rows(fraction):
                fewest, most = work_bounds(self.race(fraction, seeds).sweep)
                seconds = per_example * math.sqrt(fewest * most)
                needed.append((autotuning + seconds / _FIRST_SHARE) / 60)
                if needed[-1] <= minutes:
                    return fraction, seeds
        raise TooFewMinutesError(
            f"{minutes:g} minutes are too few to say anything about this sweep here; it takes "
            f"minutes={math.ceil(min(needed))}."
        )

    def _next(self, last, seconds):
        """Returns fraction and seeds of the longest race that fits in some seconds, or None."""
        per_example = seconds_per_fewest(last.sweep)
        run = seconds_of(last.sweep) / max(1, len(last.sweep.records()))
        # Runs beside the races are trained for each series, in two sweeps.
        seconds -= (1 + 2 * len(self.labels)) * self._overhead
        for fraction, seeds in _RACES:
            factor = fraction / last.fraction
            if factor >= 2:
                race = self.race(fraction, seeds, last)
                beside = len(self.labels) * run * (STABILITY_RUNS + NOISE_RUNS * factor)
                needed = per_example * work_bounds(race.sweep)[0]
                if needed <= _SHARE * (seconds - beside):
                    return fraction, seeds
        return None

    def _measure(self):
        """Returns the seconds per example, and the seconds of autotuning for all tasks."""
        rows = sorted({run[self._protocol.row] for run in self.full.planned})
        middle = rows[len(rows) // 2]
        hparams = next(run for run in self.full.planned if run[self._protocol.row] == middle)
        task = self.full.task_of(hparams)
        [run] = training.make_runs(task, [hparams])
        pool = dict(self._options.get("pool", {}))
        started = time.monotonic()
        # Enough runs to keep every device busy, as a race does.
        _, seconds = training.autotune(task, [run] * 64, **pool)
        elapsed = time.monotonic() - started
        num_tasks = len({id(self.full.task_of(run)) for run in self.full.planned})
        return seconds / (64 * run.plan.num_examples), elapsed * num_tasks

    # The plan

    def _read_plan(self, minutes) -> list:
        """Returns fraction and seeds of each race decided for this budget; None after the last."""
        try:
            plan = json.loads(self._plan_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        if not isinstance(plan, dict):
            return []
        is_this = plan.get("minutes") == minutes and plan.get(self.horizon) == self._full_horizon
        return plan.get("races", []) if is_this else []

    def _write_plan(self, minutes, races):
        plan = {"minutes": minutes, self.horizon: self._full_horizon, "races": races}
        self.workdir.mkdir(parents=True, exist_ok=True)
        storage.write_file(self._plan_path, json.dumps(plan) + "\n")

    @property
    def _plan_path(self):
        return self.workdir / "plan.json"

    @property
    def _full_horizon(self):
        return max(run[self.horizon] for run in self.full.planned)

    # Runs

    def _most(self, label, shorter, fraction):
        """Returns the largest batch size that a race tries, given a shorter one."""
        found = largest_batch.find(shorter.optima(label), self._protocol)
        if math.isnan(found.log2) or "no_loss" in found.flags:
            return math.inf
        growth = largest_batch.GROWTH + largest_batch.GROWTH_ERROR
        octaves = found.log2 + found.error + growth * math.log2(fraction / shorter.fraction)
        return _BEYOND * 2**octaves

    def _runs(self, fraction, seeds):
        """Returns the runs of a fraction of the horizon that make enough updates."""
        runs = [
            _shortened(hparams, self.horizon, fraction, self._protocol)
            for hparams in _with_seeds(self.full.planned, seeds)
        ]
        return [run for run in runs if self._has_updates(run)]

    def _has_updates(self, run):
        """Returns whether a shortened run makes enough updates."""
        if "num_updates" in run:
            return run["num_updates"] >= FEWEST_UPDATES
        task = self.full.task_of(run)
        return run["num_epochs"] * task.num_examples >= FEWEST_UPDATES * run["batch_size"]


def work_bounds(sweep: Sweep) -> tuple[float, float]:
    """Returns the fewest and most examples of a race. Evaluated ones count by `_EVALUATION`."""
    fewest, most = (
        sum(_work(run, sweep.task_of(run.hparams)) for run in runs.values())
        for runs in (sweep.state.fewest_runs(), sweep.state.most_runs())
    )
    return fewest, most


def seconds_per_example(sweep: Sweep) -> float:
    """Returns the seconds that an example took, counted as in `work_bounds`."""
    runs = sweep.state.runs()
    work = sum(_work(runs[each.run_id], sweep.task_of(each.hparams)) for each in sweep.records())
    return seconds_of(sweep) / max(1.0, work)


def seconds_per_fewest(sweep: Sweep) -> float:
    """Returns the seconds that a race took, divided by the examples of its fewest runs."""
    return seconds_of(sweep) / work_bounds(sweep)[0]


def seconds_of(sweep: Sweep) -> float:
    """Returns the seconds in which the records of a sweep were trained."""
    total = 0.0
    for record in sweep.records():
        lanes = (record.settings or {}).get("lanes", 1)
        total += (record.seconds or 0.0) / lanes
    return total


def _work(run, task) -> float:
    examples = task.num_test_examples + task.num_valid_examples
    return run.plan.num_examples + _EVALUATION * len(run.plan.eval_updates) * examples


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


def _shortened(run, horizon, fraction, protocol) -> dict:
    """Returns a run with a fraction of its horizon, evaluated at its end only.

    The evaluations stay if the metric is measured on neither test nor validation examples, such as
    `train_loss`: it may be a mean since the last evaluation. A derived metric may read them all.
    """
    short = dict(run)
    short[horizon] = fraction * run[horizon]
    if horizon == "num_updates":
        short[horizon] = max(1, round(short[horizon]))
    if protocol.metric.split and not protocol.metric.derive:
        short.pop("eval_every", None)
        short.pop("num_evals", None)
    elif "eval_every" in short:
        short["eval_every"] = fraction * run["eval_every"]
    return short
