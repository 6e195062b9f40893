"""Launches a sweep's workers, two at a time, and has each kill itself (kill -9) at some moment.

    python tests/launch/chaos.py DEATHS SEED launch.sweep's flags

Moments follow from the seed: after a random time, in the middle of a record, between writing a
claim and showing it, while compiling, while a checkpoint is written. The clock of each worker is
wrong by up to a day. Prints one line a worker: how
it was to die, and its exit status. All are forked from one process, which has imported everything
and begun nothing, so that a death costs a second or two.
"""

import datetime
import os
import random
import signal
import sys
import threading
import warnings


def die_after(seconds):
    timer = threading.Timer(seconds, die)
    timer.daemon = True
    timer.start()


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def plan(rng):
    """A moment: its name, and a function that arranges it in a process that is about to begin."""
    from noisegen.storage import checkpoints, claims, records
    from noisegen.training import program

    nth = rng.randint(1, 6)
    delay = rng.random()

    def calls(action):
        """Does something at the n-th call only."""
        count = iter(range(1, 1 << 30))
        return lambda: next(count) == nth and action()

    def in_record():
        write, due = os.write, calls(lambda: True)

        def half(file, data):
            if due():
                write(file, data[: int(delay * len(data))])
                die()
            return write(file, data)

        records.os = _Module(os, write=half)

    def in_claim():
        due, replace = calls(die), claims.pathlib.Path.replace
        claims.pathlib.Path.replace = lambda *arguments: (due(), replace(*arguments))[1]

    def in_compilation():
        compile_ = program.Program.compile
        program.Program.compile = lambda *a: (die_after(delay), compile_(*a))[1]

    def in_checkpoint():
        save, due = checkpoints.Checkpoints.save, calls(lambda: die_after(delay / 10))
        checkpoints.Checkpoints.save = lambda *a: (due(), save(*a))[1]

    moments = {
        f"after {8 * delay:.2f} s": lambda: die_after(8 * delay),
        f"in record {nth}": in_record,
        f"in claim {nth}": in_claim,
        f"{delay:.2f} s into the compilation": in_compilation,
        f"{delay / 10:.2f} s into checkpoint {nth}": in_checkpoint,
    }
    return rng.choice(list(moments.items()))


class _Module:
    """A module with some names changed."""

    def __init__(self, module, **changed):
        self.__dict__.update(vars(module) | changed)


def skew(seconds):
    """Makes this process's records wrong about the time."""
    from noisegen.sweeps import worker

    class Skewed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=seconds)

    worker.datetime = _Module(datetime, datetime=Skewed)


def start(share, skewed, arrange, words):
    """A worker in a process of its own."""
    if pid := os.fork():
        return pid
    from launch import cli, sweep

    skew(skewed)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    sys.argv = ["launch.sweep", *words, f"--share={share}/2"]
    arrange()
    cli.run(sweep.main)
    os._exit(0)


def main(deaths, seed, *words):
    from launch import sweep  # noqa: F401, so that the workers need not import it each

    warnings.filterwarnings("ignore", message=".*os.fork")
    rng = random.Random(int(seed))
    for _ in range(int(deaths) // 2):
        moments = [plan(rng) for _ in range(2)]
        pids = [
            start(share, rng.uniform(-86400, 86400), arrange, words)
            for share, (_, arrange) in enumerate(moments)
        ]
        for pid, (name, _) in zip(pids, moments, strict=True):
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(f"{name}: {status}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
