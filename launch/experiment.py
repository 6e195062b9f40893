"""An experiment: a Python file that defines a sweep.

The file defines `get_config()`, which declares every field that the command line may override, and
three functions of that config: `get_task`, `get_runs` and `get_protocol`; optionally
`get_published`, the numbers to stand beside the measured ones. `get_task` gives a task, or a
function from the batch size to a task where compiled shapes depend on it; `get_protocol` gives a
protocol, or several that read the same runs each in its own way, the main one first. The first
line of the file's docstring is the title of the report, the rest the description.
`experiments/digits.py` is one to start from.

A file with several scales is named with one of them, `table1.py:cpu`; its `get_config` takes the
word after the colon.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import pathlib
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from launch import fields, files, kept
from launch.tasks import Tasks
from noisegen import sweeps

_OWN = pathlib.Path(__file__).parents[1] / "experiments"
_FUNCTIONS = ("get_task", "get_runs", "get_protocol")  # of the config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What an experiment's file says, overrides applied.

    Attributes:
      name: of the sweep: the file's own name, with the scale where there is one.
      path: of the file.
      scale: the word after the colon, or ''.
      title: first line of the file's docstring.
      description: the rest of it.
      config: every field.
      runs: numbers of the planned runs, in the order in which they are trained.
      protocols: how the records are read, the main one first.
      published: numbers to stand beside those of the main protocol, see
        `noisegen.reports.make_table`.
      make_tasks: loads the data and makes the task, or the tasks of all batch sizes.
      code_files: the file, and those beside it that it imports.
    """

    name: str
    path: pathlib.Path
    scale: str
    title: str
    description: str
    config: ml_collections.ConfigDict
    runs: list[dict]
    protocols: tuple[sweeps.Protocol, ...]
    published: Mapping[tuple, Any]
    make_tasks: Callable[[], Tasks]
    code_files: tuple[pathlib.Path, ...]

    @property
    def code(self) -> str:
        """Hash of the files that say what is trained."""
        return hashlib.sha256(b"".join(f.read_bytes() for f in self.code_files)).hexdigest()


def read(text: str, given: Iterable[tuple[str, str | None]] = ()) -> Experiment:
    """Reads the experiment that the command line names.

    Args:
      text: A file or a module, with a scale after a colon where it has scales.
      given: Fields that the command line overrides, see `launch.fields.take`.

    Raises:
      ValueError, OSError, ImportError: If there is no such experiment, or a field makes no sense.
    """
    path, scale = files.find(text)
    config = _config(path, scale)
    fields.override(config, given)
    kept.make_plain(config)
    kept.check_kept(config, _config(path, scale))
    config.lock()
    return load(_text(path, scale), config)


def load(path: str | pathlib.Path, config: ml_collections.ConfigDict) -> Experiment:
    """Reads the experiment in the file `path` with the given config.

    Raises:
      ValueError: the file lacks a function.
    """
    path, scale = _scaled(path)
    module = _module(path)
    _check_whole(path, module)
    title, _, description = inspect.cleandoc(module.__doc__ or path.stem).partition("\n")
    runs = _runs(path, module.get_runs(config))
    return Experiment(
        name=_text(path.stem, scale),
        path=path,
        scale="".join(scale),
        title=title.strip(),
        description=description.strip(),
        config=config,
        runs=runs,
        protocols=_protocols(path, module.get_protocol(config)),
        published=module.get_published(config) if hasattr(module, "get_published") else {},
        make_tasks=lambda: Tasks(module.get_task(config), runs),
        code_files=_code_files(path, module),
    )


