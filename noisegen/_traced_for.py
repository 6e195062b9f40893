"""Holds the devices that a program is traced for, so that a layer can choose how it computes.

>>> from noisegen import _traced_for
>>> with _traced_for.devices("tpu", num_networks=4):
...     _traced_for.current()
Devices(platform='tpu', num_networks=4)
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import jax


class Devices(NamedTuple):
    """The devices that a program is traced for."""

    platform: str  # "cpu", "gpu" or "tpu"; JAX names some GPUs by their maker
    num_networks: int  # that a device trains at once, under `jax.vmap` over their parameters


_current: contextvars.ContextVar[Devices | None] = contextvars.ContextVar("devices", default=None)


@contextlib.contextmanager
def devices(platform: str, num_networks: int) -> Iterator[None]:
    """Sets the devices that programs are traced for in this context."""
    token = _current.set(Devices(platform, num_networks))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Devices:
    """Returns the devices that are set, by default one network on JAX's default platform."""
    return _current.get() or Devices(jax.default_backend(), 1)
