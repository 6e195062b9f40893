"""A Ray cluster: whether it can do what is asked, and tasks that run commands there."""

import contextlib
import ipaddress
import logging
import os
import pathlib
import re
import socket
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from launch import local, machine, ray_task

_STORE = 100 << 20  # bytes of memory for objects, where we start Ray: tasks return a line each
_CONNECTING = 10.0  # seconds
_ENDING = 1.0  # seconds in which a task that is done is seen to be
_CANCELLING = 60.0  # seconds in which cancelled tasks let their workers keep the runs
# Variables that a worker on another host has as well. CUDA_VISIBLE_DEVICES is Ray's to set.
_SENT = ("JAX_", "XLA_", "NOISEGEN_", "TFDS_", "PYTHONPATH")


class Needs(NamedTuple):
    """What a task occupies of its node.

    Attributes:
      num_cpus: processor cores.
      num_gpus: accelerators; part of one, if several tasks are to share it.
    """

    num_cpus: float
    num_gpus: float

    def __str__(self):
        gpus = f" and {_number(self.num_gpus, 'GPU')}" if self.num_gpus else ""
        return _number(self.num_cpus, "CPU") + gpus

    def fit(self, resources: Mapping[str, float]) -> int:
        """Number of tasks that fit such resources."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        # Ray counts in units of 1/10000.
        return min(
            int(round(resources.get(name, 0) / each, 4)) for name, each in wanted.items() if each
        )


class Cluster:
    """A connection to a Ray cluster, a context; with `local`, the cluster itself.

    Args:
      address: `auto` for the one that this host belongs to, `local` for one of this host alone,
        which listens on the loopback interface only, or HOST:PORT of a cluster's head.
      log: file that takes what Ray has to say, as of tasks that it tries again; else on stdout.

    Raises:
      ImportError: Ray is not installed.
      ConnectionError: there is no such cluster.
      ValueError: the address is none.
    """

    def __init__(self, address: str, log: str | os.PathLike = os.devnull):
        options = _prepare(address)  # sets variables that Ray reads when it is imported
        self._ray, self._stack = _import_ray(), contextlib.ExitStack()
        try:
            with _quiet():
                self._ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise ConnectionError(
                f"--ray.address={address}: {_words(error)} Start a cluster with `ray start "
                "--head`, or give --ray.address=local for one on this host."
            ) from error
        self._stack.enter_context(_stdout_to(log))

    def nodes(self) -> list[dict[str, float]]:
        """The resources of each node that is alive."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def at_once(self, needs: Needs) -> int:
        """Number of tasks that the whole cluster can run at once."""
        return sum(map(needs.fit, self.nodes()))

    def check(self, needs: Needs) -> None:
        """Checks that a task can ever run.

        Raises:
          ValueError: no node has what it needs.
        """
        nodes = self.nodes()
        if not any(map(needs.fit, nodes)):
            there = {Needs(n.get("CPU", 0), n.get("GPU", 0)) for n in nodes}
            most = " or ".join(map(str, sorted(filter(any, there)))) or "neither"
            raise ValueError(
                f"No node of the Ray cluster has the {needs} that each task asks for; the nodes "
                f"have {most}: give a smaller --ray.num_cpus or --ray.num_gpus."
            )

    def submit(
        self, words: Sequence[str], needs: Needs, retries: int, name: str, log: str | None = None
    ) -> Any:
        """Has a task run a command in this directory; a reference to its last line.

        Args:
          words: the command.
          needs: of the task.
          retries: how often Ray tries again when the node dies or the command crashes; -1: always.
          name: of the task, for people who look at the cluster.
          log: file to which what the command prints is appended, if any.
        """
        self._ray.cloudpickle.register_pickle_by_value(ray_task)
        options = needs._asdict() | {"max_retries": retries, "retry_exceptions": True, "name": name}
        task = self._ray.remote(ray_task.run).options(**options)
        return task.remote(list(words), os.getcwd(), _environment(needs), log)

    def done(self, refs: Iterable[Any], seconds: float) -> list[Any]:
        """Which tasks have ended; waits for one if none has."""
        refs = list(refs)
        return (
            self._ray.wait(refs, num_returns=len(refs), timeout=0)[0]
            or (self._ray.wait(refs, timeout=seconds)[0])
        )

    def result(self, ref: Any) -> str:
        """The last line of a task that has ended.

        Raises:
          ValueError: the command found something that the user can mend.
          ChildProcessError: it failed, and so did all tries.
        """
        try:
            line = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            raise ChildProcessError(_words(getattr(error, "cause", None) or error)) from error
        if line.startswith("error: "):
            raise ValueError(line.removeprefix("error: "))
        return line

    def cancel(self, refs: Iterable[Any]) -> None:
        """Cancels tasks; those that run have time to keep what they have."""
        # Ray 2.60 crashes when a task ends while it is cancelled: those about to end go first.
        refs = self._unfinished(list(refs), _ENDING)
        for force, seconds in ((False, _CANCELLING), (True, _ENDING)):
            for ref in refs:
                with contextlib.suppress(ValueError, self._ray.exceptions.RayError):
                    self._ray.cancel(ref, force=force)
            refs = self._unfinished(refs, seconds)

    def _unfinished(self, refs, seconds):
        """Which tasks have not ended after so many seconds."""
        return self._ray.wait(refs, num_returns=len(refs), timeout=seconds)[1] if refs else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        with self._stack, _quiet():
            self._ray.shutdown()


