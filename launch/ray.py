"""Workers as Ray tasks. All nodes must see the sweep's directory, this directory and this Python.

Ray decides on which node a worker runs, and runs it again when its node dies. The workers share the
runs through the sweep's directory, so nothing of the sweep passes through Ray.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import subprocess
import sys
import time
from typing import Any

from noisegen.sweeps import machine

from .cli import UsageError
from .driver import Exit, WorkerCommand, make_exit
from .local import memory_fraction

_OBJECT_STORE_BYTES = 100 << 20  # of a cluster that we start: tasks return one line each
_CONNECT_SECONDS = 10.0
_GRACE_SECONDS = 40.0  # for a worker that stops to checkpoint its runs
_CANCEL_SECONDS = 60.0  # for the tasks of such workers
_KILL_SECONDS = 5.0
# Variables that workers on other hosts get, too. Ray itself sets CUDA_VISIBLE_DEVICES.
_SENT = ("JAX_", "XLA_", "NOISEGEN_", "TFDS_", "PYTHONPATH")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Options of Ray.

    Attributes:
      address: The cluster. `auto` is this host's cluster. `local` starts a cluster that ends with
        the sweep. HOST:PORT names the head of another cluster.
      num_cpus: Processor cores of each worker.
      num_gpus: GPUs of each worker, or a fraction of one that it shares. By default one if the
        cluster has GPUs.
      max_retries: Number of times that Ray runs a worker again if it or its node dies. -1 stands
        for any number.
    """

    address: str = "auto"
    num_cpus: float = 1.0
    num_gpus: float | None = None
    max_retries: int = 3


class RayExecutor:
    """Runs workers as tasks of a Ray cluster, to which it is connected until it stops.

    Args:
      command: The command of the workers.
      config: Options of Ray.
      num_workers: Number of workers, by default as many as fit the cluster.

    Raises:
      ImportError: If Ray is not installed.
      ConnectionError: If there is no such cluster.
      UsageError: If no node has the resources that a worker asks for.
    """

    max_restarts = 0  # Ray itself retries
    # Only Ray knows the processes of its tasks. If a worker hangs, others train its runs.
    can_kill = False

    def __init__(self, command: WorkerCommand, config: RayConfig, num_workers: int | None):
        self._ray, self.command = _connect(config.address), command
        self._tasks: dict[Any, int] = {}
        self._stack, self._log = contextlib.ExitStack(), None
        # From here on a cluster of our own has processes, which end only with `stop`.
        try:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            num_gpus = config.num_gpus
            if num_gpus is None:
                num_gpus = float(any(node.get("GPU") for node in nodes))
            self._resources = {"num_cpus": config.num_cpus, "num_gpus": num_gpus}
            self._run_worker = self._remote(config.max_retries)
            self.num_workers = num_workers or self._count(nodes)
        except BaseException:
            self.stop()
            raise

    def start(self, index: int) -> None:
        if self._log is None:
            # Ray reports the tasks that it retries on standard output, which is for the report.
            path = self.command.log(index).with_name("ray.log")
            self._log = self._stack.enter_context(path.open("a", encoding="utf-8"))
            self._stack.enter_context(contextlib.redirect_stdout(self._log))
        words = self.command.words(index, self.num_workers) + ["--exit_with_stdin"]
        log = str(self.command.log(index))
        environment = _environment(**self._resources)
        task = self._run_worker.options(name=f"noisegen worker {index}").remote(
            words, os.getcwd(), environment, log
        )
        self._tasks[task] = index

    def poll(self) -> dict[int, Exit]:
        ended = {}
        for task in self._wait(0)[0]:
            index = self._tasks.pop(task)
            try:
                ended[index] = make_exit(self._ray.get(task), self.command.log(index))
            except self._ray.exceptions.RayError as error:
                # Of an error in the task itself, the cause is what the task raised.
                cause = getattr(error, "cause", None) or error
                ended[index] = Exit(" ".join(str(cause).split()).removesuffix("."), ok=False)
        return ended

    def stop(self) -> None:
        # Ray 2.60 crashes if a task ends while it is cancelled. A task about to end goes first.
        self._wait(1.0)
        for force, seconds in ((False, _CANCEL_SECONDS), (True, _KILL_SECONDS)):
            for task in self._wait(0)[1]:
                with contextlib.suppress(ValueError, self._ray.exceptions.RayError):
                    self._ray.cancel(task, force=force)
            self._wait(seconds)
        self._ray.shutdown()
        self._stack.close()  # last, as Ray reports dead nodes until it has shut down

    def describe(self) -> str:
        """Returns in words how workers use the cluster."""
        return f"{self.num_workers} workers on Ray, with {_in_words(**self._resources)} each."

    def _wait(self, seconds):
        """Waits until all tasks have ended, at most some seconds; returns done tasks and others."""
        tasks = list(self._tasks)
        if not tasks:
            return [], []
        return self._ray.wait(tasks, num_returns=len(tasks), timeout=seconds)

    def _remote(self, max_retries):
        """Returns the function that has Ray run a worker."""
        try:
            options = {**self._resources, "max_retries": max_retries, "retry_exceptions": True}
            return self._ray.remote(**options)(_run_worker)
        except ValueError as error:
            raise UsageError(f"Ray refuses the --ray flags: {error}") from error

    def _count(self, nodes):
        """Returns the number of workers that fit the cluster."""
        # A worker must fit a single node. Ray would wait forever for a node that is large enough.
        count = sum(_num_fitting(node, **self._resources) for node in nodes)
        if count == 0:
            sizes = {_in_words(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes}
            raise UsageError(
                f"No node of the Ray cluster has the {_in_words(**self._resources)} that each "
                f"worker asks for; the nodes have {' or '.join(sorted(sizes))}: give other values "
                "of --ray.num_cpus and --ray.num_gpus."
            )
        return count


def _run_worker(words, directory, environment, log):
    """Runs a worker in a Ray task; returns its exit code if a retry could not help.

    The worker's standard input is a pipe that ends with this process, even if it is killed. The
    worker then checkpoints its runs and ends, too.
    """
    parent = os.getppid()  # Ray's process for the node, which this one may outlive
    with open(log, "ab") as output:
        process = subprocess.Popen(
            words,
            cwd=directory,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that only its input stops it
        )
    try:
        while process.poll() is None:
            if os.getppid() != parent:
                raise RuntimeError("the node of Ray is gone")
            time.sleep(0.1)  # a cancelled task is interrupted here
    finally:
        process.stdin.close()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    # Ray retries a task that raises. Code 1 is an error that a retry would meet again.
    if process.returncode not in (0, 1):
        raise RuntimeError(f"exit code {process.returncode} on {socket.gethostname()}")
    return process.returncode


def _connect(address):
    """Returns Ray, connected to a cluster."""
    options = _options(address)  # sets variables that Ray reads when it is imported
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"--launcher=ray needs Ray, which cannot be imported ({error}): pip install '.[ray]'"
        ) from error
    # A node imports no module of ours.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConnectionError(
            f"--ray.address={address}: {' '.join(str(error).split())} Start a cluster with `ray "
            "start --head`, or give --ray.address=local for one on this host."
        ) from error
    return ray


