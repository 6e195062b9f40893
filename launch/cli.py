"""Runs a command: flags, errors as one line, exit codes, devices and the compilation cache.

Commands import this module. It imports no command.

Four kinds of errors count as the user's to correct, and are shown in one line:

* a `UsageError`. Commands read and check the command line, the experiment and the directory within
  `usage_errors`, where every ValueError and ImportError becomes one, and every other error of the
  experiment's own code. Training is outside, so an error there keeps its traceback.
* a `flags.Error`, such as that of an unknown flag.
* an OSError at any time, such as that of a full disk.
* JAX's RESOURCE_EXHAUSTED, of settings that do not fit the memory of the device.

With NOISEGEN_TRACEBACK=1 in the environment, their tracebacks come first.
"""

import contextlib
import dataclasses
import errno
import functools
import gc
import logging
import os
import pathlib
import re
import shlex
import stat
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from absl import app, flags
from ml_collections import config_dict

from noisegen import training
from noisegen._errors import one_line
from noisegen.data import cache
from noisegen.sweeps import Sweep, encoding, experiment_files, machine
from noisegen.sweeps.experiment import Experiment, load_experiment
from noisegen.training.config import describe_devices, num_devices

from . import config_flags, streams

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep: records and report.")
CONFIG = flags.DEFINE_string(
    "config",
    None,
    "The experiment's file or module, with a scale after a colon if it has scales. For a new sweep "
    "--config.NAME=VALUE overrides a field of its config.",
    allow_overwrite=False,
)

# The address of a bucket. Python would make a directory named `gs:`.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(gs|s3):/")

# An option of the library at the beginning of a message, such as "share=(3, 2)".
_OPTION = re.compile(r"(\w+)=")
# A performance setting anywhere in a message, such as "PoolConfig: lanes=0 must be ..." or "must be
# a multiple of batch_devices=2". A run may have a field of the same name. Words as common as `data`
# are settings only after "PoolConfig".
_SETTINGS = {each.name for each in dataclasses.fields(training.PoolConfig)} - {"data", "precision"}
_SETTING = re.compile(
    rf"PoolConfig: (\w+)=|(?<!Run field )(?<![\w.])({'|'.join(sorted(_SETTINGS))})="
)
_SETTING_IN_PYTHON = re.compile(r"PoolConfig\((\w+)='(\w+)'\)")


class UsageError(ValueError):
    """An error that the user can correct. It is shown in one line."""


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turns each ValueError and ImportError in this context into a UsageError.

    Errors of other kinds become a UsageError if they passed through the experiment's file. The
    message then names the line of the file. Options of the library that have a flag are named by
    their flag: performance settings anywhere in a message, others at its beginning.
    """
    try:
        yield
    except UsageError:
        raise
    except (ValueError, ImportError) as error:
        raise UsageError(f"{_with_flag(str(error))}{_place(error)}") from error
    except (OSError, flags.Error, jax.errors.JaxRuntimeError):
        raise  # `guarded` shows these.
    except Exception as error:
        place = _place(error)
        if not place:  # A fault of noisegen, not of the experiment.
            raise
        raise UsageError(f"{one_line(error).removesuffix('.')}{place}") from error


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command with the flags of the command line.

    If standard output breaks, the command finishes its work and then reports it.

    Args:
      main: The command. Its argument is the program's name, the words that are no flags, and the
        flags of the experiment's config.
    """
    streams.guard()
    app.run(lambda argv: guarded(main, argv), flags_parser=_parse_flags)


def guarded(function: Callable[..., None], *arguments: Any) -> None:
    """Prepares the devices and calls a function; ends the program if it fails.

    Args:
      function: The work of the command.
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
    except (UsageError, flags.Error, OSError) as error:
        _exit(error)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # JAX has one class for all errors
            raise
        fail(
            "This does not fit the memory of the device: give smaller --pool.lanes, "
            "--pool.microbatch or --pool.eval_batch, or, if it is the data that do not fit, "
            f"--pool.data=host. {str(error).splitlines()[0]}"
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


def stopped(text: str) -> NoReturn:
    """Ends the program after Ctrl-C, with a text and how to resume on stderr."""
    words = ["noisegen", *sys.orig_argv[2:]] if is_installed() else sys.orig_argv
    resume = f"To resume, give the same command again:\n  {shlex.join(words)}"
    print(f"{text} {resume}", file=sys.stderr)
    leave(INTERRUPTED)


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 1."""
    # Programs that start workers, and tests, find the line by its first word.
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    leave(1)


