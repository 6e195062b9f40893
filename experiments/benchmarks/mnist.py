"""Measures runs per hour of a LeNet-5 grid on MNIST: the pool against two ordinary loops.

8 batch sizes times 4 learning rates, one epoch each, one evaluation on the whole test set at the
end of each run. A contender is a program of its own (`contenders/*.py`) that reads the same images
(uint8, one .npz file) and trains the runs in the order given. What counts is the time from the
start of its process to the end of its last run: imports and compilation are in it, and nothing
compiled is kept from an earlier process. The contenders take turns, a new seed each round.

PyTorch runs twice, in one process with all cores and in one process a core that share out the
grid; the better of the two counts.
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Mapping

from experiments.benchmarks import contender, images, machine, report
from noisegen import data
from noisegen.sweeps.machine import num_cores

TITLE = "LeNet-5 on MNIST: 8 batch sizes x 4 learning rates, one epoch each"
BATCH_SIZES = tuple(2**k for k in range(6, 14))
LEARNING_RATES = (0.02, 0.05, 0.1, 0.2)
GOALS = {"PyTorch": 2.5, "Flax NNX": 6}

_POOL = "noisegen"
_CONTENDERS = {  # program and number of processes
    "PyTorch, 1 process": ("pytorch_loop", 1),
    "PyTorch, 1 process a core": ("pytorch_loop", num_cores()),
    _POOL: ("noisegen_pool", 1),
    "Flax NNX": ("flax_loop", 1),
}
_WORK = ("batch_size", "learning_rate", "num_updates", "num_examples", "num_evaluations")


def measure(options: machine.Options) -> dict:
    """Lets every contender train the grid, `options.rounds` times in turn."""
    sizes, rates = ((64, 256), (0.1,)) if options.quick else (BATCH_SIZES, LEARNING_RATES)
    runs = [(size, rate) for size in sizes for rate in rates]
    with tempfile.TemporaryDirectory() as folder:
        spec = {"images": f"{folder}/images.npz", "momentum": 0.5, "runs": runs}
        dataset = images.noise(512, 256, 28, 1) if options.quick else data.load("mnist")
        images.save(spec["images"], dataset)
        rounds = [_round(spec | {"seed": k}, options.torch_python) for k in range(options.rounds)]
    return {"rounds": rounds}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns runs per hour, their ratios, and the spread of the pool's speed over batch sizes."""
    hourly = [
        {name: 3600 * len(a["runs"]) / a["seconds"] for name, a in answers.items()}
        for answers in record["rounds"]
    ]
    table = [
        (f"{name}, runs per hour", report.spread([h[name] for h in hourly]), "")
        for name in hourly[0]
    ]
    for rival, goal in GOALS.items():
        names = [name for name in hourly[0] if name.startswith(rival)]
        ratios = [h[_POOL] / max(h[name] for name in names) for h in hourly if names]
        value = report.spread(ratios) if names else "skipped: no --torch_python"
        table.append((f"runs per hour, {_POOL} / {rival}", value, f">= {goal}"))
    speeds = [answers[_POOL]["images_per_second"].values() for answers in record["rounds"]]
    evenness = report.spread([max(each) / min(each) for each in speeds])
    return [*table, (f"{_POOL}, images/s, fastest / slowest batch size", evenness, "near 1")]


def details(record: dict) -> str:
    """Returns speed and mean accuracy by batch size, and how the pool spends its seconds."""
    rounds = record["rounds"]
    header = ("batch size", "images/s, noisegen", *(f"accuracy %, {name}" for name in rounds[0]))
    lines = []
    for size in rounds[0][_POOL]["images_per_second"]:
        speed = statistics.median(answers[_POOL]["images_per_second"][size] for answers in rounds)
        accuracies = [_accuracy(rounds, name, int(size)) for name in rounds[0]]
        lines.append((size, f"{speed:,.0f}", *accuracies))
    laps = [answers[_POOL]["laps"] for answers in rounds]
    split = [(name, report.spread([lap.get(name, 0.0) for lap in laps])) for name in laps[0]]
    return f"{report.table(header, lines)}\n{report.table(('noisegen', 'seconds'), split)}"


def _round(spec, torch_python):
    """Returns each contender's answer."""
    answers = {}
    for name, (program, processes) in _CONTENDERS.items():
        python = torch_python if program == "pytorch_loop" else sys.executable
        if python is not None:
            answers[name] = contender.train(python, program, processes, spec)
            machine.say(f"  {name}: {answers[name]['seconds']:.1f} s")
    check_equal_work(answers)
    return answers


def check_equal_work(answers: Mapping[str, dict]) -> None:
    """Checks that all contenders trained the same runs."""
    work = [sorted([run[f] for f in _WORK] for run in a["runs"]) for a in answers.values()]
    if any(done != work[0] for done in work):
        raise RuntimeError(f"{', '.join(answers)} did not do equal work: {work}")


def _accuracy(rounds, name, size):
    """Returns the mean over learning rates and rounds in percent, and its standard error."""
    means = []  # of each round
    for answers in rounds:
        runs = [run for run in answers[name]["runs"] if run["batch_size"] == size]
        means.append(100 * statistics.mean(run["test_accuracy"] for run in runs))
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else math.nan
    return f"{statistics.mean(means):.2f} ± {error:.2f}"
