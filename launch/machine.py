"""The machine that trains, and the record of a run, which names it."""

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
from typing import Any

import jax

import noisegen
from noisegen import training
from noisegen.training import PoolConfig


def record(settings: PoolConfig, result: training.Result) -> dict[str, Any]:
    """Returns the record of a run."""
    found = {
        "run_id": result.run_id,
        "run": dict(result.hparams),
        "status": result.status,
        "diverged_at": result.diverged_at,
        "metrics": result.metrics,
        "num_updates": result.num_updates,
        "num_examples": result.num_examples,
        "seconds": round(result.seconds, 3),
        "device": _device(),
        "versions": _versions(),
        "settings": {k: v for k, v in vars(settings).items() if v is not None},
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "curve": result.curve,
    }
    if switches := _jax_config():
        found["jax_config"] = switches
    return found


def num_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def devices() -> str:
    """Returns number and kind of the devices that JAX computes on."""
    return f"{len(jax.devices())} x {jax.devices()[0].device_kind}"


def processor() -> str:
    """Returns the name of the processor."""
    listing = pathlib.Path("/proc/cpuinfo")  # Linux has it
    model = re.search(
        r"model name\s*: (.+)", listing.read_text(errors="replace") if listing.exists() else ""
    )
    return model[1] if model else platform.processor()


@functools.cache
def _device():
    """Returns the accelerators that train, or the processor."""
    if jax.default_backend() != "cpu":
        return devices()
    several = f"{jax.process_count()} processes, " if jax.process_count() > 1 else ""
    return f"{several}{num_cores()} cores of {processor()}"


def _jax_config():
    """Returns the settings of JAX that may change results and differ from the default."""
    usual = {"jax_enable_x64": False, "jax_default_matmul_precision": None}
    found = {name: getattr(jax.config, name) for name in usual}
    return {name: value for name, value in found.items() if value != usual[name]}


@functools.cache
def _versions():
    names = ("jax", "flax", "optax")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"noisegen": noisegen.__version__} | versions
