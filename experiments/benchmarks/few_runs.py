"""Measures the seconds of the first few runs of LeNet-5 on MNIST, against PyTorch.

The grid of the part `mnist`, or a small part of it, where imports, choice of settings and
compilation weigh most. As there, everything from the start of the process to the end of the last
run counts, and the better of PyTorch's two ways. Noisegen trains each grid twice: with nothing
compiled, and in a second process, which finds the programs of the first on disk. Where the
processor has vectors of 512 bits, all is measured again with vectors of 256 bits only, as on a
processor with AVX2.
"""

import os
import sys
import tempfile

from experiments.benchmarks import contender, images, machine, mnist, report
from noisegen import data
from noisegen.sweeps.machine import num_cores

TITLE = "The first runs of LeNet-5 on MNIST, against PyTorch"
# The second finds the programs that the first compiled.
OURS = ("noisegen", "noisegen, compiled before")
GRIDS = {
    1: ((128,), (0.1,)),
    6: ((64, 256, 1024), (0.05, 0.1)),
    32: (mnist.BATCH_SIZES, mnist.LEARNING_RATES),
}


def measure(options: machine.Options) -> dict:
    """Lets both train each grid, `options.rounds` times in turn."""
    grids = {1: ((64,), (0.1,))} if options.quick else GRIDS
    dataset = images.noise(512, 256, 28, 1) if options.quick else data.load("mnist")
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        spec = {"images": f"{folder}/images.npz", "momentum": 0.5}
        images.save(spec["images"], dataset)
        for seed in range(options.rounds):
            for bits in _widths():
                for count, (sizes, rates) in grids.items():
                    runs = [(size, rate) for size in sizes for rate in rates]
                    seconds = _seconds(spec | {"runs": runs, "seed": seed}, bits, options)
                    rounds.append({"runs": count, "vector_bits": bits, "seconds": seconds})
                    machine.say(f"  {count} runs, {bits} bits: {seconds}")
    return {"measured": rounds}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the seconds of both, and their ratio."""
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    for each in record["measured"]:
        seconds = each["seconds"]
        by_name = found.setdefault((each["vector_bits"], each["runs"]), {})
        for name in OURS:
            by_name.setdefault(name, []).append(seconds[name])
        rivals = [value for name, value in seconds.items() if name not in OURS]
        if rivals:
            by_name.setdefault("PyTorch", []).append(min(rivals))
    table = []
    for (bits, count), by_name in found.items():
        runs = "1 run" if count == 1 else f"{count} runs"
        what = f"{runs}, vectors of {bits} bits" if bits else runs
        for name, seconds in by_name.items():
            table.append((f"{name}, {what}, seconds", report.spread(seconds), ""))
        if "PyTorch" not in by_name:
            continue
        goal = mnist.GOALS["PyTorch"] if count == max(GRIDS) else 1
        for name in OURS:
            pairs = zip(by_name["PyTorch"], by_name[name], strict=True)
            ratios = report.spread([theirs / ours for theirs, ours in pairs])
            table.append((f"PyTorch / {name}, {what}", ratios, f">= {goal}"))
    return table


def _widths() -> list[int | None]:
    """Returns the vector widths to measure, in bits."""
    most = machine.vector_bits()
    return [512, 256] if most == 512 else [most]


def _seconds(spec: dict, bits: int | None, options: machine.Options) -> dict[str, float]:
    """Returns the seconds of each contender."""
    # The machine's own vectors need no limit.
    limits = {} if bits == machine.vector_bits() else _limits()
    answers = {}

    def train(name: str, python: str, program: str, processes: int, **variables: str) -> None:
        variables |= limits
        answers[name] = contender.train(python, program, processes, spec, variables=variables)

    with tempfile.TemporaryDirectory() as compiled:
        kept = {"JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_COMPILATION_CACHE_DIR": compiled}
        for name in OURS:
            train(name, sys.executable, "noisegen_pool", 1, **kept)
    if options.torch_python:
        # A single run has work for one process only.
        for processes in {1, min(num_cores(), len(spec["runs"]))}:
            train(
                f"PyTorch, processes: {processes}", options.torch_python, "pytorch_loop", processes
            )
    mnist.check_equal_work(answers)
    return {name: answer["seconds"] for name, answer in answers.items()}


def _limits() -> dict[str, str]:
    """Returns variables that keep XLA and PyTorch to vectors of 256 bits."""
    return {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa=AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
