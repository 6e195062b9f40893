"""How a sweep is cut into Ray tasks: what is asked for, what is measured, who gets which runs."""

import json
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from absl import flags

from launch import command, worker
from launch.ray_cluster import Cluster, Needs

_MOST = 5000  # runs of a task, whose names its command line holds
POLL = 1.0  # seconds between two looks at tasks

_FLAGS = {
    "address": flags.DEFINE_string(
        "ray.address",
        "auto",
        "The cluster that this host belongs to (auto), HOST:PORT of a cluster's head, or local: "
        "one of this host alone, which ends with the sweep.",
    ),
    "num_cpus": flags.DEFINE_float("ray.num_cpus", 1.0, "Processor cores of a task.", 0.0),
    "num_gpus": flags.DEFINE_float(
        "ray.num_gpus",
        None,
        "GPUs of a task, or the part of one that it shares; by default one if the cluster has any.",
        0.0,
    ),
    "minutes": flags.DEFINE_float("ray.minutes", 5.0, "Minutes that a task should take.", 0.0),
    "max_retries": flags.DEFINE_integer(
        "ray.max_retries",
        3,
        "How often Ray tries a task again whose node died or whose worker crashed; -1: always.",
        -1,
    ),
    "tasks": flags.DEFINE_integer(
        "ray.tasks", None, "Number of tasks; by default as --ray.minutes makes it.", 1
    ),
}


class Options(NamedTuple):
    """How Ray is used: the flags --ray.address and so on.

    Attributes:
      address: of the cluster.
      num_cpus: processor cores of a task.
      num_gpus: accelerators of a task, or part of one; by default one if the cluster has any.
      minutes: that a task should take.
      max_retries: of a task whose node dies or whose worker crashes; -1 for any number.
      tasks: number of tasks, whatever they take.
    """

    address: str = "auto"
    num_cpus: float = 1.0
    num_gpus: float | None = None
    minutes: float = 5.0
    max_retries: int = 3
    tasks: int | None = None

    @classmethod
    def parse(cls) -> "Options":
        """Reads the flags.

        Raises:
          ValueError: one makes no sense.
        """
        given = cls(**{name: flag.value for name, flag in _FLAGS.items()})
        if not 0 < given.minutes < math.inf:
            raise ValueError(f"--ray.minutes={given.minutes} must be positive.")
        if given.num_gpus and given.num_gpus > 1 and given.num_gpus % 1:
            raise ValueError(
                f"--ray.num_gpus={given.num_gpus} must be a whole number of GPUs, or part of one."
            )
        return given


class Measured(NamedTuple):
    """What a worker in a task can do.

    Attributes:
      seconds_per_example: of training.
      lanes: runs that it trains at a time.
      settings: its speed settings, by what they are for.
    """

    seconds_per_example: float
    lanes: int
    settings: dict[str, dict]


def needs(cluster: Cluster, options: Options) -> Needs:
    """What a task needs of a node.

    Raises:
      ValueError: no node has it.
    """
    gpus = options.num_gpus
    if gpus is None:
        gpus = float(any(node.get("GPU") for node in cluster.nodes()))
    if not options.num_cpus + gpus > 0:
        raise ValueError(f"--ray.num_cpus={options.num_cpus} must be positive without GPUs.")
    found = Needs(options.num_cpus, gpus)
    cluster.check(found)
    return found


def measure(
    cluster: Cluster,
    needs: Needs,
    runs: int,
    options: Options,
    watch: Callable[[], None] = lambda: None,
) -> Measured:
    """Has a task measure what a worker can do there.

    Args:
      cluster: where.
      needs: of a task.
      runs: number of runs.
      options: how Ray is used.
      watch: called every second or so.

    Raises:
      ValueError, ChildProcessError: as `Cluster.result`.
    """
    count = max(1, min(runs, cluster.at_once(needs)))
    words = worker_command("--predict", f"--share=0/{count}")
    task = cluster.submit(words, needs, options.max_retries, "noisegen measures")
    try:
        while not cluster.done([task], POLL):
            watch()
    except BaseException:
        cluster.cancel([task])
        raise
    return Measured(**json.loads(cluster.result(task)))


def deal(
    costs: Mapping[str, int], at_once: int, options: Options, measured: Measured | None
) -> list[list[str]]:
    """Deals runs out to tasks of about equal cost.

    There are as many tasks as are wanted, or so many that each takes the wanted time; at least as
    many as can run at once, if there are so many runs. Beyond that, none has fewer runs than a
    worker trains at a time.

    Args:
      costs: training examples of each run, by run_id.
      at_once: number of tasks that can run at once.
      options: how Ray is used.
      measured: what a worker can do; not needed where the number of tasks is given.

    Returns:
      The run_ids of each task, the costliest first.
    """
    count = options.tasks
    if count is None:
        seconds = measured.seconds_per_example * sum(costs.values())
        count = min(math.ceil(seconds / (60 * options.minutes)), len(costs) // measured.lanes)
        count = max(count, at_once)
    count = max(1, min(count, len(costs)), math.ceil(len(costs) / _MOST))
    dealt = [[] for _ in range(count)]
    for name, index in worker.deal(costs, count).items():
        dealt[index].append(name)
    return dealt


def worker_command(*more: str) -> list[str]:
    """The command of a worker that ends with its task."""
    return command.worker("--tied", *more)