def show(text: str) -> None:
    """Prints a text. Characters that standard output lacks are replaced."""
    print(encoding.for_encoding(text, sys.stdout.encoding))


def command(name: str) -> list[str]:
    """Returns the words that start a command: in a clone `python -m launch.NAME`."""
    if is_installed():
        return ["noisegen", name]
    return ["python", "-m", f"{__package__}.{name}"]


def is_installed() -> bool:
    """Returns whether the user typed `noisegen`, the command that pip installs."""
    # The first word is the interpreter, the second its script.
    return [pathlib.Path(word).name for word in sys.orig_argv[1:2]] == ["noisegen"]


def no_arguments(argv: list[str]) -> None:
    """Refuses words that are no flags, most often a forgotten `--`.

    Raises:
      UsageError: If there is one.
    """
    if argv[1:]:
        raise UsageError(
            f"Unexpected argument {argv[1]!r}: flags begin with --, and --help lists them."
        )


def flag_or_word(flag: flags.FlagHolder[str], argv: list[str]) -> str | None:
    """Returns the value of a flag, or the only word of the command line in its place.

    Raises:
      UsageError: If there are other words.
    """
    if flag.value is None and argv[1:]:
        no_arguments(argv[1:])
        return argv[1]
    no_arguments(argv)
    return flag.value


def workdir(text: str | None) -> str:
    """Returns the directory of a sweep.

    Args:
      text: The directory as the user names it.

    Raises:
      UsageError: If it is missing, is no path of a file system, or cannot be a directory.
    """
    if not text:
        raise UsageError("Missing --workdir=..., the sweep's directory, such as sweeps/digits.")
    if _URL.match(text) and not pathlib.Path(text).exists():
        raise UsageError(
            f"--workdir={text} is no directory of a file system: give a local or mounted one, and "
            "copy it to the bucket when the sweep is done."
        )
    return str(directory("--workdir", text))


def directory(flag: str, text: str) -> pathlib.Path:
    """Returns the path that a flag names, a directory or a place for a new one.

    Args:
      flag: The flag, with its dashes.
      text: The path as the user names it.

    Raises:
      UsageError: If it cannot be a directory.
    """
    try:
        path = experiment_files.expanded(text)
        _check_directory(path)
    except OSError as error:
        raise UsageError(
            f"{flag}={text} cannot be used: {error.strerror}; choose another directory."
        ) from error
    return path


