"""Describes the machine that trains, for records and benchmarks."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import re
from typing import Any

import jax

import noisegen


def num_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices() -> str:
    """Returns number and kind of the devices that JAX computes on."""
    return f"{len(jax.devices())} x {jax.devices()[0].device_kind}"


def processor() -> str:
    """Returns the name of the processor."""
    listing = pathlib.Path("/proc/cpuinfo")  # Linux only
    text = listing.read_text(errors="replace") if listing.exists() else ""
    model = re.search(r"model name\s*: (.+)", text)
    return model[1] if model else platform.processor()


@functools.cache
def device() -> str:
    """Returns the accelerators that train, or the processor if there are none."""
    if jax.default_backend() != "cpu":
        return devices()
    cores = f"{num_cores()} cores of {processor()}"
    if jax.process_count() > 1:
        return f"{jax.process_count()} processes, {cores}"
    return cores


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of the packages that compute."""
    names = ("jax", "flax", "optax")
    return {
        "noisegen": noisegen.__version__,
        **{name: importlib.metadata.version(name) for name in names},
    }


def jax_config() -> dict[str, Any] | None:
    """Returns the settings of JAX that change results and differ from its defaults, if any do."""
    usual = {"jax_enable_x64": False, "jax_default_matmul_precision": None}
    found = {name: getattr(jax.config, name) for name in usual}
    return {name: value for name, value in found.items() if value != usual[name]} or None
