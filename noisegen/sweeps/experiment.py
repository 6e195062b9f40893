"""An experiment: a Python file that defines a sweep.

The file defines two functions. `get_config()` declares every field that the command line may
override, and `get_sweep(config)` makes the `Sweep`. The first line of the file's docstring is the
title of the report, the rest its description. `experiments/digits.py` is one to start from.

A file with several scales is named with one of them, `table1.py:cpu`; its `get_config` takes the
word after the colon.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import os
import pathlib
import types
import warnings
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from noisegen import storage
from noisegen.sweeps import config_json
from noisegen.sweeps import experiment_files as files
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.sweep import Sweep


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment's file, imported.

    Attributes:
      path: Path of the file.
      scale: The words after the colon, one or none.
      module: The file as a module.
    """

    path: pathlib.Path
    scale: tuple[str, ...]
    module: types.ModuleType

    @property
    def name(self) -> str:
        """Name of its sweep: the file's own name, with the scale if there is one."""
        return ":".join([self.path.stem, *self.scale])

    def get_config(self) -> ml_collections.ConfigDict:
        """Returns the config, every field at its default.

        Raises:
          ValueError: If the file has no such scale, or gives no config.
        """
        _check_scale(self)
        config = self.module.get_config(*self.scale)
        if isinstance(config, Mapping | config_dict.FrozenConfigDict):
            config = ml_collections.ConfigDict(config)
        if not isinstance(config, ml_collections.ConfigDict):
            raise ValueError(
                f"{self.path}: get_config gives {config!r:.80}, which is no ConfigDict; is there a "
                "return?"
            )
        return config

    def get_sweep(
        self, config: ml_collections.ConfigDict, workdir: str | os.PathLike | None = None
    ) -> Sweep:
        """Returns the sweep of a config, in a directory.

        Args:
          config: As `get_config` returns it, with fields overridden.
          workdir: Directory of the sweep.

        Raises:
          ValueError: If the config cannot be kept in `sweep.json`, or the file makes no sweep.
        """
        config_json.make_plain(config)
        config_json.check_kept(config, self.get_config())
        config.lock()
        sweep = self.module.get_sweep(config)
        if not isinstance(sweep, Sweep):
            raise ValueError(
                f"{self.path}: get_sweep gives {sweep!r:.80}, which is no Sweep; is there a return?"
            )
        title, _, description = inspect.cleandoc(self.module.__doc__ or self.path.stem).partition(
            "\n"
        )
        sweep.workdir = None if workdir is None else pathlib.Path(workdir)
        sweep.name, sweep.title, sweep.description = self.name, title.strip(), description.strip()
        sweep.config = config
        sweep.meta = {
            "experiment": ":".join([str(self.path), *self.scale]),
            "config": config_json.dump(config),
            "code": self._code(),
        }
        return sweep

    def _code(self):
        """Returns a hash of the file, and of those beside it that it imports from."""
        parts = (inspect.getmodule(value) for value in vars(self.module).values())
        files = {pathlib.Path(part.__file__) for part in parts if getattr(part, "__file__", None)}
        own = self.path.resolve()
        beside = sorted(file for file in files if file.parent == own.parent and file != own)
        return hashlib.sha256(b"".join(f.read_bytes() for f in (own, *beside))).hexdigest()


def load_experiment(text: str) -> Experiment:
    """Imports the experiment that a text names.

    Args:
      text: A file or a module, with a scale after a colon if it has scales.

    Raises:
      OSError, ImportError, ValueError: If there is no such file, or it is no experiment.
    """
    path, scale = files.find(text)
    return _load(path, scale)


def open_sweep(workdir: str | os.PathLike, experiment: str | None = None) -> Sweep:
    """Opens the sweep of a directory, see `Sweep.open`."""
    content = storage.read_sweep(workdir)
    if not isinstance(content.get("sweep"), str) or not isinstance(content.get("task"), str):
        raise ValueError(f"{workdir} is no sweep: its sweep.json names neither sweep nor task.")
    if "experiment" in content:
        sweep = _from_experiment(workdir, content, experiment)
    else:
        sweep = _from_program(workdir, content)
    sweep.workdir = pathlib.Path(workdir)
    # What the file says now, its hash for example, replaces what it said then.
    sweep.meta = content | sweep.meta
    sweep.resume_reading(content["task"], content.get("refused", ()))
    return sweep


def describe(sweep: Sweep) -> dict[str, Any]:
    """Returns the content of `sweep.json` from which `open_sweep` opens the sweep again.

    A sweep of an experiment names its file and its config. A sweep that a program made is written
    out, if its protocol is plain data.
    """
    content = dict(sweep.meta)
    if "experiment" in content:
        content["code"] = _begun_with(sweep)
    elif all(_is_plain(protocol) for protocol in sweep.protocols):
        content["runs"] = sweep.planned
        content["protocols"] = [_plain_fields(protocol) for protocol in sweep.protocols]
        content["published"] = [[*key, value] for key, value in sweep.published.items()]
    return content