def _check_directory(path: pathlib.Path) -> None:
    """Checks that a path is a directory that can be read, or can become a directory.

    Raises:
      OSError: If it is not.
    """
    for existing in (path, *path.parents):
        try:
            is_directory = stat.S_ISDIR(os.stat(existing).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not is_directory:
            raise NotADirectoryError(errno.ENOTDIR, f"{existing} is a file, not a directory")
        if existing == path:
            os.scandir(path).close()  # Raises PermissionError if it cannot be read.
        return


def read_experiment(
    argv: list[str], prepare: Callable[[], None]
) -> tuple[Experiment, config_dict.ConfigDict]:
    """Loads the experiment that the command line names, and overrides fields of its config.

    Args:
      argv: The program's name, the words that are no flags, and the flags of the config.
      prepare: Called before the experiment is loaded, which may use JAX: chooses the devices.

    Raises:
      UsageError: If no experiment is named, or there are other words.
    """
    words = [word for word in argv[1:] if not word.startswith("-")]
    name = CONFIG.value or next(iter(words), None)
    if not name:
        if is_installed():
            raise UsageError(
                "Missing the experiment's file, such as my_experiment.py; "
                "`noisegen init my_experiment.py` writes one to start from."
            )
        raise UsageError("Missing --config=..., an experiment, such as experiments/digits.py.")
    prepare()
    experiment = load_experiment(name)
    config = experiment.get_config()
    # Only now is it known which words are flags of the config. Others are refused.
    flag_or_word(CONFIG, config_flags.override(config, argv))
    return experiment, config


def check_pool(given: Mapping[str, Any], *, is_here: bool = True) -> None:
    """Checks the given settings of the pool before anything is begun.

    Args:
      given: Fields of `training.PoolConfig`.
      is_here: Whether this process trains, so that its devices must suffice.

    Raises:
      ValueError: If the settings make no sense, or need more devices than there are.
    """
    # The other settings are measured later. Here the smallest valid ones take their place.
    lanes, batch = given.get("lane_devices", 1), given.get("batch_devices", 1)
    wanted = num_devices(given)
    training.PoolConfig(**{"lanes": lanes, "microbatch": batch, "eval_batch": batch, **given})
    if is_here and wanted > jax.device_count():
        raise UsageError(
            f"{describe_devices(given, '--pool.')} is {wanted} devices; there are "
            f"{jax.device_count()}."
        )


def open_sweep(argv: list[str]) -> Sweep:
    """Returns the sweep of the directory that the command line names, to be read."""
    gc.disable()  # with 100,000 records it would take a third of the time, and free nothing
    return Sweep.open(workdir(flag_or_word(WORKDIR, argv)), CONFIG.value)


def check_devices() -> None:
    """Checks that JAX finds a device to compute on.

    Raises:
      UsageError: If it finds no device of the platforms in JAX_PLATFORMS.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(no_devices(str(error))) from error


def no_devices(said: str) -> str:
    """Returns one line that says that JAX finds no device.

    Args:
      said: JAX's own message.
    """
    # JAX lists what it tried, the reason in the last line.
    last = [line for line in said.splitlines() if ": " in line][-1:]
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if not wanted:
        return f"JAX finds no device here. {' '.join(last)}"
    return (
        f"JAX_PLATFORMS={wanted}: JAX finds no such device here; unset it to use any device there "
        f"is, or give JAX_PLATFORMS=cpu. {' '.join(last)}"
    )


_JAX_KEEPS_FROM = 1.0  # seconds of compilation, JAX's default


def prepare_devices() -> None:
    """Makes each processor core a device, and sets the directory of compiled programs.

    Must come before JAX is first used. Settings in JAX_NUM_CPU_DEVICES and
    JAX_COMPILATION_CACHE_DIR have precedence. Programs are kept if they took 0.1 seconds to
    compile, unless JAX's limit of a second was changed.
    """
    # Small batches leave most cores of one device idle, so the lanes spread over several.
    if jax.config.jax_num_cpu_devices < 0:  # JAX's default
        jax.config.update("jax_num_cpu_devices", machine.num_cores())
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", _compilation_cache())
    # The checks of a task are several programs of tenths of a second.
    if jax.config.jax_persistent_cache_min_compile_time_secs == _JAX_KEEPS_FROM:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _check_current_directory() -> None:
    """Checks that the current directory exists. Python's own error names no directory."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError(
            "The current directory was deleted; change to one that exists."
        ) from None


def _compilation_cache() -> str | None:
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


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags of the command; returns the words that are left.

    The fields of the experiment's config are not known yet, so their flags are left, too.
    """
    try:
        words = flags.FLAGS(argv, known_only=True)
        config_flags.check_others(words)
        return words
    except (flags.Error, ValueError, OSError) as error:
        _exit(error)


def _exit(error: Exception) -> NoReturn:
    """Ends the program with an error in one line, after the traceback if it is asked for."""
    if os.environ.get("NOISEGEN_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:  # without "[Errno 28]"
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        fail(f"{place}{error.strerror}")
    fail(str(error))


def _with_flag(message: str) -> str:
    """Returns a message that names flags in place of performance settings and of a first option."""
    match = _OPTION.match(message)
    if match and match[1] in flags.FLAGS:
        message = f"--{message}"
    if "pool.lanes" in flags.FLAGS:
        message = _SETTING_IN_PYTHON.sub(r"PoolConfig: \1=\2", message)
        message = _SETTING.sub(lambda match: f"--pool.{match[1] or match[2]}=", message)
    return message


def _place(error: Exception) -> str:
    """Returns a phrase with the line of the experiment's file where an error occurred, or ''."""
    # The cause was raised first. It has passed through the file unless a library caught it.
    for each in filter(None, (error.__cause__, error)):
        for frame, line in reversed(list(traceback.walk_tb(each.__traceback__))):
            if "get_sweep" in frame.f_globals:  # every experiment defines it, and no other module
                path = frame.f_code.co_filename
                return f" ({path}, line {line}; NOISEGEN_TRACEBACK=1 shows the traceback)"
    return ""


@functools.cache  # so that each warning is shown once
def _warn(text):
    print(f"warning: {text}", file=sys.stderr)
