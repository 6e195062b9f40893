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
from collections.abc import Mapping, Sequence

import ml_collections
from ml_collections import config_dict

from noisegen.sweeps import config_json
from noisegen.sweeps import experiment_files as files
from noisegen.sweeps.sweep import Origin, Sweep


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
        config.lock()  # get_sweep cannot add fields
        sweep = self.module.get_sweep(config)
        if not isinstance(sweep, Sweep):
            raise ValueError(
                f"{self.path}: get_sweep gives {sweep!r:.80}, which is no Sweep; is there a return?"
            )
        docstring = inspect.cleandoc(self.module.__doc__ or self.path.stem)
        title, _, description = docstring.partition("\n")
        return sweep.replace(
            workdir=workdir,
            name=self.name,
            title=title.strip(),
            description=description.strip(),
            origin=Origin(":".join([str(self.path), *self.scale]), config, self._code()),
        )

    def _code(self):
        """Returns a hash of the file, and of those beside it that it imports from."""
        own = self.path.resolve()
        imported = set()
        for value in vars(self.module).values():
            # The module that a function or class was defined in, or an imported module itself.
            module = inspect.getmodule(value)
            if getattr(module, "__file__", None):
                imported.add(pathlib.Path(module.__file__))
        # Files elsewhere, such as those of libraries, do not count.
        beside = sorted(file for file in imported if file.parent == own.parent and file != own)
        content = b"".join(file.read_bytes() for file in (own, *beside))
        return hashlib.sha256(content).hexdigest()


def load_experiment(text: str) -> Experiment:
    """Imports the experiment that a text names.

    Args:
      text: A file or a module, with a scale after a colon if it has scales.

    Raises:
      OSError, ImportError, ValueError: If there is no such file, or it is no experiment.
    """
    return load_file(*files.find(text))


def load_file(path: pathlib.Path, scale: Sequence[str] = ()) -> Experiment:
    """Imports an experiment's file and checks that it defines its two functions.

    Args:
      path: The file.
      scale: The words after the colon, one or none.

    Raises:
      OSError, ImportError, ValueError: If there is no such file, or it is no experiment.
    """
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
