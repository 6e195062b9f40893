"""Tools of the tests of commands: processes, waiting, and what a sweep's directory holds."""

import contextlib
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import warnings

from noisegen import storage

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 200  # the longest that anything is waited for

DIGITS = "--config=experiments/digits.py"
# Equal settings of the pool give equal results, bit for bit.
POOL = ("--pool.microbatch=16", "--pool.eval_batch=360", "--pool.lanes_per_rare_step=1")
TWO_LANES = (*POOL, "--pool.lanes=2", "--pool.lane_devices=2")
ONE_LANE = (*POOL, "--pool.lanes=1", "--pool.lane_devices=1")
ONE_CORE = {"JAX_NUM_CPU_DEVICES": "1"}

# A sweep of 12 runs whose best learning rate is the largest, so that the grid must be extended.
SMALL = (
    DIGITS,
    "--config.grid.batch_size=(64, 256)",
    "--config.grid.learning_rate=(0.00390625, 0.0078125, 0.015625)",
    "--config.grid.seed=(0, 1)",
    "--config.best=2",
    "--config.run.eval_every=1.0",
)
TINY = (*SMALL, "--config.run.num_epochs=3.0", *TWO_LANES)
# Two runs that take seconds, to be stopped in the middle.
LONG = (
    DIGITS,
    "--config.grid.batch_size=(16,)",
    "--config.grid.learning_rate=(0.03125,)",
    "--config.grid.seed=(0, 1)",
    "--config.best=2",
    "--config.run.num_epochs=60.0",
    "--config.run.eval_every=15.0",
    *TWO_LANES,
)


def changed(flags, **numbers):
    """Returns flags with other values of fields of the runs."""
    given = {f"--config.run.{name}": value for name, value in numbers.items()}
    kept = [flag for flag in flags if flag.partition("=")[0] not in given]
    assert len(kept) == len(flags) - len(given)
    return (*kept, *(f"{name}={value}" for name, value in given.items()))


def command(module, *flags):
    """Returns the command `python -m launch.<module>`."""
    return [sys.executable, "-m", f"launch.{module}", *flags]


class Forks:
    """Runs commands in forks of a process that has imported what they need and started nothing."""

    def __init__(self, folder):
        self._folder = folder
        self._count = itertools.count()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.launch.preloaded"])
        multiprocessing.forkserver.ensure_running()  # with the variables of now

    def run(self, words, environment):
        """Returns the same as `subprocess.run`, whose output is captured as text."""
        number = next(self._count)
        printed = [self._folder / f"{number}.{name}" for name in ("stdout", "stderr")]
        process = self._context.Process(target=_become, args=(words, environment, printed))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, SECONDS)
        texts = [path.read_text() for path in printed]
        return subprocess.CompletedProcess(words, process.exitcode, *texts)


def _become(words, environment, printed):
    """Makes this process what `words` would start."""
    for number, path in enumerate(printed, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), number)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.orig_argv[:] = words
    _, _, module, *sys.argv[1:] = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def printed_report(stdout):
    """Returns the answers and tables that a command printed, without commands and paths."""
    lines = stdout.split("\nReport: ")[0].splitlines()
    return [line for line in lines if "launch.sweep" not in line]


def tables(workdir):
    """Returns the content of the tables of a sweep's report."""
    return {path.name: path.read_bytes() for path in workdir.glob("table*.*")}


def metrics(workdir):
    """Returns metrics, curve and status of each run that has a record."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torn lines
        records = storage.read_records(workdir)
    return {each.run_id: (each.metrics, each.curve, each.status) for each in records}


def num_lines(workdir):
    """Returns the number of records, those of runs that were trained twice included."""
    return sum(path.read_bytes().count(b"\n") for path in workdir.glob("records/*.jsonl"))


def training(workdir):
    """Returns the process ids of workers that train."""
    return [w.pid for w in storage.read_workers(workdir) if w.runs and w.doing == "training"]


def wait_until(condition, process=None, seconds=SECONDS):
    """Waits for a condition while a process goes on, and returns what the condition gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate())
        time.sleep(0.002)
    return value


def alive(pid):
    """Returns whether a process runs. One that ended and was not waited for does not."""
    with contextlib.suppress(OSError):
        state = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
        return state not in (b"Z", b"X")
    return False


@contextlib.contextmanager
def running(words, environment, **more):
    """A process that does not outlive the context."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes)
    try:
        yield process
    finally:
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()  # so that it stops its workers
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def last_error(done):
    """Returns the one line with which a command is refused."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: "), done.stderr
    return line
