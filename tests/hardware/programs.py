"""Compiles some experiments for accelerators, and keeps a budget of what their programs may take.

    python -m tests.hardware.programs --write              # measures all, and writes the budget
    python -m tests.hardware.programs --write lstm/h100    # only one
    python -m tests.hardware.programs --table              # the budget, and an earlier record

The data are black images and one sentence: what is compiled depends on their shapes only. The
compilers are extras of noisegen, `aot-cuda` and `aot-tpu`.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

import experiments
from noisegen import data, hardware, training
from noisegen.sweeps.experiment import load_experiment

EXPERIMENTS = pathlib.Path(experiments.__path__[0])
RECORDS = EXPERIMENTS / "results" / "benchmarks" / "compile"
BUDGET = RECORDS / "budget.json"


class Program(NamedTuple):
    """An experiment whose program is compiled, with its settings."""

    experiment: str
    scale: str
    fields: Mapping[str, Any] = {}  # of the experiment's task
    pool: Mapping[str, Any] = {}


PROGRAMS = {
    "wide_resnet": Program("smith2020/table1.py", "gpu"),
    "resnet50": Program("smith2020/resnet50.py", "gpu"),
    "lstm": Program("smith2020/lstm.py", "gpu"),
    "lenet5_256_lanes": Program(
        "signer2021/figure1.py",
        "paper",
        pool={"lanes": 256, "microbatch": 64, "lanes_per_rare_step": 32},
    ),
    "lenet5_8_devices": Program("signer2021/figure1.py", "paper", pool={"microbatch": 512}),
    "wide_resnet_8_devices": Program("smith2020/table1.py", "gpu", pool={"microbatch": 8192}),
    "resnet50_224_8_devices": Program(
        "smith2020/resnet50.py",
        "paper",
        fields={"decoded": 256, "pixels": 256, "crop": 224, "dtype": "bfloat16"},
        pool={"microbatch": 2048, "eval_batch": 2048},
    ),
}
# At the least effort a TPU's compiler takes a quarter of the time.
TPU_EFFORT = -1.0
# Pixels, channels and classes of the data sets that experiments name.
_SHAPES = {
    "digits": (8, 1, 10),
    "mnist": (28, 1, 10),
    "fashion_mnist": (28, 1, 10),
    "cifar10": (32, 3, 10),
    "cifar100": (32, 3, 100),
    "imagenet_resized/64x64": (64, 3, 1000),
}


def make_run(
    path: pathlib.Path | str, scale: str, folder: pathlib.Path, fields: Mapping | None = None
) -> tuple[training.Task, training.Run]:
    """Returns the task and the first run of an experiment, with made-up data from a folder.

    Args:
      path: The experiment's file.
      scale: Its scale.
      folder: Directory for the data.
      fields: Fields of the task to override.
    """
    with mock.patch.object(data, "load", _blank_images), _working_in(folder):
        experiment = load_experiment(f"{path}:{scale}")
        config = experiment.get_config()
        if "imagenet" in config.task.get("dataset", ""):
            # All of ImageNet would not fit, and its size changes no shape.
            config.task.update(num_train=4096, num_test=500)
        config.task.update(fields or {})
        sweep = experiment.get_sweep(config)
        task = sweep.task_of(sweep.planned[0])
        [run] = training.make_runs(task, [sweep.planned[0]], mixing=False)
    return task, run


def _blank_images(name: str, pixels: int | None = None, **_) -> data.Dataset:
    """Makes a data set of black images, in place of `data.load`."""
    side, channels, classes = _SHAPES.get(name, (224, 3, 1000))
    side = pixels or side
    # Large enough for the largest batches; black images take no memory until they are written.
    count = 60_000 if side < 100 else 4096

    def split(count):
        labels = np.arange(count, dtype=np.int32) % classes
        return {"image": np.zeros((count, side, side, channels), np.uint8), "label": labels}

    gray = (0.5,) * channels
    return data.Dataset(
        name, split(count), split(count // 6), classes, gray, gray, "0" * 16, "made up"
    )


@contextlib.contextmanager
def _working_in(folder: pathlib.Path) -> Iterator[None]:
    """Makes texts in a folder, which is the working directory meanwhile."""
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    names = [f"wiki.{split}.tokens" for split in ("train", "valid", "test")]
    for name in [*names, *(f"ptb.{split}.txt" for split in ("train", "valid", "test"))]:
        (texts / name).write_text("the cat sat on the mat\n" * 40_000)
    with contextlib.chdir(folder):
        yield


def targets_of(program: str) -> tuple[str, str]:
    """Returns the accelerators that a program is compiled for."""
    return ("h100:8", "v5e:2x4") if program.endswith("_8_devices") else ("h100", "v5e:1")


def measure(program: str, target: str) -> dict[str, float]:
    """Compiles a program and returns its numbers: of one device, without evaluations."""
    path, scale, fields, fixed = PROGRAMS[program]
    found = hardware.find_target(target)
    with tempfile.TemporaryDirectory() as folder:
        task, run = make_run(EXPERIMENTS / path, scale, pathlib.Path(folder), fields)
    config = hardware.default_config(task, run, found.num_devices, fixed)
    jax.config.update("jax_exec_time_optimization_effort", 0.0 if found.is_gpu else TPU_EFFORT)
    compiled = hardware.compile_program(task, run, config, found, ["advance"])
    step, update = compiled.micro_step, compiled.update
    return {
        "examples": compiled.num_groups * step.examples,
        "kernels": step.kernels,
        "bytes_per_example": round(step.bytes / step.examples),
        "collectives": sum(step.collectives.values()),
        "kernels_per_update": update.kernels,
        "bytes_per_update": update.bytes,
        "collectives_per_update": sum(update.collectives.values()),
        "summed_bytes_per_update": update.summed_bytes,
        "seconds_per_update_at_least": update.seconds,
        "peak_memory": compiled.memory,
        "examples_per_second_at_most": round(compiled.bound),
        "compile_seconds": round(compiled.seconds["advance"]),
        "jax": jax.__version__,
    }


# Numbers that are compared. The others follow from them, or are times of a shared machine.
LIMITED = (
    "kernels",
    "bytes_per_example",
    "collectives",
    "kernels_per_update",
    "bytes_per_update",
    "collectives_per_update",
    "summed_bytes_per_update",
    "peak_memory",
)


def read(path: pathlib.Path = BUDGET) -> dict[str, dict[str, float]]:
    """Returns the recorded numbers by program and target, as in "lstm/h100".

    Each has also the version of JAX that they were measured with.
    """
    return json.loads(path.read_text()) if path.exists() else {}


def table(before: Mapping[str, Mapping], after: Mapping[str, Mapping]) -> str:
    """Returns both records as a table in Markdown, a row for each program and target."""
    lines = [
        "| program | kernels | bytes an example | bound, examples/s | memory, MB | compile, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    columns = {
        "kernels": 1,
        "bytes_per_example": 1,
        "examples_per_second_at_most": 1,
        "peak_memory": 1e6,
        "compile_seconds": 1,
    }
    for name, numbers in after.items():
        cells = []
        for column, unit in columns.items():
            new = f"{numbers[column] / unit:,.0f}"
            old = before.get(name, {}).get(column)
            cells.append(new if old is None else f"{old / unit:,.0f} -> {new}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures programs, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="such as lstm/h100; all by default")
    parser.add_argument("--write", action="store_true", help="write the budget")
    parser.add_argument(
        "--table",
        action="store_true",
        help="print the budget beside an earlier record, measure nothing",
    )
    arguments = parser.parse_args()
    if arguments.table:
        print(table(read(RECORDS / "programs_before.json"), read()))
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    every = [f"{program}/{target}" for program in PROGRAMS for target in targets_of(program)]
    for name in arguments.names or every:
        numbers = measure(*name.split("/"))
        print(name, json.dumps(numbers), flush=True)
        if arguments.write:
            budget = read() | {name: numbers}
            text = json.dumps({name: budget[name] for name in every if name in budget}, indent=2)
            BUDGET.write_text(text + "\n")


if __name__ == "__main__":
    main()
