"""Measures images a second of WRN-16-4 with ghost batch normalization, against PyTorch.

Counted is all that training does: choosing and augmenting the images, the network and its gradient,
L2 regularization, momentum, the update. Compilation is left out, and evaluation. bf16 is the
convolutions' and what is between them; parameters, their updates and all statistics are float32.
float32 has products of the device's default precision.

Both contenders train with the same numbers on the same images, in a process each, one after the
other. Each tries several microbatches (the examples whose gradients are computed at once), and
noisegen two ways to convolve and two types; the best at each batch size counts.
"""

import statistics
import sys
import tempfile

from experiments.benchmarks import contender, images, machine, report
from noisegen import data

TITLE = "Training WRN-16-4 with ghost batches of 64, CIFAR-10"
GOAL, RATIO = 100_000, 1.2

_FULL = {
    "scale": "gpu",
    "task": {},
    "depth": 16,
    "width": 4,
    "ghost_size": 64,
    "padding": 4,
    "batch_sizes": (1024, 4096, 16384),
    "num_examples": 4 * 49152,  # of one timing, whole batches of any of these sizes
    "compile": True,
}
_QUICK = {
    "scale": "cpu",
    "task": {"num_train": 256, "num_test": 16},
    "depth": 10,
    "width": 1,
    "ghost_size": 16,
    "padding": 1,
    "batch_sizes": (32, 64),
    "num_examples": 128,
    "compile": False,  # in PyTorch, where it takes a minute on a processor
}
_TRIED = (  # the likeliest first
    *({"dtype": "bfloat16", "convolution": "lax", "microbatch": m} for m in (1024, 2048, 512, 256)),
    {"dtype": "bfloat16", "convolution": "auto", "microbatch": 1024},
    {"dtype": "float32", "convolution": "lax", "microbatch": 1024},
)
_TRIED_QUICK = ({"dtype": "bfloat16", "convolution": "lax", "microbatch": 32},)
_PYTORCH = tuple({"dtype": "bfloat16", "microbatch": m} for m in (1024, 4096))
_PYTORCH_QUICK = ({"dtype": "bfloat16", "microbatch": 32},)


def measure(options: machine.Options) -> dict:
    """Measures each contender's speed with every setting, or says why it has none."""
    dataset, spec, answers = make_dataset(options), make_spec(options), {}
    with tempfile.TemporaryDirectory() as folder:
        spec |= {"images": f"{folder}/images.npz", "mean": dataset.mean, "std": dataset.std}
        images.save(spec["images"], dataset)
        tried = _TRIED_QUICK if options.quick else _TRIED
        answers["noisegen"] = _train("noisegen_wide_resnet", sys.executable, spec, tried)
        if options.torch_python:
            tried = _PYTORCH_QUICK if options.quick else _PYTORCH
            answers["PyTorch"] = _try("pytorch_wide_resnet", options.torch_python, spec, tried)
    _check(answers)
    return {"source": dataset.description, "batch_sizes": spec["batch_sizes"], "answers": answers}


def make_dataset(options: machine.Options) -> data.Dataset:
    """Returns CIFAR-10, or noise for the miniature."""
    return images.noise(256, 16, 8, 3) if options.quick else images.load("cifar10")


def make_spec(options: machine.Options) -> dict:
    """Returns the specification for both contenders, without images and settings."""
    return {
        **(_QUICK if options.quick else _FULL),
        **{"momentum": 0.9, "l2": 5e-4, "learning_rate": 0.02, "seed": 0},
        **{"rounds": options.rounds, "device": "cuda" if machine.has_accelerator() else "cpu"},
    }


def likeliest(options: machine.Options) -> dict:
    """Returns the setting that noisegen tries first."""
    return (_TRIED_QUICK if options.quick else _TRIED)[0]


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the best setting's speed at each batch size, and the ratio to PyTorch's."""
    table = []
    for size in record["batch_sizes"]:
        best = {}
        for name, dtype, goal in (
            ("noisegen", "bfloat16", f">= {GOAL:,}, better 150,000"),
            ("noisegen", "float32", ""),
            ("PyTorch", "bfloat16", ""),
        ):
            found = _best(record, name, dtype, size)
            if found is not None:
                speeds, setting = found
                best[name, dtype] = speeds
                what = f"{name}, {dtype}, batch size {size}, images/s ({setting})"
                table.append((what, report.spread(speeds), goal))
        ours, theirs = best.get(("noisegen", "bfloat16")), best.get(("PyTorch", "bfloat16"))
        if ours and theirs:
            # One ratio for each round, in which both were measured one after the other.
            value = report.spread([a / b for a, b in zip(ours, theirs, strict=True)])
        else:
            value = _missing(record)
        table.append((f"noisegen / PyTorch, batch size {size}", value, f">= {RATIO}"))
    return table


def details(record: dict) -> str:
    """Returns a table of all settings that were tried."""
    sizes = [str(size) for size in record["batch_sizes"]]
    lines = []
    for name, answer in record["answers"].items():
        for run in answer["runs"]:
            # A setting that does not fit the device has no speeds, and says why in `failed`.
            speeds = []
            for size in sizes:
                measured = run["speeds"].get(size)
                speeds.append(report.spread(measured) if measured else "")
            losses = [f"{run['losses'][size]:.3f}" for size in sizes if size in run["losses"]]
            first = run["failed"] if "failed" in run else f"{run['first_seconds']:.1f}"
            lines.append((name, _setting(run), run["dtype"], *speeds, ", ".join(losses), first))
    header = ("tried", "setting", "type", *(f"images/s at {size}" for size in sizes))
    header += ("mean loss", "seconds to compile")
    return f"Images: {record['source']}.\n\n{report.table(header, lines)}"


def _train(program, python, spec, tried):
    return contender.train(python, program, 1, spec | {"runs": tried}, accelerator=True)


def _try(program, python, spec, tried):
    """As `_train`; a failure does not cost the other contender its numbers."""
    try:
        return _train(program, python, spec, tried)
    except OSError as error:  # ChildProcessError is one
        machine.say(f"  {error}")
        return {"runs": [], "failed": str(error)}


def _check(answers):
    """Checks that both trained networks of one size."""
    counts = {name: a["num_parameters"] for name, a in answers.items() if a["runs"]}
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"The networks differ in their numbers of parameters: {counts}.")


def _best(record, name, dtype, size):
    """Returns images a second in every round, with the setting whose median is the largest."""
    runs = record["answers"].get(name, {"runs": []})["runs"]
    best = None
    for run in runs:
        speeds = run["speeds"].get(str(size))
        if run["dtype"] != dtype or speeds is None:
            continue
        if best is None or statistics.median_high(speeds) > statistics.median_high(best[0]):
            best = speeds, _setting(run)
    return best


def _missing(record):
    """Says why there is no ratio."""
    if "PyTorch" not in record["answers"]:
        return "skipped: no --torch_python"
    return "failed: " + record["answers"]["PyTorch"].get("failed", "no setting fits the device")


def _setting(run):
    convolution = f", {run['convolution']}" if "convolution" in run else ""
    return f"microbatch {run['microbatch']}{convolution}"