def warn_if_changed(sweep: Sweep) -> None:
    """Warns if an experiment's file has changed since its sweep was begun."""
    if "experiment" in sweep.meta and _begun_with(sweep) != sweep.meta["code"]:
        warnings.warn(
            f"{sweep.meta['experiment']}, or a file that it imports, has changed since "
            f"{sweep.workdir} was begun. Finished runs are kept; if it trains something else now, "
            "change the task's name.",
            stacklevel=3,
        )


def _begun_with(sweep):
    """Returns the hash of the code with which a sweep was begun, or is begun now."""
    content = {}
    with contextlib.suppress(FileNotFoundError, TypeError):  # TypeError: it has no directory
        content = storage.read_sweep(sweep.workdir)
    return content.get("code", sweep.meta["code"])


def _from_experiment(workdir, content, named):
    """Reads a sweep from the experiment's file that began it, or one that the user names."""
    texts = [content.get(word) for word in ("experiment", "config")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{workdir}: its sweep.json says too little to open the sweep.")
    path, scale = files.split(content["experiment"])
    if named:
        path, given = files.find(named)
        scale = given or scale
    else:
        _check_place(path, workdir)
    experiment = _load(path, scale)
    if experiment.name != content["sweep"]:
        raise ValueError(
            f"--config={named} is not the experiment of {workdir}, which is a sweep of "
            f"{content['sweep']!r}."
        )
    config = experiment.get_config()
    try:
        config_json.restore(config, content["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{workdir} is a sweep of an older {path}, with other fields ({error}); give the "
            "command of `launch.sweep` again, or use the older file."
        ) from error
    return experiment.get_sweep(config, workdir)


def _from_program(workdir, content):
    """Reads a sweep that a program began from its `sweep.json`."""
    if "runs" not in content or "protocols" not in content:
        raise ValueError(
            f"{workdir} is the sweep of a program whose protocol has functions, which sweep.json "
            "cannot hold: make the Sweep as that program did, with this workdir."
        )
    try:
        protocols = [_protocol_from_json(fields) for fields in content["protocols"]]
        return Sweep(
            _no_task,
            content["runs"],
            protocols,
            workdir,
            name=content["sweep"],
            title=content.get("title", ""),
            description=content.get("description", ""),
            published=_published_from_json(content.get("published", [])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{workdir}: its sweep.json is of another version of noisegen ({error}); make the "
            "Sweep as the program did that began it, with this workdir."
        ) from error


def _no_task():
    raise ValueError(
        "This sweep was opened to be read, and has no task to train: make the Sweep as the program "
        "did that began it, with the same workdir."
    )


def _plain_fields(protocol):
    """Returns the fields of a protocol that JSON can hold."""
    names = [field.name for field in dataclasses.fields(protocol)]
    values = {name: getattr(protocol, name) for name in names}
    values["metric"] = dataclasses.asdict(protocol.metric)
    values["report"] = [dataclasses.asdict(metric) for metric in protocol.report]
    return {name: value for name, value in values.items() if value not in (None, {})}


def _published_from_json(lines):
    """Rebuilds published numbers, whose pairs JSON holds as lists."""
    published = {}
    for label, row, value in lines:
        if isinstance(value, dict):
            published[label, row] = {name: tuple(numbers) for name, numbers in value.items()}
        else:
            published[label, row] = tuple(value)
    return published


def _protocol_from_json(fields):
    """Rebuilds a protocol from the result of `_plain_fields`."""
    metrics = {
        "metric": Metric(**fields["metric"]),
        "report": [Metric(**each) for each in fields["report"]],
    }
    return Protocol(**fields | metrics)


def _is_plain(protocol):
    """Returns whether a protocol has no functions."""
    return protocol.series is None and not protocol.domains and not protocol.derived


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


def _load(path, scale):
    """Imports an experiment's file and checks that it defines its two functions."""
    module = files.load(path)
    lacking = [name for name in ("get_config", "get_sweep") if not hasattr(module, name)]
    if lacking:
        raise ValueError(
            f"{path} defines no {' and no '.join(lacking)}: an experiment defines get_config() and "
            "get_sweep(config)."
        )
    return Experiment(path, tuple(scale), module)


def _check_scale(experiment):
    """Checks that a scale is given if and only if the file has scales."""
    path, scale = experiment.path, experiment.scale
    try:
        with contextlib.suppress(ValueError):  # of a function without a known signature
            inspect.signature(experiment.module.get_config).bind(*scale)
    except TypeError:
        raise ValueError(
            f"{path} has no scales: leave the colon and the word after it out."
            if scale
            else f"{path} has scales: write one after a colon, as in {path}:SCALE."
        ) from None
