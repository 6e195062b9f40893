"""Compares the predictions of `noisegen advise` with the full sweeps of six workloads.

The full sweeps are trained before, and their records are in `experiments/results`. A prediction
sees none of them. Its own runs are kept below `experiments/results/benchmarks/advice`, so that a
second call trains nothing. To train them needs MNIST, CIFAR-10 and the texts of
`smith2020/lstm.py`. All runs have a fixed number of epochs, except for those of the LSTM, which
have a fixed number of updates.

The largest batch size without loss of a full sweep is found as in the short ones
(`noisegen.sweeps.largest_batch`), and has an error of its own. The command knows beforehand how the
batch size grows with the horizon, from these very workloads. Each prediction is therefore made a
second time, with the mean growth of the other workloads. The goal is for this second one. The
baseline is the recipe of Smith, Elsen & De (2020), section 8: the largest stable
learning rate of short runs over the best temperature, which here may even see the full sweep.
"""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Mapping

from experiments.benchmarks import machine, report
from noisegen import sweeps
from noisegen.sweeps import largest_batch

TITLE = "Advice: the largest batch without loss, predicted from short runs"
RESULTS = pathlib.Path(__file__).parents[1] / "results"
_ADVICE = RESULTS / "benchmarks" / "advice"
_POOL = {
    "lanes": 2,
    "lane_devices": 2,
    "microbatch": 16,
    "eval_batch": 16,
    "lanes_per_rare_step": 1,
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A full sweep, and the budget of its prediction.

    Attributes:
      sweep: Directory of the sweep below `experiments/results`.
      minutes: Budget of the advice.
      momentum: Of the runs, if the sweep has several.
      pool: Settings of the pool, of two cores. Those that are left out are autotuned.
    """

    sweep: str
    minutes: float
    momentum: float | None = None
    pool: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(_POOL))


WORKLOADS = {
    "digits CNN": Workload("digits_15_seeds", 1.5),
    "MNIST MLP": Workload("mnist_batch_size/mlp", 4.0),
    "MNIST LeNet-5": Workload("mnist_batch_size/lenet5", 5.0),
    "CIFAR-10 Wide-ResNet": Workload("smith2020/cpu/figure1", 10.0, momentum=0.0),
    "autoencoder": Workload("smith2020/cpu/figure1_autoencoder", 5.0),
    "LSTM": Workload("smith2020/cpu/lstm", 3.0, pool={"lanes": 2, "lane_devices": 2}),
}


def measure(options: machine.Options) -> dict:
    """Predicts each workload, and reads its full sweep."""
    names = list(WORKLOADS)[:1] if options.quick else list(WORKLOADS)
    found = {}
    for name in names:
        found[name] = compare(name, WORKLOADS[name])
        machine.say(f"  {name}: {_predicted(found[name])}, in the full sweep {_true(found[name])}")
    return {
        "workloads": {name: each | _from_the_others(name, found) for name, each in found.items()}
    }


def compare(name: str, workload: Workload) -> dict:
    """Returns the prediction for a workload beside its full sweep."""
    full = sweeps.Sweep.open(RESULTS / workload.sweep)
    protocol = full.protocols[0]
    planned, records = full.planned, full.records()
    if workload.momentum is not None:
        planned = [run for run in planned if run["momentum"] == workload.momentum]
        records = [each for each in records if each.hparams["momentum"] == workload.momentum]
    optima = [each for each in sweeps.select(records, protocol) if each.n]
    truth = largest_batch.find(optima, protocol)

    workdir = _ADVICE / name.replace(" ", "_")
    given = full.replace(runs=planned, workdir=workdir)
    advice = sweeps.advise(given, workload.minutes, progress=False, pool=workload.pool)
    [series] = advice.series
    size = series.prediction.batch_size
    first = optima[0]
    temperature = sweeps.effective_learning_rate_of(first.counted[0].hparams) / first.row
    near = min(optima, key=lambda each: abs(math.log2(each.row) - truth.log2))
    return {
        "truth": 2**truth.log2,
        "truth_error": truth.error,
        "truth_flags": list(truth.flags),
        "truth_growth": _growth(series.measured, truth),
        "predicted": size.value,
        "low": size.low,
        "high": size.high,
        "flags": list(series.prediction.flags),
        "fractions": advice.fractions,
        "seeds": advice.num_seeds,
        "measured": {
            str(fraction): dataclasses.asdict(each) for fraction, each in series.measured.items()
        },
        "learning_rate": dataclasses.astuple(series.learning_rate)[:3],
        "true_learning_rate": near.values[protocol.tune[0]],
        "noise_scale": series.noise_scale,
        "stable_rate": series.stable_effective_rate,
        "baseline": series.stable_effective_rate / temperature,
        "minutes": advice.minutes,
        "grid_minutes": advice.grid_minutes,
    }


def _growth(measured, truth) -> float:
    """Returns the exponent with which the largest batch grew from short runs to the full sweep.

    It is NaN if the full sweep or all short runs name no batch size.
    """
    if truth.flags or all(each.flags for each in measured.values()):
        return math.nan
    return largest_batch.extrapolate({**measured, 1.0: truth}, growth=(0.0, math.inf)).growth


def _from_the_others(name: str, found: Mapping[str, dict]) -> dict:
    """Predicts a workload with the mean growth of the other ones."""
    known = [each["truth_growth"] for other, each in found.items() if other != name]
    known = [growth for growth in known if not math.isnan(growth)]
    growth = statistics.mean(known) if known else largest_batch.GROWTH
    measured = {
        float(fraction): largest_batch.LargestBatch(**each)
        for fraction, each in found[name]["measured"].items()
    }
    prediction = largest_batch.extrapolate(measured, growth=(growth, largest_batch.GROWTH_ERROR))
    size = prediction.batch_size
    flags = found[name]["flags"] or list(prediction.flags)
    predicted = {"predicted": size.value, "low": size.low, "high": size.high, "flags": flags}
    return {"others_growth": growth, "from_the_others": predicted}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns how often the predictions are right."""
    found = list(record["workloads"].values())
    others = [each["from_the_others"] for each in found]
    baseline = [{"predicted": each["baseline"], "flags": []} for each in found]
    return [
        ("right, with the growth of the others", _count_right(others, found), "5 of 6"),
        ("right, as the command predicts", _count_right(found, found), ""),
        ("right by the recipe of section 8", _count_right(baseline, found), ""),
        ("interval (95 %) holds, with the growth of the others", _count_held(others, found), ""),
        ("interval (95 %) holds, as the command predicts", _count_held(found, found), ""),
    ]


def _count_right(predictions, workloads) -> str:
    """Counts the predictions within a factor of 2 of the full sweep.

    If the full sweep has only a bound ("no loss" up to the largest batch size, or "all lost" from
    the smallest on), the prediction is right if it has the same.
    """
    right = 0
    for each, full in zip(predictions, workloads, strict=True):
        same_flags = list(each["flags"]) == list(full["truth_flags"])
        right += same_flags and bool(full["truth_flags"] or _within(each["predicted"], full))
    return f"{right} of {len(workloads)}"


def _count_held(predictions, workloads) -> str:
    """Counts the intervals that hold the full sweep's value, where both have a number."""
    pairs = [
        (each, full)
        for each, full in zip(predictions, workloads, strict=True)
        if not each["flags"] and not full["truth_flags"]
    ]
    held = sum(each["low"] <= full["truth"] <= each["high"] for each, full in pairs)
    return f"{held} of {len(pairs)}"


def details(record: dict) -> str:
    """Returns predictions beside full sweeps."""
    lines = []
    for name, each in record["workloads"].items():
        lines.append(
            (
                name,
                " and ".join(f"1/{round(1 / fraction)}" for fraction in each["fractions"]),
                _predicted(each),
                _predicted(each["from_the_others"]),
                _true(each),
                _rate(each),
                f"{each['true_learning_rate']:.2g}",
                _size(each["noise_scale"]),
                _size(each["baseline"]),
                f"{each['minutes']:.1f} of {each['grid_minutes']:.1f}",
            )
        )
    header = (
        "workload",
        "horizon",
        "predicted (95 %)",
        "with the growth of the others",
        "full sweep (standard error)",
        "predicted learning rate",
        "full sweep",
        "gradient noise scale",
        "section 8",
        "minutes, of the grid's at this speed",
    )
    return report.table(header, lines)


def _within(predicted, each) -> bool:
    """Returns whether a prediction is within a factor of 2 of the full sweep."""
    return 0.5 <= predicted / each["truth"] <= 2


def _predicted(each) -> str:
    """Writes a prediction with its interval, or why there is none."""
    if each["flags"]:
        return f"none: {_words(each['flags'])}"
    return f"{_size(each['predicted'])} ({_size(each['low'])} to {_size(each['high'])})"


def _true(each) -> str:
    """Writes the value of the full sweep with its standard error."""
    if each["truth_flags"]:
        return f"{_size(each['truth'])}, {_words(each['truth_flags'])}"
    factor = 2 ** each["truth_error"]
    low, high = each["truth"] / factor, each["truth"] * factor
    return f"{_size(each['truth'])} ({_size(low)} to {_size(high)})"


def _words(flags) -> str:
    return " ".join(flags).replace("_", " ")


def _rate(each) -> str:
    """Writes the predicted learning rate with its interval."""
    value, low, high = each["learning_rate"]
    return "none" if math.isnan(value) else f"{value:.2g} ({low:.2g} to {high:.2g})"


def _size(value) -> str:
    """Writes a batch size with two digits."""
    if value is None or not math.isfinite(value):
        return "none"
    digits = max(0, math.floor(math.log10(value)) - 1) if value > 0 else 0
    return f"{round(value, -digits):,.0f}"