def _prepare(address):
    """Keeps what we start to ourselves; the arguments of `ray.init`."""
    if address == "local":
        _stay_on_loopback()
        own = {"num_cpus": machine.num_cores(), "object_store_memory": _STORE}
        return own | {"address": "local", "include_dashboard": False}
    if address == "auto" and (address := _running()) == "auto":
        return {"address": "auto"}  # Ray may know better
    if not (found := re.fullmatch(r"([\w.-]+):(\d+)", address)):
        raise ValueError(
            f"--ray.address={address} must be auto, local, or HOST:PORT of the cluster's head."
        )
    try:
        socket.create_connection((found[1], int(found[2])), _CONNECTING).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"--ray.address={address}: nobody answers there ({error}); `ray start --head` says "
            "the address of a cluster, and --ray.address=local starts one on this host."
        ) from error
    if _is_loopback(found[1]):
        _stay_on_loopback()
        return {"address": address, "_node_ip_address": found[1]}
    return {"address": address}


def _running():
    """The address of this host's cluster, as far as it is noted down; else `auto`.

    Ray itself waits for minutes if that cluster is gone.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", "/tmp")
    noted = pathlib.Path(folder, "ray", "ray_current_cluster")
    if (known := os.environ.get("RAY_ADDRESS", "auto")) == "auto" and noted.is_file():
        known = noted.read_text().strip()
    return known


def _stay_on_loopback():
    """Has Ray use 127.0.0.1, as on macOS; else it takes an outward address in its place."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _is_loopback(host):
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _import_ray():
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"--launcher=ray needs Ray, which cannot be imported ({error}): pip install '.[ray]'"
        ) from error
    return ray


def _environment(needs):
    """Variables of a worker: what the user set here, and what keeps it to its part of the node."""
    cores = str(max(1, int(needs.num_cpus)))
    own = {"JAX_NUM_CPU_DEVICES": cores, "NPROC": cores}  # XLA has a thread for each of NPROC
    if not needs.num_gpus:
        own["JAX_PLATFORMS"] = "cpu"
    elif needs.num_gpus < 1:  # which Ray does not see to
        own |= local.memory(needs.num_gpus)
    return own | {name: os.environ[name] for name in os.environ if name.startswith(_SENT)}


@contextlib.contextmanager
def _stdout_to(path):
    with open(path, "a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


@contextlib.contextmanager
def _quiet():
    """Silences what Ray logs while it starts and stops; errors are raised all the same."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # JAX warns of it, whose threads the processes that Ray begins have no use for.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called")
            yield
    finally:
        logger.setLevel(before)


def _words(error):
    """What an error says, on one line."""
    return f"{' '.join(str(error).split()).removesuffix('.')}."


def _number(count, what):
    return f"{count:g} {what}" + "s" * (count != 1)
