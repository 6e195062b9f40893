"""One worker over several processes, on one host or many; for runs too large for one process.

The first process leads: it alone reads and writes the sweep's directory, and decides. The others
follow it, since every process must run the same programs. If one of them ends, JAX ends the rest,
and another worker, or the same command, resumes the runs.
"""

import os
import re
import socket
import sys
import traceback
from collections.abc import Sequence

import jax

from noisegen import storage, training
from noisegen.sweeps import Sweep, signals
from noisegen.sweeps.worker import Worker, WorkerOptions
from noisegen.training import Run, multihost

from . import cli
from .cli import UsageError

# Two processes may otherwise begin collective operations in different orders, and crash.
_IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def join(address: str) -> None:
    """Joins the processes of a worker. Must come before JAX is first used.

    Args:
      address: `auto` if Slurm, MPI or Kubernetes number the processes, else
        `HOST:PORT,INDEX/COUNT` with an address of the first process.

    Raises:
      UsageError: If it is neither, or nothing numbers the processes.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_IN_ORDER}".strip()
    if address == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise UsageError(
                "--distributed=auto finds no Slurm, MPI or Kubernetes that numbers the processes; "
                f"give HOST:PORT,INDEX/COUNT. ({error})"
            ) from error
    else:
        _join_at(address)
    # An error ends this process at once. JAX would have it wait minutes for the others.
    sys.excepthook = _leave_with_traceback


def is_joined() -> bool:
    """Returns whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_follower() -> bool:
    """Returns whether another process leads this one."""
    return is_joined() and jax.process_index() > 0


class MultihostWorker(Worker):
    """A worker whose pool spreads over several processes. This process leads them.

    Every process must make the same calls of JAX, so this one announces each to the others.
    """

    feeds_lanes = False  # the followers learn the runs before training begins

    def run(self) -> None:
        super().run()
        multihost.broadcast_json(None)  # lets the followers end

    @cli.usage_errors()
    def make_pool(self, task: training.Task, config: training.PoolConfig) -> training.Pool:
        # The followers find the task by a run of it.
        wanted = self.sweep.state.wanted.values()
        hparams = next(each for each in wanted if self.sweep.task_of(each) is task)
        multihost.broadcast_json({"runs": [dict(hparams)], "config": vars(config)})
        return _LeaderPool(task, config)

    @cli.usage_errors()
    def choose_config(self, task: training.Task, runs: Sequence[Run]) -> training.PoolConfig:
        hparams = [dict(run.hparams) for run in runs]
        multihost.broadcast_json({"runs": hparams, "choose": dict(self.options.pool)})
        return multihost.choose_config(task, runs, **self.options.pool)

    def check_stop(self, stop: bool) -> None:
        super().check_stop(multihost.broadcast_json(stop))


class SharedCheckpoints:
    """Shares the checkpoints of the first process with all processes.

    Args:
      checkpoints: The checkpoints, on the first process. The others have None.
    """

    def __init__(self, checkpoints: storage.Checkpoints | None):
        self._checkpoints = checkpoints

    # A pool calls these methods of `storage.Checkpoints`, on all processes at once.

    def due(self):
        return multihost.broadcast_json(self._checkpoints is not None and self._checkpoints.due())

    def save(self, runs, counts, arrays):
        # Each process holds the arrays of its own devices only.
        arrays = multihost.gather(arrays)
        if self._checkpoints is not None:
            self._checkpoints.save(runs, counts, arrays)

    def load(self, run):
        loaded = iter(() if self._checkpoints is None else self._checkpoints.load(run))
        while (arrays := multihost.broadcast_arrays(next(loaded, None))) is not None:
            yield arrays


@cli.usage_errors()  # of other errors the first process shows the traceback
def follow(sweep: Sweep, options: WorkerOptions) -> None:
    """Makes the same calls of JAX as the first process, until that one is done.

    Raises:
      KeyboardInterrupt: If the first process was asked to stop.
    """

    def check_stop(running):
        if multihost.broadcast_json(False):  # the first process sends its own answer
            raise KeyboardInterrupt

    # A signal reaches the first process too, and that one decides when to stop.
    with signals.on_stop(lambda number: None):
        pool = None
        while (order := multihost.broadcast_json(None)) is not None:
            task = sweep.task_of(order["runs"][0])
            if "choose" in order:
                pool = None  # frees the device for measurements
                multihost.choose_config(task, order["runs"], **order["choose"])
                continue
            if "config" in order:
                pool = None
                pool = multihost.MultihostPool(task, training.PoolConfig(**order["config"]))
                continue
            # It records nothing, so that only the work on its devices matters.
            results = pool.train(
                order["runs"],
                check_stop,
                SharedCheckpoints(None),
                options.keep_params,
                lambda run: False,  # the first process decides
            )
            for _ in results:
                pass


class _LeaderPool(multihost.MultihostPool):
    """A pool that has the followers train the same runs."""

    def train(
        self, runs, on_progress=None, checkpoints=None, keep_params=False, take=None, more=None
    ):
        assert more is None, "the worker above does not feed its lanes"
        hparams = [dict(run.hparams) for run in runs]
        multihost.broadcast_json({"runs": hparams})
        # The followers have called `train` by now, and from here on make the same calls.
        shared = SharedCheckpoints(checkpoints)
        yield from super().train(runs, on_progress, shared, keep_params, take)


def _join_at(text):
    """Joins the processes at an address."""
    match = re.fullmatch(r"(.+):(\d+),(\d+)/(\d+)", text)
    host, port, index, count = match.groups() if match else ("", 0, 0, 0)
    port, index, count = int(port), int(index), int(count)
    if not (index < count and 0 < port < 2**16):
        raise UsageError(
            f"--distributed={text} must be auto or HOST:PORT,INDEX/COUNT, such as "
            "127.0.0.1:9876,0/2 in the first of two processes."
        )
    address, bind = f"{host}:{port}", {}
    if index == 0:
        _check_free(host, port)
        bind["coordinator_bind_address"] = address  # by default JAX listens on all addresses
    print(f"Waiting for all of the {count} processes at {address}", file=sys.stderr, flush=True)
    jax.distributed.initialize(address, count, index, **bind)


def _check_free(host, port):
    """Checks that a process can listen at an address. JAX would crash if it cannot."""
    try:
        kind = socket.SOCK_STREAM
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=kind)[0]
        with socket.socket(family, kind) as trial:
            # A port whose last connection ended a moment ago is free.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise UsageError(
            f"--distributed={host}:{port}: this process, the first, cannot listen there: "
            f"{error.strerror}; give an address of this host and a free port."
        ) from error


def _leave_with_traceback(*error):
    traceback.print_exception(*error)
    cli.leave(1)
