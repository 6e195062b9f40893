"""Describes the machine that trains runs, for records and benchmarks."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import re
from typing import Any

import jax

import noisegen
from noisegen._text import count


def num_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on macOS.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices() -> str:
    """Returns number and kind of JAX's devices, for example "8 x NVIDIA H100"."""
    return f"{len(jax.devices())} x {jax.devices()[0].device_kind}"


def processor() -> str:
    """Returns the name of the processor."""
    listing = pathlib.Path("/proc/cpuinfo")  # Linux only.
    text = listing.read_text(errors="replace") if listing.exists() else ""
    model = re.search(r"model name\s*: (.+)", text)
    return model[1] if model else platform.processor()


@functools.cache
def device() -> str:
    """Returns the accelerators that train, or the processor if there are none.

    With several processes of `jax.distributed` on processors, it also returns their number.
    """
    if jax.default_backend() != "cpu":
        return devices()
    cores = f"{count(num_cores(), 'core')} of {processor()}"
    if jax.process_count() > 1:
        return f"{jax.process_count()} processes, {cores}"
    return cores


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of noisegen and of the packages that it computes with."""
    found = {"noisegen": noisegen.__version__}
    for name in ("jax", "flax", "optax"):
        found[name] = importlib.metadata.version(name)
    return found


def jax_config() -> dict[str, Any] | None:
    """Returns the settings of JAX that change results and differ from its defaults.

    Returns:
      The settings by name, or None if all have their defaults.
    """
    changed = {}
    for name, default in {"jax_enable_x64": False, "jax_default_matmul_precision": None}.items():
        value = getattr(jax.config, name)
        if value != default:
            changed[name] = value
    return changed or None