def load_from_workdir(workdir: str | pathlib.Path, trusted: str | None = None) -> Experiment:
    """Reads the experiment that a sweep's directory belongs to.

    The experiment's file is looked for below the current directory only: nothing in a sweep's
    directory, this one's or another's, is executed.

    Args:
      workdir: The directory of the sweep.
      trusted: The experiment's file, which then may lie anywhere.

    Raises:
      FileNotFoundError: no sweep there, or its experiment's file is not here.
      ValueError: If the trusted file is that of another sweep, or the file's fields are others.
    """
    sweep = sweeps.read_sweep(workdir)
    if not all(isinstance(sweep.get(word), str) for word in ("experiment", "config", "command")):
        raise ValueError(
            f"{workdir} is no sweep of `launch.sweep`: its sweep.json says too little."
        )
    path, scale = _scaled(sweep["experiment"])
    if trusted:
        path, scale = _trusted(trusted, scale, sweep, workdir)
    else:
        _check_place(path, workdir)
    config = _config(path, scale)
    try:
        kept.restore(config, sweep["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{workdir} is a sweep of an older {path}, with other fields ({error}); give the "
            "command of `launch.sweep` again, or use the older file."
        ) from error
    kept.make_plain(config)
    return load(_text(path, scale), config)


def meta(experiment: Experiment, data: str, command: str) -> dict[str, Any]:
    """What a sweep's directory is told about its experiment."""
    return {
        "title": experiment.title,
        "description": experiment.description,
        "data": data,
        "command": command,
        "experiment": ":".join(filter(None, [str(experiment.path), experiment.scale])),
        "config": kept.dump(experiment.config),
    }


def begun_with(workdir: str | pathlib.Path) -> str | None:
    """The `code` with which a sweep's directory was begun; None where that is not known."""
    begun = pathlib.Path(workdir, "sweep.json").exists()
    return sweeps.read_sweep(workdir).get("code") if begun else None


def _scaled(path):
    """The path of an experiment's file, and the words after its colon."""
    return files.split(str(path))


def _text(path, scale):
    """The path of an experiment's file, or its name, with the scale."""
    return ":".join([str(path), *scale])


def _trusted(text, scale, sweep, workdir):
    """The file that the user names for a sweep, if it has the sweep's name, and the scale."""
    path, given = files.find(text)
    scale = given or scale
    if _text(path.stem, scale) != sweep["sweep"]:
        raise ValueError(
            f"--config={text} is not the experiment of {workdir}, which is a sweep of "
            f"{sweep['sweep']!r}."
        )
    return path, scale


def _check_place(path, workdir):
    """Checks that an experiment's file may be executed without having been named by the user."""
    here, file = pathlib.Path.cwd().resolve(), path.resolve()
    in_sweep = any((parent / "sweep.json").exists() for parent in file.parents)
    if not file.is_relative_to(here) or in_sweep:
        raise FileNotFoundError(
            f"{workdir} is a sweep of {path}, which is not below {here} or is in a sweep's "
            "directory, and so is not executed; run the command where the sweep was launched, or "
            "name a file that you trust with --config=..."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} is a sweep of {path}, which is not here; run the command where the sweep "
            "was launched, or name its file with --config=..."
        )


def _module(path):
    """Imports an experiment's file."""
    module = files.load(path)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} defines no get_config(): it is no experiment.")
    return module


def _check_whole(path, module):
    """Checks that an experiment's file defines all that it must."""
    if missing := [name for name in _FUNCTIONS if not hasattr(module, name)]:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: an experiment defines get_config() and, of that "
            f"config, {', '.join(_FUNCTIONS)}."
        )


def _config(path, scale):
    """The config of an experiment, every field at its default."""
    module = _module(path)
    try:
        with contextlib.suppress(ValueError):  # of a function without a known signature
            inspect.signature(module.get_config).bind(*scale)
    except TypeError:
        raise ValueError(
            f"{path} has no scales: leave the colon and what follows it out."
            if scale
            else f"{path} has scales: write one after a colon, as in {path}:SCALE."
        ) from None
    try:
        config = module.get_config(*scale)
    except ValueError as error:
        if _is_own(error):
            raise ValueError(str(error)) from error  # which is said in one line
        raise
    if isinstance(config, Mapping | config_dict.FrozenConfigDict):
        config = ml_collections.ConfigDict(config)
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"{path}: get_config gives {config!r:.80}, which is no ConfigDict; is there a return?"
        )
    return config


def _is_own(error):
    """Returns whether one of the project's own experiments raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return pathlib.Path(frame.f_code.co_filename).is_relative_to(_OWN)


def _runs(path, found):
    """The runs that `get_runs` gave."""
    runs = list(_of_kind(Iterable, path, "get_runs", found))
    for run in runs:
        _of_kind(Mapping, path, "get_runs", run)
    if not runs:
        raise ValueError(f"{path}: get_runs gives no runs.")
    return runs


def _code_files(path, module):
    """An experiment's file, and those of the same directory that it imports from."""
    parts = (inspect.getmodule(value) for value in vars(module).values())
    files = {pathlib.Path(part.__file__) for part in parts if getattr(part, "__file__", None)}
    beside = (file for file in files if file.parent == path.resolve().parent)
    return (path, *sorted(file for file in beside if file != path.resolve()))


def _protocols(path, found):
    """The protocols that `get_protocol` gave."""
    found = tuple(found) if isinstance(found, list | tuple) and found else (found,)
    return tuple(_of_kind(sweeps.Protocol, path, "get_protocol", each) for each in found)


def _of_kind(kind, path, function, value):
    """The value that a function of the experiment gave, if it is of the right kind."""
    if not isinstance(value, kind):
        raise ValueError(
            f"{path}: {function} gives {value!r:.80}, which is no {kind.__name__}; is there a "
            "return?"
        )
    return value
