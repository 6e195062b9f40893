"""Trains the runs of a sweep whose directory is begun; executors start this command.

python -m launch.worker --workdir=sweeps/digits --experiment=experiments/digits.py --options='{}'
"""

import json
import os
import signal
import threading
import time

from absl import flags

from noisegen.sweeps import Sweep
from noisegen.sweeps.progress import Display
from noisegen.sweeps.sweep_json import warn_if_changed
from noisegen.sweeps.worker import Worker, WorkerOptions

from . import cli, multihost

_GRACE_SECONDS = 30.0  # in which a worker that stops checkpoints its runs

_EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "The experiment's file, with its scale after a colon."
)
_OPTIONS = flags.DEFINE_string("options", "{}", "Fields of WorkerOptions, as JSON.")
_EXIT_WITH_STDIN = flags.DEFINE_bool("exit_with_stdin", False, "Stop when standard input ends.")


def main(argv: list[str]) -> None:
    """Trains runs of the sweep in --workdir."""
    cli.no_arguments(argv)
    if _EXIT_WITH_STDIN.value:
        _exit_with_stdin()
    cli.check_devices()
    work(cli.workdir(cli.WORKDIR.value), _EXPERIMENT.value, json.loads(_OPTIONS.value))


def work(workdir: str, experiment: str | None, options: dict) -> None:
    """Works on a sweep until every run has its record.

    Args:
      workdir: Directory of the sweep.
      experiment: The experiment's file, with its scale after a colon.
      options: Fields of `WorkerOptions`, as JSON holds them.

    Raises:
      KeyboardInterrupt: If a signal asked the process to stop. The runs in training have been
        checkpointed.
    """
    options = WorkerOptions(**options | {"share": tuple(options.get("share", (0, 1)))})
    with cli.usage_errors():
        sweep = Sweep.open(workdir, experiment)
    if multihost.is_follower():
        multihost.follow(sweep, options)
        return
    with cli.usage_errors():
        warn_if_changed(sweep)
        sweep.validate()
        if options.keep_params:
            sweep.state.discard_damaged_params()
    make_worker(sweep, options).run()


def make_worker(sweep: Sweep, options: WorkerOptions) -> Worker:
    """Returns the worker of this process, which leads the others if several are joined."""
    kind = multihost.MultihostWorker if multihost.is_joined() else _Worker
    return kind(sweep, options, Display(sweep))


class _Worker(Worker):
    """A worker that shows in one line if settings of the pool do not suit the task."""

    make_pool = cli.usage_errors()(Worker.make_pool)
    choose_config = cli.usage_errors()(Worker.choose_config)


def _exit_with_stdin():
    """Stops this process when its standard input ends.

    The pipe of a parent process ends with the parent, even if it is killed.
    """

    def wait():
        while os.read(0, 1):  # returns nothing once the pipe is closed
            pass
        # As a signal, so that the main thread checkpoints its runs.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(cli.INTERRUPTED)  # it hangs

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    cli.run(main)
