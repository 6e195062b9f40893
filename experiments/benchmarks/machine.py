"""Holds options, the description of this machine and processes, for all parts."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import sys
import time
from typing import Any, NamedTuple

import jax

import noisegen
from noisegen.sweeps.machine import devices, num_cores, processor

ROOT = pathlib.Path(__file__).parents[2]
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")


class Options(NamedTuple):
    """Holds the options of the command line.

    Attributes:
      quick: Whether to measure a miniature.
      rounds: Repetitions of every timing.
      torch_python: Interpreter that has torch and numpy, or None.
    """

    quick: bool = False
    rounds: int = 2
    torch_python: str | None = None


def describe(command: str, options: Options) -> dict[str, Any]:
    """Returns the command, the date, the hardware and the versions."""
    hardware = {
        "cpu": processor(),
        "cores": num_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "load_average_before": os.getloadavg()[0],
        "vector_bits": vector_bits(),
        "peak_gflops": round(peak_gflops()),
    }
    if has_accelerator():
        hardware["accelerator"] = devices()
    versions = {"python": platform.python_version(), "noisegen": noisegen.__version__}
    for name in _VERSIONED:
        versions[name] = importlib.metadata.version(name)
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "hardware": hardware,
        "versions": versions,
    }


def vector_bits() -> int | None:
    """Returns the width of the vectors of an x86 processor under Linux, None on others."""
    listing = pathlib.Path("/proc/cpuinfo")
    flags = set(listing.read_text(errors="replace").split()) if listing.exists() else set()
    widths = {"avx512f": 512, "avx2": 256, "sse2": 128}
    return next((bits for flag, bits in widths.items() if flag in flags), None)


def peak_gflops() -> float:
    """Returns the speed of a large product of float32 matrices on JAX's first device.

    The best of ten products of 2048 x 2048 matrices. A busy machine has a smaller one.
    """
    size = 2048
    matrix = jax.numpy.ones((size, size), "float32")
    product = jax.jit(jax.numpy.matmul)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds) / 1e9


def has_accelerator() -> bool:
    """Returns whether JAX computes on something other than the processor."""
    return jax.default_backend() != "cpu"


def environment(**changes: str | None) -> dict[str, str]:
    """Returns the environment for a child process, which finds the repository's modules."""
    kept = {name: value for name, value in os.environ.items() if name not in changes}
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return kept | {n: v for n, v in changes.items() if v is not None}


def say(text: str) -> None:
    """Prints one line of progress."""
    print(text, file=sys.stderr, flush=True)
