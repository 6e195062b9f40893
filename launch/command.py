"""What the commands share: devices, errors, records."""

import datetime
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
from absl import app

import noisegen
from noisegen import sweeps, training
from noisegen.training import Settings, Task

_VERSIONED = ("jax", "flax", "optax")


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command; what the user can mend is one line on stderr and exit code 1."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"

    def guarded(argv):
        try:
            main(argv)
        except (ValueError, OSError, ImportError) as error:
            sys.exit(f"error: {error}")

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv):
    """Parses flags; a field that the config does not declare is one line, not a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        while error.args and isinstance(error.args[0], Exception):  # ml_collections wraps them
            error = error.args[0]
        sys.exit(f"error: a flag cannot be taken: {' '.join(str(error.args[0]).split())}")


def no_arguments(argv: list[str]) -> None:
    """Refuses words that are no flags: most often a forgotten `--`."""
    if argv[1:]:
        raise ValueError(f"Unexpected argument {argv[1]!r}; flags begin with --.")


def prepare_devices() -> None:
    """One device for each processor core, where the processor is what trains; a compilation cache.

    Must come before JAX is first used. What the user set in JAX's own variables stays.
    """
    if jax.config.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if jax.config.jax_compilation_cache_dir is None:
        cache = os.environ.get("NOISEGEN_CACHE_DIR", os.path.expanduser("~/.cache/noisegen"))
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "xla"))


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
        "device": jax.devices()[0].device_kind,
        "versions": {"noisegen": noisegen.__version__}
        | {name: importlib.metadata.version(name) for name in _VERSIONED},
        "settings": {k: v for k, v in vars(settings).items() if v is not None},
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "curve": result.curve,
    }
