"""Writes a sweep to the `sweep.json` of its directory, and opens it again.

A sweep of an experiment is stored by the name of its file, with its config. A sweep that a program
made is stored with its runs and protocols, if these are plain data. Either has the numbers of test
and validation examples, `num_test_examples` and `num_valid_examples`; the latter only if there are
any.
"""

import dataclasses
import os
import pathlib
import warnings

from noisegen import storage
from noisegen.sweeps import config_json, experiment
from noisegen.sweeps import experiment_files as files
from noisegen.sweeps.metrics import Metric, derived_metrics
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.sweep import Sweep


def open_sweep(workdir: str | os.PathLike, named: str | None = None) -> Sweep:
    """Opens the sweep of a directory.

    Args:
      workdir: The directory of the sweep.
      named: The experiment's file, if the user names it.

    Raises:
      FileNotFoundError, ValueError: See `Sweep.open`.
    """
    content = storage.read_sweep(workdir)
    if not isinstance(content.get("sweep"), str) or not isinstance(content.get("task"), str):
        raise ValueError(f"{workdir} is no sweep: its sweep.json names neither sweep nor task.")
    if "experiment" in content:
        return _from_experiment(workdir, content, named)
    return _from_program(workdir, content)


def write(sweep: Sweep, command: str | None = None) -> None:
    """Writes a sweep to the `sweep.json` of its directory, which is made if needed.

    Args:
      sweep: The sweep.
      command: The command that trains it. By default the command that is there stays.

    Raises:
      ValueError: If the directory belongs to another sweep or task.
      OSError: If it cannot be written to.
    """
    before = _read_if_there(sweep.workdir)
    task = sweep.task_of(sweep.planned[0])
    content = {
        "title": sweep.title,
        "description": sweep.description,
        "data": task.data_description,
        # The sampling error of a metric follows from the number of examples it is averaged over.
        "num_test_examples": task.num_test_examples,
    }
    if task.num_valid_examples:
        content["num_valid_examples"] = task.num_valid_examples
    if sweep.origin is not None:
        content["experiment"] = sweep.origin.experiment
        content["config"] = config_json.dump(sweep.origin.config)
        content["code"] = before.get("code", sweep.origin.code)  # that of the first runs
    elif all(_is_plain(protocol) for protocol in sweep.protocols):
        content["runs"] = sweep.planned
        content["protocols"] = [_plain_fields(protocol) for protocol in sweep.protocols]
        content["published"] = [[*key, value] for key, value in sweep.published.items()]
    if command is None:
        command = before.get("command")
    if command is not None:
        content["command"] = command
    if sweep.state.refused:
        content["refused"] = sorted(sweep.state.refused)
    storage.open_workdir(sweep.workdir, sweep.name, sweep.state.task_name, content)


def warn_if_changed(sweep: Sweep) -> None:
    """Warns if an experiment's file has changed since its sweep was begun."""
    if sweep.origin is None:
        return
    if _read_if_there(sweep.workdir).get("code", sweep.origin.code) != sweep.origin.code:
        warnings.warn(
            f"{sweep.origin.experiment}, or a file that it imports, has changed since "
            f"{sweep.workdir} was begun. Finished runs are kept; if it trains something else now, "
            "change the task's name.",
            stacklevel=3,
        )


def _read_if_there(workdir):
    """Returns the content of `sweep.json`, an empty dict if the sweep has yet to begin."""
    try:
        return storage.read_sweep(workdir)
    except FileNotFoundError:
        return {}


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
    loaded = experiment.load_file(path, scale)
    if loaded.name != content["sweep"]:
        raise ValueError(
            f"--config={named} is not the experiment of {workdir}, which is a sweep of "
            f"{content['sweep']!r}."
        )
    config = loaded.get_config()
    try:
        config_json.restore(config, content["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{workdir} is a sweep of an older {path}, with other fields ({error}); give the "
            "command of `launch.sweep` again, or use the older file."
        ) from error
    return loaded.get_sweep(config, workdir)


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
    values["metric"] = _plain_metric(protocol.metric)
    values["report"] = [_plain_metric(metric) for metric in protocol.report]
    return {name: value for name, value in values.items() if value not in (None, {})}


def _plain_metric(metric):
    """Returns the fields of a metric without a function."""
    return {"name": metric.name, "unit": metric.unit, "split": metric.split}


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
    has_derived_metric = bool(derived_metrics([protocol]))
    return not (protocol.series or protocol.domains or protocol.derived or has_derived_metric)


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
