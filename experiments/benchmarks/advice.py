"""Compares the predictions of `noisegen advise` with the full sweeps of six workloads.

The full sweeps are trained before, and their records are in `experiments/results`. A prediction
sees none of them. Its own runs are kept below `experiments/results/benchmarks/advice`, so that a
second call trains nothing. To train them needs MNIST, CIFAR-10 and the texts of
`smith2020/lstm.py`. All runs have a fixed number of epochs, except for those of the LSTM, which
have a fixed number of updates.

The largest batch size without loss of a full sweep is found as in the short ones
(`noisegen.sweeps.largest_batch`), and has an error of its own. The baseline is the recipe of Smith,
Elsen & De (2020), section 8: the largest stable learning rate of short runs over the best
temperature, which here may even see the full sweep.
"""

import dataclasses
import math
import pathlib
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
        machine.say(f"  {name}: {_predicted(found[name])}, truly {_true(found[name])}")
    return {"workloads": found}


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
        "predicted": size.value,
        "low": size.low,
        "high": size.high,
        "flags": list(series.prediction.flags),
        "growth": series.prediction.growth,
        "fractions": advice.fractions,
        "seeds": advice.num_seeds,
        "measured": {
            str(fraction): {"batch_size": 2**each.log2, "error": each.error, "flags": each.flags}
            for fraction, each in series.measured.items()
        },
        "learning_rate": dataclasses.astuple(series.learning_rate)[:3],
        "true_learning_rate": near.values[protocol.tune[0]],
        "noise_scale": series.noise_scale,
        "stable_rate": series.stable_effective_rate,
        "baseline": series.stable_effective_rate / temperature,
        "minutes": advice.minutes,
        "full_minutes": sum(each.seconds / each.settings["lanes"] for each in records) / 60,
    }


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns how often the predictions hold, where both sides name a batch size."""
    found = list(record["workloads"].values())
    named = [each for each in found if not each["flags"] and not each["truth_flags"]]
    refused = sum(bool(each["flags"]) for each in found)
    good = sum(_within(each["predicted"], each) for each in named)
    covered = sum(each["low"] <= each["truth"] <= each["high"] for each in named)
    baseline = sum(_within(each["baseline"], each) for each in named)
    number = len(named)
    nameless = [each for each in found if each["truth_flags"]]
    same = sum(each["flags"] == each["truth_flags"] for each in nameless)
    return [
        ("prediction within a factor of 2 of the full sweep", f"{good} of {number}", "5 of 6"),
        ("the command says that it cannot predict", str(refused), ""),
        ("full sweep names no batch size: the same reason", f"{same} of {len(nameless)}", ""),
        ("interval (95 %) holds the full sweep's value", f"{covered} of {number}", ""),
        ("recipe of section 8 within a factor of 2", f"{baseline} of {number}", ""),
    ]


def details(record: dict) -> str:
    """Returns predictions beside full sweeps."""
    lines = []
    for name, each in record["workloads"].items():
        lines.append(
            (
                name,
                " and ".join(f"1/{round(1 / fraction)}" for fraction in each["fractions"]),
                _predicted(each),
                _true(each),
                _rate(each),
                f"{each['true_learning_rate']:.2g}",
                _size(each["noise_scale"]),
                _size(each["baseline"]),
                f"{each['minutes']:.1f} of {each['full_minutes']:.1f}",
            )
        )
    header = (
        "workload",
        "horizon",
        "predicted (95 %)",
        "full sweep (standard error)",
        "predicted learning rate",
        "full sweep",
        "gradient noise scale",
        "section 8",
        "minutes",
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
