"""A worker spread over several processes, on one host or several.

The first process is the worker: it alone reads and writes the sweep's directory, and decides. The
others follow it, since every process must run the same programs. If one of them ends, JAX ends the
rest, and another worker, or the same command, goes on.
"""

import os
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import jax

from launch import command
from launch.tasks import Tasks
from noisegen import training
from noisegen.training import multihost

_IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def join(where: str) -> None:
    """Joins the processes of a worker; must come before JAX is first used.

    Args:
      where: `auto`, where Slurm, MPI or Kubernetes say which process this is, or
        `HOST:PORT,INDEX/COUNT`, of which the first has the address.

    Raises:
      ValueError: it is neither, or nothing says which process this is.
    """
    # Else two processes may begin the sums over their processors in different orders, and crash.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_IN_ORDER}".strip()
    _initialize(where)
    sys.excepthook = _leave_with_traceback


def follow(tasks: Tasks, keep_params: bool) -> None:
    """Does what the first process does, until it is done."""
    # A signal reaches the first process too, which decides when to stop.
    with command.signals(lambda: None):
        _follow(tasks, keep_params)


def _initialize(where):
    if where == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                "--distributed=auto finds no Slurm, MPI or Kubernetes that says which process this "
                f"is; give HOST:PORT,INDEX/COUNT. ({error})"
            ) from error
        return
    address, _, process = where.partition(",")
    index, _, count = process.partition("/")
    host, _, port = address.rpartition(":")
    numbers = index.isdecimal() and count.isdecimal() and port.isdecimal()
    if not (host and numbers and int(index) < int(count) and 0 < int(port) < 2**16):
        raise ValueError(
            f"--distributed={where} must be auto or HOST:PORT,INDEX/COUNT, such as "
            "127.0.0.1:9876,0/2 in the first of two processes."
        )
    if int(index) == 0:
        _check_free(host, int(port))
    print(f"Waiting for all of the {count} processes at {address}", file=sys.stderr, flush=True)
    # The first one listens at the address only, not at all of its host's.
    bind = {"coordinator_bind_address": address} if int(index) == 0 else {}
    jax.distributed.initialize(address, int(count), int(index), **bind)


def _check_free(host, port):
    """Checks that one can listen at an address, which JAX would crash at."""
    try:
        family, *_, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except OSError as error:
        raise ValueError(
            f"--distributed={host}:{port}: this process, the first, cannot listen there: "
            f"{error.strerror}; give an address of this host and a free port."
        ) from error


def _follow(tasks, keep_params):
    pool = None
    while (order := multihost.broadcast_json(None)) is not None:
        runs, settings = order["runs"], order["settings"]
        task = tasks.of(runs[0])
        if "given" in order:
            pool = None  # frees its device for what is measured
            autotune(task, runs, **order["given"])
            continue
        if pool is None or pool.task is not task:
            pool = make_pool(task, training.PoolConfig(**settings))
        for _ in pool.train(runs, _stopped, Kept(None), keep_params, _taken):
            pass


def make_pool(task: training.Task, config: training.PoolConfig) -> training.Pool:
    """Makes the pool of a worker, over the devices of all of its processes."""
    several = jax.process_count() > 1
    return (multihost.MultihostPool if several else training.Pool)(task, config)


def autotune(task: training.Task, runs: Sequence, **fixed) -> tuple[training.PoolConfig, float]:
    """Chooses the fastest config for the pool of a worker."""
    several = jax.process_count() > 1
    return (multihost.autotune if several else training.autotune)(task, runs, **fixed)


def check_stop(stop: bool) -> None:
    """Stops all processes if the first one is to stop.

    Raises:
      KeyboardInterrupt: it is.
    """
    if multihost.broadcast_json(stop):
        raise KeyboardInterrupt


def tell(**order: Any) -> None:
    """Has the followers do what this process does next: measure settings or train runs."""
    multihost.broadcast_json(order)


def tell_end() -> None:
    """Lets the followers end."""
    multihost.broadcast_json(None)


class Kept:
    """The checkpoints of a worker, as each of its processes uses them.

    Args:
      checkpoints: those of the first process; the others have none.
    """

    def __init__(self, checkpoints: training.Checkpoints | None):
        self._own = checkpoints

    def due(self):
        return multihost.broadcast_json(self._own is not None and self._own.due())

    def save(self, runs, counts, arrays):
        if jax.process_count() > 1:
            arrays = multihost.gather(arrays)
        if self._own is not None:
            self._own.save(runs, counts, arrays)

    def load(self, run):
        own = iter(() if self._own is None else self._own.load(run))
        while (arrays := multihost.broadcast_arrays(next(own, None))) is not None:
            yield arrays


def _leave_with_traceback(*error):
    """Ends a process that met an error at once: JAX would wait minutes for the others."""
    traceback.print_exception(*error)
    command.leave(1)


def _taken(_):
    return None  # The pool broadcasts the decision of the first process.


def _stopped(_):
    check_stop(False)
