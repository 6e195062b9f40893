"""What the commands share: devices, errors, records."""

import collections
import contextlib
import datetime
import functools
import importlib.metadata
import logging
import os
import pathlib
import platform
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
from absl import app, flags

import noisegen
from launch.experiment import Experiment
from noisegen import reports, sweeps, training
from noisegen.data import cache
from noisegen.training import Settings, Task

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
_GRACE = 30.0  # seconds in which a process that has to stop keeps what it has

# What a flag, or a config's file, may raise.
_UNREADABLE = (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError, ImportError)
_OURS = ("__main__", "launch", "noisegen", "ml_collections")


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command; what the user can mend is one line on stderr and exit code 1.

    An error in the user's own code keeps its traceback, unless it is of a file or an import.
    """
    warnings.showwarning = lambda message, *_: _warn(str(message))
    logging.getLogger("jax").setLevel(logging.WARNING)  # else JAX remarks that there is no TPU
    prepare_devices()

    def guarded(argv):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells of every step it takes
        try:
            main(argv)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads what is printed, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            leave(1)
        except KeyboardInterrupt:
            leave(INTERRUPTED)
        except (ValueError, OSError, ImportError) as error:
            _exit(error)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(
                "error: This does not fit the memory of the device: give smaller --lanes, "
                f"--microbatch, --eval_batch or --group. {str(error).splitlines()[0]}",
                file=sys.stderr,
            )
            leave(1)

    app.run(guarded, flags_parser=_parse_flags)


def leave(code: int) -> NoReturn:
    """Ends the program; where it is one of several processes, without waiting for the others.

    They may wait for this one in turn, until JAX ends them.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def no_arguments(argv: list[str]) -> None:
    """Refuses words that are no flags: most often a forgotten `--`."""
    if argv[1:]:
        raise ValueError(f"Unexpected argument {argv[1]!r}; flags begin with --.")


def required(flag: flags.FlagHolder, what: str) -> str:
    """The value of a flag that must be given."""
    if not flag.value:
        raise ValueError(f"Missing --{flag.name}=..., {what}.")
    return flag.value


def prepare_devices() -> None:
    """One device for each processor core, where the processor is what trains; a compilation cache.

    Must come before JAX is first used. What the user set in JAX_NUM_CPU_DEVICES and
    JAX_COMPILATION_CACHE_DIR stays.
    """
    if jax.config.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", num_cores())
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", _compilation_cache())


def _compilation_cache():
    """The directory of compiled programs; None, with a warning, where there is no place for one."""
    try:
        path = cache.directory() / "xla"
        if cache.can_be_written(path):
            return str(path)
        why = f"{path} cannot be written"
    except OSError as error:
        why = str(error)
    warnings.warn(
        f"programs are compiled anew at each start: {why}; name a writable directory with "
        "NOISEGEN_CACHE_DIR",
        stacklevel=3,
    )
    return None


def record(task: Task, settings: Settings, result: training.Result) -> dict[str, Any]:
    """The record of a run."""
    return {
        "run_id": sweeps.run_id(task.name, result.run),
        "run": dict(result.run),
        "status": result.status,
        "diverged_at": result.diverged_at,
        "metrics": result.metrics,
        "num_updates": result.num_updates,
        "num_examples": result.num_examples,
        "seconds": round(result.seconds, 3),
        "device": _device(),
        "versions": _versions(),
        "settings": {k: v for k, v in vars(settings).items() if v is not None},
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "curve": result.curve,
    }


@contextlib.contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """Has `stop` called at the signals with which people, Slurm and the system end a process."""
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in wanted}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt() -> NoReturn:
    """Does what Ctrl-C does; for `signals`."""
    raise KeyboardInterrupt


def worker(*more: str) -> list[str]:
    """The command of a worker that another process starts: the user's own, with other flags."""
    given = [word for word in sys.orig_argv[1:] if word != "--dry_run"]
    return [sys.executable, *given, "--launcher=local", "--nodry_run", "--workers=", *more]


def stop_with_input() -> None:
    """Has this process stop, as by SIGTERM, when its standard input ends.

    A pipe from the process that started it ends with that process, however it ends.
    """

    def wait():
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


def report(exp: Experiment, workdir: str) -> None:
    """Writes a sweep's report and prints its table."""
    page = reports.write_report(workdir, exp.protocols, exp.runs, exp.published)
    for name in reports.table_names(exp.protocols):
        print(pathlib.Path(workdir, f"{name}.txt").read_text(encoding="utf-8"))
    print(f"Report: {page}")


def num_cores() -> int:
    """Processor cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def devices() -> str:
    """Number and kind of the devices that JAX computes on."""
    return f"{len(jax.devices())} x {jax.devices()[0].device_kind}"


def processor() -> str:
    """Name of the processor."""
    listing = pathlib.Path("/proc/cpuinfo")  # Linux has it
    model = re.search(r"model name\s*: (.+)", listing.read_text() if listing.exists() else "")
    return model[1] if model else platform.processor()


def _parse_flags(argv):
    """Parses flags; one that cannot be taken is one line."""
    given = collections.Counter(word.partition("=")[0] for word in argv)
    try:
        for name, count in given.items():
            if name.startswith("--config.") and count > 1:  # lists would be joined
                raise ValueError(f"{name} is given twice; give it once.")
        return flags.FLAGS(argv)
    except _UNREADABLE as error:
        _exit(error)


def _exit(error):
    """Ends the program: with one line if the user's words are wrong, else with the traceback."""
    if not isinstance(error, OSError | ImportError | flags.Error):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].partition(".")[0] not in _OURS:
            raise error
    message = _message(error)
    one_line = message if "Traceback" in message else " ".join(message.split())
    print(f"error: {one_line}", file=sys.stderr, flush=True)
    leave(1)


# What one of the project's own experiments says of its config, within a traceback.
_REFUSED = re.compile(
    rf'File "{re.escape(str(pathlib.Path(__file__).parents[1] / "experiments"))}[^"]*"'
    r'[^"]*\nValueError: (.*)\s*$'
)


def _message(error):
    """The message of an error, without what Python and ml_collections put around it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    if said := _REFUSED.search(str(error)):
        return said[1]
    if "has no attribute 'get_config'" in str(error):
        return "the file of --config defines no get_config(): it is no experiment"
    if "get_config() takes 0 positional arguments" in str(error):
        return "the experiment of --config has no scales: leave the colon and what follows it out"
    if isinstance(error, AttributeError | KeyError):
        return f"the config has no such field: {error.args[0]}"
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


@functools.cache  # so that each is said once
def _warn(text):
    print(f"warning: {text}", file=sys.stderr)


@functools.cache
def _device():
    """What trains: the accelerators, or the processor."""
    if jax.default_backend() != "cpu":
        return devices()
    several = f"{jax.process_count()} processes, " if jax.process_count() > 1 else ""
    return f"{several}{num_cores()} cores of {processor()}"


@functools.cache
def _versions():
    names = ("jax", "flax", "optax")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"noisegen": noisegen.__version__} | versions
