"""An experiment: a Python file that defines a sweep.

The file defines `get_config()`, which declares every field that the command line may override, and
three functions of that config: `get_task`, `get_runs` and `get_protocol`; optionally
`get_published`, the numbers to stand beside the measured ones. The first line of its docstring is
the title of the report, the rest the description. `experiments/digits.py` is one to start from.
"""

import dataclasses
import hashlib
import importlib.util
import inspect
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from noisegen import sweeps, training

_FUNCTIONS = ("get_config", "get_task", "get_runs", "get_protocol")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What an experiment's file says, overrides applied.

    Attributes:
      name: of the sweep: the file's own name.
      path: of the file.
      title: first line of the file's docstring.
      description: the rest of it.
      config: every field.
      runs: numbers of the planned runs, in the order in which they are trained.
      protocol: how the records are read.
      published: published numbers, see `noisegen.sweeps.make_table`.
      make_task: loads the data and makes the task.
      task_file: where `get_task` is defined.
    """

    name: str
    path: pathlib.Path
    title: str
    description: str
    config: ml_collections.ConfigDict
    runs: list[dict]
    protocol: sweeps.Protocol
    published: Mapping[tuple, Any]
    make_task: Callable[[], training.Task]
    task_file: pathlib.Path

    @property
    def code(self) -> str:
        """Hash of the file that says what is trained."""
        return hashlib.sha256(self.task_file.read_bytes()).hexdigest()


def load(path: str | pathlib.Path, config: ml_collections.ConfigDict) -> Experiment:
    """Reads the experiment in the file `path` with the given config.

    Raises:
      ValueError: the file lacks a function.
    """
    path = pathlib.Path(path)
    module = _module(path)
    title, _, description = inspect.cleandoc(module.__doc__ or path.stem).partition("\n")
    return Experiment(
        name=path.stem,
        path=path,
        title=title.strip(),
        description=description.strip(),
        config=config,
        runs=_runs(path, module.get_runs(config)),
        protocol=_of_kind(sweeps.Protocol, path, "get_protocol", module.get_protocol(config)),
        published=module.get_published(config) if hasattr(module, "get_published") else {},
        make_task=lambda: _of_kind(training.Task, path, "get_task", module.get_task(config)),
        task_file=pathlib.Path(inspect.getfile(module.get_task)),
    )


def load_from_workdir(workdir: str | pathlib.Path) -> Experiment:
    """Reads the experiment that a sweep's directory belongs to.

    The experiment's file is looked for below the current directory only: nothing in a sweep's
    directory is executed.

    Raises:
      FileNotFoundError: no sweep there, or its experiment's file is not here.
    """
    sweep = sweeps.read_sweep(workdir)
    if not all(isinstance(sweep.get(word), str) for word in ("experiment", "config", "command")):
        raise ValueError(
            f"{workdir} is no sweep of `launch.sweep`: its sweep.json says too little."
        )
    path = pathlib.Path(sweep["experiment"])
    here, own = pathlib.Path.cwd().resolve(), pathlib.Path(workdir).resolve()
    if not path.resolve().is_relative_to(here) or path.resolve().is_relative_to(own):
        raise FileNotFoundError(
            f"{workdir} is a sweep of {path}, which is not below {here} or is in the sweep's own "
            "directory, and so is not executed; run the command where the sweep was launched."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} is a sweep of {path}, which is not here; run the command where the sweep "
            "was launched."
        )
    config = _module(path).get_config()
    try:
        config.update(_like(config.to_dict(), json.loads(sweep["config"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{workdir} is a sweep of an older {path}, with other fields ({error}); give the "
            "command of `launch.sweep` again, or use the older file."
        ) from error
    return load(path, config)


def meta(experiment: Experiment, data: str, command: str) -> dict[str, Any]:
    """What a sweep's directory is told about its experiment."""
    return {
        "title": experiment.title,
        "description": experiment.description,
        "data": data,
        "command": command,
        "experiment": str(experiment.path),
        "config": experiment.config.to_json(),
    }


def begun_with(workdir: str | pathlib.Path) -> str | None:
    """The `code` with which a sweep's directory was begun; None where that is not known."""
    begun = pathlib.Path(workdir, "sweep.json").exists()
    return sweeps.read_sweep(workdir).get("code") if begun else None


def _module(path):
    """Imports an experiment's file."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no experiment {path}; name a file under experiments/.")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [name for name in _FUNCTIONS if not hasattr(module, name)]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: an experiment defines get_config() and, of that "
            f"config, {', '.join(_FUNCTIONS[1:])}."
        )
    return module


def _runs(path, found):
    """The runs that `get_runs` gave."""
    runs = list(_of_kind(Iterable, path, "get_runs", found))
    for run in runs:
        _of_kind(Mapping, path, "get_runs", run)
    if not runs:
        raise ValueError(f"{path}: get_runs gives no runs.")
    return runs


def _of_kind(kind, path, function, value):
    """The value that a function of the experiment gave, if it is of the right kind."""
    if not isinstance(value, kind):
        raise ValueError(
            f"{path}: {function} gives {value!r:.80}, which is no {kind.__name__}; is there a "
            "return?"
        )
    return value


def _like(model, values):
    """`values` as read from JSON, with tuples where `model` has them."""
    if isinstance(model, dict):
        return {name: _like(model[name], value) for name, value in values.items()}
    return tuple(values) if isinstance(model, tuple) else values