def _options(address):
    """Returns the arguments of `ray.init`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, _, port = address.rpartition(":")
    if address == "local" or host in ("localhost", "127.0.0.1"):
        # As on macOS, Ray then listens at 127.0.0.1 only.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address == "local":  # as small as possible, for the time of the sweep
        return {
            "address": "local",
            "num_cpus": machine.num_cores(),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    if address == "auto":
        return {"address": "auto"}
    if not host or not port.isdecimal():
        raise UsageError(
            f"--ray.address={address} must be auto, local, or HOST:PORT of the cluster's head."
        )
    try:  # Ray itself waits for minutes if the address does not answer
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"--ray.address={address}: nobody answers there ({error}); `ray start --head` says "
            "the address of a cluster, and --ray.address=local starts one on this host."
        ) from error
    return {"address": address}


def _environment(num_cpus, num_gpus):
    """Returns the variables of a worker: the user's, and those that keep it to its resources."""
    cores = str(max(1, int(num_cpus)))
    environment = {"JAX_NUM_CPU_DEVICES": cores, "NPROC": cores}  # XLA starts NPROC threads
    if not num_gpus:
        environment["JAX_PLATFORMS"] = "cpu"
    elif num_gpus < 1:  # Ray does not divide the memory
        environment |= memory_fraction(num_gpus)
    return environment | {name: os.environ[name] for name in os.environ if name.startswith(_SENT)}


def _num_fitting(node, num_cpus, num_gpus):
    """Returns the number of workers that fit the resources of a node."""
    fitting = []
    for name, needed in (("CPU", num_cpus), ("GPU", num_gpus)):
        if needed:
            # Ray counts in units of 1/10000.
            fitting.append(int(round(node.get(name, 0) / needed, 4)))
    return min(fitting, default=0)


def _in_words(num_cpus, num_gpus):
    """Returns resources in words."""
    cpus = f"{num_cpus:g} CPU" + ("s" if num_cpus != 1 else "")
    gpus = f" and {num_gpus:g} GPU" + ("s" if num_gpus != 1 else "")
    return cpus + (gpus if num_gpus else "")
