"""Workers on this host: a process for each accelerator, or for each group of processor cores.

A group is the cores that share a last-level cache.
"""

import contextlib
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from noisegen import storage

from . import cli
from .driver import Exit, WorkerCommand, make_exit

_GRACE_SECONDS = 30.0  # for a worker that stops to checkpoint its runs
_MEMORY = 0.9  # fraction of an accelerator's memory for all the workers on it
_MEMORY_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
# A program that prints which devices JAX finds, and how many.
_LIST_DEVICES = "import jax; print(jax.default_backend(), jax.local_device_count())"


class WorkerSlot(NamedTuple):
    """The part of this host that a worker uses.

    Attributes:
      cores: Processor cores, or none if the system cannot restrict a process to cores.
      environment: Variables that show the worker its accelerator.
    """

    cores: tuple[int, ...]
    environment: dict[str, str]


class LocalExecutor:
    """Runs workers as processes of this host.

    Args:
      command: The command of the workers.
      slots: The slot of each worker.
    """

    max_restarts = 3
    can_kill = True

    def __init__(self, command: WorkerCommand, slots: Sequence[WorkerSlot]):
        self.num_workers = len(slots)
        self.command, self._slots = command, slots
        self._processes: dict[int, subprocess.Popen] = {}

    def start(self, index: int) -> None:
        slot = self._slots[index]
        with self.command.log(index).open("ab") as log, _on_cores(slot.cores):
            self._processes[index] = subprocess.Popen(
                self.command.words(index, self.num_workers),
                env=os.environ | slot.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal sends Ctrl-C to this process alone
            )

    def poll(self) -> dict[int, Exit]:
        ended = {}
        for index, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[index]
                ended[index] = make_exit(code, self.command.log(index))
        return ended

    def find(self, status: storage.WorkerStatus) -> int | None:
        if not status.is_here():  # the same process id on another host
            return None
        pids = {process.pid: index for index, process in self._processes.items()}
        return pids.get(status.pid)

    def kill(self, index: int) -> None:
        self._processes[index].kill()

    def stop(self) -> None:
        # All are asked at once, so that they checkpoint at the same time.
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def detect_slots(workers: str) -> list[WorkerSlot]:
    """Returns the slots of the workers on this host. Leaves the accelerators to them.

    Args:
      workers: Number of workers, or "auto" for one on each accelerator or group of cores.

    Raises:
      UsageError: If it is no such number.
      ChildProcessError: If JAX finds no device.
    """
    num_workers = parse_workers(workers)
    # Asking JAX in this process would occupy the accelerators.
    asked = subprocess.run(
        [sys.executable, "-c", _LIST_DEVICES],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if asked.returncode:
        raise ChildProcessError(cli.no_devices(asked.stderr))
    backend, count = asked.stdout.split()[-2:]
    num_devices = int(count)
    # From here on this process itself uses no accelerator.
    jax.config.update("jax_platforms", "cpu")
    if backend == "tpu":  # one process drives all the chips of a host
        return [WorkerSlot((), {})]
    groups = _core_groups()
    if backend == "cpu":
        return [WorkerSlot(cores, {}) for cores in _deal(groups, num_workers or len(groups))]
    num_workers = num_workers or num_devices
    return [
        WorkerSlot(cores, _accelerator(index, num_workers, num_devices))
        for index, cores in enumerate(_deal(groups, num_workers))
    ]


def parse_workers(text: str) -> int | None:
    """Returns the number of workers that --workers gives, or None for "auto".

    Raises:
      UsageError: If it is no such number.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise cli.UsageError(f"--workers={text} must be 'auto' or a number of at least 1.")
    return int(text)


def memory_fraction(part: float) -> dict[str, str]:
    """Returns the variable that gives a worker part of an accelerator's memory.

    Args:
      part: Fraction of the memory. A variable that the user has set has precedence.
    """
    if any(name in os.environ for name in _MEMORY_VARIABLES):
        return {}
    return {_MEMORY_VARIABLES[0]: f"{_MEMORY * part:.3f}"}


def _core_groups():
    """Returns the cores that this process may use, by the last-level cache that they share.

    Workers that share a cache would push each other's data out of it.
    """
    if not hasattr(os, "sched_getaffinity"):  # not on macOS
        return [()]
    groups = {}
    for core in sorted(os.sched_getaffinity(0)):
        path = pathlib.Path(f"/sys/devices/system/cpu/cpu{core}/cache/index3/shared_cpu_list")
        key = path.read_text() if path.exists() else ""  # virtual machines may not tell
        groups.setdefault(key, []).append(core)
    return [tuple(group) for group in groups.values()]


def _deal(groups, num_workers):
    """Returns the cores of each worker; cores of a group stay together."""
    if len(groups) == num_workers or groups == [()]:  # a group each, or no choice of cores
        return groups * (num_workers // len(groups))
    # Neighbors in this list share a cache, so that parts of it are within few groups.
    cores = [core for group in groups for core in group]
    if num_workers > len(cores):
        return [(cores[index % len(cores)],) for index in range(num_workers)]
    return [tuple(part.tolist()) for part in np.array_split(cores, num_workers)]


def _accelerator(index, num_workers, num_devices):
    """Returns the variables that show a worker one accelerator and its part of the memory."""
    environment = {}
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):  # of NVIDIA and AMD
        # Only devices that this process sees may be given on.
        everything = ",".join(str(number) for number in range(num_devices))
        visible = (os.environ.get(name) or everything).split(",")
        environment[name] = visible[index % num_devices]
    if num_workers > num_devices:
        environment |= memory_fraction(1 / math.ceil(num_workers / num_devices))
    return environment


@contextlib.contextmanager
def _on_cores(cores):
    """Restricts the processes that are started within the context to some cores."""
    if not cores:
        yield
        return
    # A process inherits the cores of the one that starts it.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
