"""Devices, errors and reports, which the commands share."""

import contextlib
import functools
import logging
import os
import pathlib
import re
import shlex
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax
from absl import app, flags

from launch import fields, files, machine, streams
from launch.experiment import Experiment
from noisegen import reports
from noisegen.data import cache
from noisegen.sweeps import texts

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
_GRACE = 30.0  # seconds in which a process that has to stop keeps what it has

_OURS = ("__main__", "launch", "noisegen", "absl")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(gs|s3):/")
_has_input = True
_overrides: list[tuple[str, str | None]] = []  # fields that the command line gives, and values


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command; what the user can mend is one line on stderr and exit code 1.

    An error in the user's own code keeps its traceback, unless it is of a file or an import.
    Nothing that is printed can fail a command: where standard output breaks, it works on, and says
    so in the end, unless its reader has merely seen enough.
    """
    global _has_input
    _has_input = streams.guard()
    warnings.showwarning = lambda message, *_: _warn(str(message))
    logging.getLogger("jax").setLevel(logging.WARNING)  # else JAX remarks that there is no TPU

    def guarded(argv):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells of every step it takes
        try:
            check_here()
            prepare_devices()
            main(argv)
        except KeyboardInterrupt:
            leave(INTERRUPTED)
        except (ValueError, OSError, ImportError) as error:
            _exit(error)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            _fail(
                "This does not fit the memory of the device: give smaller --lanes, "
                f"--microbatch, --eval_batch or --lanes_per_rare_step. {str(error).splitlines()[0]}"
            )
        if error := streams.lost():
            if not isinstance(error, BrokenPipeError):
                _fail(f"Standard output cannot be written to ({error.strerror}); all else is done.")
            leave(1)  # the reader, `head` say, has seen enough

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


def no_arguments(argv: list[str], overrides: bool = False) -> None:
    """Refuses words that are no flags, most often a forgotten `--`, and fields of a config.

    Args:
      argv: The words, the program's name first.
      overrides: If the command takes fields of a config.
    """
    if argv[1:]:
        raise ValueError(f"Unexpected argument {argv[1]!r}; flags begin with --.")
    if _overrides and not overrides:
        raise ValueError(
            f"--config.{_overrides[0][0]} cannot be given here: the sweep's directory says it."
        )


def overrides() -> list[tuple[str, str | None]]:
    """Returns the fields of the experiment's config that the command line overrides."""
    return list(_overrides)


def required(flag: flags.FlagHolder, what: str) -> str:
    """The value of a flag that must be given."""
    if not flag.value:
        raise ValueError(f"Missing --{flag.name}=..., {what}.")
    return flag.value


def workdir(flag: flags.FlagHolder) -> str | None:
    """Returns the directory that a flag names, with its `~` replaced; None if it names none.

    Raises:
      ValueError: If it is no path of a file system.
    """
    text = flag.value
    if text is None:
        return None
    if _URL.match(text) and not pathlib.Path(text).exists():
        raise ValueError(
            f"--{flag.name}={text} is no directory of a file system: give a local or mounted one, "
            "and copy it to the bucket when the sweep is done."
        )
    return str(files.expanded(text))


def check_here() -> None:
    """Checks that there is a current directory.

    Raises:
      FileNotFoundError: If it was deleted.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError(
            "The current directory was deleted; change to one that is there."
        ) from None


def check_devices() -> None:
    """Checks that JAX finds the devices that it is to compute on.

    Raises:
      ValueError: If it finds no device of JAX_PLATFORMS.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        wanted = jax.config.jax_platforms
        if not wanted:
            raise
        raise ValueError(no_devices(str(error), wanted)) from error


def no_devices(said: str, wanted: str | None = None) -> str:
    """Returns one line that says that JAX found no device, from its own message.

    Args:
      said: JAX's message.
      wanted: The platforms that JAX looked for; by default those of JAX_PLATFORMS.
    """
    if wanted is None:
        wanted = os.environ.get("JAX_PLATFORMS", "")
    last = [line for line in said.splitlines() if ": " in line][-1:]
    if not wanted:
        return f"JAX finds no device here. {' '.join(last)}"
    return (
        f"JAX_PLATFORMS={wanted}: JAX finds no such device here; unset it to have JAX take what "
        f"there is, or give JAX_PLATFORMS=cpu. {' '.join(last)}"
    )


def prepare_devices() -> None:
    """One device for each processor core, where the processor is what trains; a compilation cache.

    Must come before JAX is first used. What the user set in JAX_NUM_CPU_DEVICES and
    JAX_COMPILATION_CACHE_DIR stays.
    """
    if jax.config.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", machine.num_cores())
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", _compilation_cache())


def _compilation_cache():
    """Returns the directory of compiled programs, or None, with a warning, if it has no place."""
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

    Raises:
      ValueError: If there is no standard input.
    """
    if not _has_input:
        raise ValueError("--tied needs a standard input, but it is closed.")

    def wait():
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


def check_report(exp: Experiment) -> None:
    """Checks that the report of a sweep can be made, as far as that is known before it is trained.

    Raises:
      ValueError: If its tables cannot.
    """
    try:
        reports.check(exp.protocols, exp.runs, exp.published, exp.title, exp.description)
    except Exception as error:
        raise ValueError(f"{exp.path}: no report could be made: {_named(error)}") from error


def report_at_end(exp: Experiment, workdir: str) -> None:
    """Writes the report of a sweep that is trained.

    Raises:
      ValueError: If it cannot be written; says how it can later.
    """
    try:
        report(exp, workdir)
    except Exception as error:
        again = shlex.join(["python", "-m", "launch.report", f"--workdir={workdir}"])
        raise ValueError(
            f"All runs are trained and kept in {workdir}, but the report cannot be written: "
            f"{_named(error)} When that is mended: {again}"
        ) from error


def report(exp: Experiment, workdir: str) -> None:
    """Writes a sweep's report and prints its table."""
    page = reports.write_report(workdir, exp.protocols, exp.runs, exp.published)
    for name in reports.table_names(exp.protocols):
        show(pathlib.Path(workdir, f"{name}.txt").read_text(encoding="utf-8"))
    show(f"Report: {page}")


def show(text: str) -> None:
    """Prints a text in characters that standard output has."""
    print(texts.for_encoding(text, sys.stdout.encoding))


def _parse_flags(argv):
    """Parses flags; one that cannot be taken is one line."""
    try:
        if "config" in flags.FLAGS:
            argv, given = fields.take(argv)
            _overrides[:] = given
        return flags.FLAGS(argv)
    except (flags.Error, ValueError, OSError) as error:
        _exit(error)


def _exit(error):
    """Ends the program: with one line if the user's words are wrong, else with the traceback."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    ours = frame.f_globals["__name__"].partition(".")[0] in _OURS
    of_a_file = isinstance(error, OSError | ImportError | flags.Error)
    if not ours and (not of_a_file or isinstance(error, ConnectionError)):
        raise error
    _fail(_message(error))


def _fail(message):
    """Ends the program with one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    leave(1)


def _named(error):
    """Returns an error's message; adds kind and place unless it was written for users."""
    message = _message(error)
    if not isinstance(error, ValueError | OSError | ImportError):
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        message = f"{type(error).__name__}: {message} ({frame.f_code.co_filename}, line {line})"
    return f"{message.removesuffix('.')}."


def _message(error):
    """Returns an error's message without the parts that Python adds."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


@functools.cache  # so that each is said once
def _warn(text):
    print(f"warning: {text}", file=sys.stderr)
