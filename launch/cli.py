"""Runs a command: flags, errors as one line, exit codes, devices and the compilation cache.

Every module of this package imports this one, and this one imports no other command.
"""

import functools
import logging
import os
import pathlib
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import app, flags

from noisegen.data import cache
from noisegen.sweeps import encoding, experiment_files, machine

from . import config_flags, streams

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep: records and report.")
CONFIG = flags.DEFINE_string(
    "config",
    None,
    "The experiment's file or module, with a scale after a colon if it has scales. For a new sweep "
    "--config.NAME=VALUE overrides a field of its config.",
)

# An error raised in one of these modules is written for users. Any other is a bug, ours or
# theirs, and keeps its traceback.
_OURS = ("__main__", "launch", "noisegen", "absl", "experiments.scales")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(gs|s3):/")
_overrides: list[tuple[str, str | None]] = []  # fields that the command line gives, with values


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command with the flags of the command line.

    Errors that the user can correct are one line on stderr, with exit code 1. If standard output
    breaks, the command finishes its work and then reports it.

    Args:
      main: The command. Its argument is the program's name and the words that are no flags.
    """
    streams.guard()
    app.run(lambda argv: guarded(main, argv), flags_parser=_parse_flags)


def guarded(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function with the devices prepared; an error of the user's is one line.

    Args:
      function: What the command does.
      *arguments: Its arguments.

    Raises:
      SystemExit: If the function fails or is interrupted.
    """
    warnings.showwarning = lambda message, *_: _warn(str(message))
    logging.getLogger("jax").setLevel(logging.WARNING)  # JAX remarks that there is no TPU
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs every step
    try:
        _check_current_directory()
        prepare_devices()
        function(*arguments)
    except KeyboardInterrupt:
        leave(INTERRUPTED)
    except (ValueError, OSError, ImportError) as error:
        _exit(error)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # JAX has one class for all errors
            raise
        fail(
            "This does not fit the memory of the device: give smaller --pool.lanes, "
            f"--pool.microbatch or --pool.eval_batch. {str(error).splitlines()[0]}"
        )
    error = streams.lost()
    if isinstance(error, BrokenPipeError):  # the reader, `head` for example, has seen enough
        leave(1)
    if error:
        fail(f"Standard output cannot be written to ({error.strerror}); all else is done.")


def leave(code: int) -> NoReturn:
    """Ends the program. One of several joined processes ends without waiting for the others."""
    if jax.distributed.is_initialized():
        # The other processes may wait for this one until JAX ends them, minutes later.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 1."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    leave(1)


def show(text: str) -> None:
    """Prints a text, with characters that standard output lacks replaced."""
    print(encoding.for_encoding(text, sys.stdout.encoding))


def no_arguments(argv: list[str]) -> None:
    """Refuses words that are no flags, most often a forgotten `--`.

    Raises:
      ValueError: If there is one.
    """
    if argv[1:]:
        raise ValueError(f"Unexpected argument {argv[1]!r}; flags begin with --.")


def overrides() -> list[tuple[str, str | None]]:
    """Returns names and values of the config's fields that the command line overrides."""
    return list(_overrides)


def no_overrides() -> None:
    """Refuses fields of the config.

    Raises:
      ValueError: If the command line gives one.
    """
    if _overrides:
        raise ValueError(
            f"--config.{_overrides[0][0]} cannot be given here: the sweep's directory has the "
            "config of its sweep."
        )


def workdir(required: bool = True) -> str | None:
    """Returns the directory that --workdir names, or None if it names none.

    Args:
      required: Whether it must name one.

    Raises:
      ValueError: If it is required and missing, or is no path of a file system.
    """
    text = WORKDIR.value
    if not text:
        if required:
            raise ValueError("Missing --workdir=..., the sweep's directory, such as sweeps/digits.")
        return None
    if _URL.match(text) and not pathlib.Path(text).exists():
        raise ValueError(
            f"--workdir={text} is no directory of a file system: give a local or mounted one, and "
            "copy it to the bucket when the sweep is done."
        )
    return str(experiment_files.expanded(text))


def check_devices() -> None:
    """Checks that JAX finds a device to compute on.

    Raises:
      ValueError: If it finds no device of the platforms in JAX_PLATFORMS.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(no_devices(str(error))) from error


def no_devices(said: str) -> str:
    """Returns one line that says that JAX finds no device.

    Args:
      said: JAX's own message.
    """
    last = [line for line in said.splitlines() if ": " in line][-1:]
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if not wanted:
        return f"JAX finds no device here. {' '.join(last)}"
    return (
        f"JAX_PLATFORMS={wanted}: JAX finds no such device here; unset it to use any device there "
        f"is, or give JAX_PLATFORMS=cpu. {' '.join(last)}"
    )


def prepare_devices() -> None:
    """Makes each processor core a device, and sets the directory of compiled programs.

    Must come before JAX is first used. Settings in JAX_NUM_CPU_DEVICES and
    JAX_COMPILATION_CACHE_DIR have precedence.
    """
    if jax.config.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", machine.num_cores())
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", _compilation_cache())


def explained(error: Exception) -> str:
    """Returns an error's message, with its kind and place unless it was written for users."""
    message = _message(error)
    if not isinstance(error, ValueError | OSError | ImportError):
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        message = f"{type(error).__name__}: {message} ({frame.f_code.co_filename}, line {line})"
    return f"{message.removesuffix('.')}."


def _check_current_directory():
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError(
            "The current directory was deleted; change to one that exists."
        ) from None


def _compilation_cache():
    """Returns the directory of compiled programs. Warns and returns None if it has no place."""
    try:
        path = cache.directory() / "xla"
        if cache.can_be_written(path):
            return str(path)
        why = f"{path} cannot be written"
    except OSError as error:
        why = str(error)
    warnings.warn(
        f"programs are compiled again at each start: {why}; name a writable directory with "
        "NOISEGEN_CACHE_DIR",
        stacklevel=3,
    )
    return None


def _parse_flags(argv):
    """Parses the command line; flags of the config's fields are kept for `overrides`."""
    try:
        argv, _overrides[:] = config_flags.take(argv)
        return flags.FLAGS(argv)
    except (flags.Error, ValueError, OSError) as error:
        _exit(error)


def _exit(error):
    """Ends the program with one line if the error is the user's, else with the traceback."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals["__name__"] + "."
    ours = any(module.startswith(f"{name}.") for name in _OURS)
    # Files, imports and flags are the user's even if Python itself finds the error.
    of_a_file = isinstance(error, OSError | ImportError | flags.Error)
    if not ours and (not of_a_file or isinstance(error, ConnectionError)):
        raise error
    fail(_message(error))


def _message(error):
    """Returns an error's message without the parts that Python adds."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


@functools.cache  # so that each warning is shown once
def _warn(text):
    print(f"warning: {text}", file=sys.stderr)
