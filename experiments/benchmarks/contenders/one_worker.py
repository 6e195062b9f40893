"""Works as a worker of `many_workers`, and reports how it spent its time.

python -m experiments.benchmarks.contenders.one_worker WORKDIR EPOCHS SEEDS INDEX/COUNT
"""

import functools
import json
import resource
import sys
import time

from experiments import digits
from launch import cli
from noisegen.sweeps import progress, state, worker
from noisegen.sweeps.experiment import load_experiment

# What a worker does beside training: what there is to do, who does it, what was found.
_BOOKKEEPING = {
    worker.Worker: ("_take", "_finish", "_progress", "_sorted"),
    state.SweepState: ("runs", "todo", "refresh", "extend"),
}

_SPEED = {
    "lanes": 1,
    "lane_devices": 1,
    "microbatch": 32,
    "eval_batch": 16,
    "lanes_per_rare_step": 1,
}


class Stopwatch:
    """Seconds of the calling thread within some methods, those that they call included."""

    def __init__(self):
        self.seconds, self._inside = 0.0, False

    def watch(self, owner: type, name: str) -> None:
        """Has a method's time counted."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def watched(*arguments):
            if self._inside:
                return method(*arguments)
            self._inside, started = True, time.thread_time()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.thread_time() - started
                self._inside = False

        setattr(owner, name, watched)


def main(workdir: str, epochs: str, seeds: str, share: str) -> None:
    """Works until every run has its record; prints seconds of its processor and its memory."""
    cli.prepare_devices()
    config = digits.get_config()
    config.grid.seed, config.best = tuple(range(int(seeds))), 1
    config.run.num_epochs = float(epochs)
    sweep = load_experiment(digits.__file__).get_sweep(config, workdir)
    stopwatch, memory = Stopwatch(), []
    for owner, names in _BOOKKEEPING.items():
        for name in names:
            stopwatch.watch(owner, name)

    class Measured(worker.Worker):
        def _finish(self, result):
            super()._finish(result)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    started = time.process_time()
    index, count = share.split("/")
    options = worker.WorkerOptions(share=(int(index), int(count)), pool=_SPEED)
    with sweep.begun():
        Measured(sweep, options, progress.Observer()).run()
    found = {
        "runs": len(memory),
        "seconds": time.process_time() - started,
        "bookkeeping_seconds": stopwatch.seconds,
        "mib_at_a_tenth": memory[len(memory) // 10],
        "mib_at_the_end": memory[-1],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
