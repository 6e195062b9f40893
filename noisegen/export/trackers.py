"""Exports a sweep to TensorBoard, Weights & Biases or MLflow, run by run.

A run that a tool has is left alone. One that an interrupted export left unfinished is written anew.
"""

import abc
import contextlib
import logging
import math
import os
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Collection, Iterator
from typing import Any

from noisegen._errors import one_line
from noisegen.export import libraries
from noisegen.export.tracked import TrackedRun, tracked_run, varying_fields
from noisegen.sweeps import Sweep

_READ_AT_ONCE = 500  # runs whose curves are in memory together


class Tracker(abc.ABC):
    """A tool that takes one run after the other.

    Args:
      out: Directory of what the tool writes, made if needed.
      sweep: The sweep.
    """

    def __init__(self, out: pathlib.Path, sweep: Sweep):
        self._out, self._sweep = out, sweep
        self._fields = varying_fields(sweep.planned)
        out.mkdir(parents=True, exist_ok=True)
        with self._quiet():
            self._known = set(self.exported())

    @property
    def project(self) -> str:
        """Name of the sweep in the tool, that of its directory."""
        return re.sub(r"[/\\#?%:]", "-", self._sweep.workdir.resolve().name)

    def update(self) -> int:
        """Exports the runs that are new; returns their number."""
        new = [each for each in self._sweep.records() if each.run_id not in self._known]
        for start in range(0, len(new), _READ_AT_ONCE):
            records = new[start : start + _READ_AT_ONCE]
            curves = self._sweep.curves(record.run_id for record in records)
            for record in records:
                run = tracked_run(record, curves.get(record.run_id, {}), self._fields)
                with self._quiet():
                    self.add(run)
                self._known.add(record.run_id)
        return len(new)

    @abc.abstractmethod
    def exported(self) -> Collection[str]:
        """Returns the ids of the runs that the tool has whole."""

    @abc.abstractmethod
    def add(self, run: TrackedRun) -> None:
        """Exports a run."""

    def close(self) -> None:  # noqa: B027 - most tools have nothing to close
        """Ends the work with the tool."""

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Hides warnings of the library about itself, and shows its errors in one line."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except OSError:
                raise
            except Exception as error:  # Each library has errors of its own.
                raise ValueError(
                    f"{type(self).__name__} fails: {one_line(error).removesuffix('.')}. Runs that "
                    "it has are kept."
                ) from error


class TensorBoard(Tracker):
    """Writes a directory of event files for each run, with tensorboardX."""

    def __init__(self, out: pathlib.Path, sweep: Sweep):
        self._library = libraries.load("tensorboardX", "tensorboard")
        super().__init__(out, sweep)

    def exported(self) -> Collection[str]:
        return {path.name.rpartition(" ")[2] for path in self._out.iterdir() if path.is_dir()}

    def add(self, run: TrackedRun) -> None:
        # A run gets its name once it is whole. Beside `out`, TensorBoard does not see it before.
        out = self._out.resolve()
        partial = out.with_name(f"{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with self._library.SummaryWriter(str(partial), filename_suffix=".series") as writer:
            for name, update, value in run.series():
                writer.add_scalar(name, value, update)
            # The name "." puts them beside the series, and not into a run of their own. Their file
            # has the same name as that of the series, but for the suffix.
            summary = {f"final/{name}": value for name, value in run.summary.items()}
            writer.add_hparams({**run.config, "status": run.status}, summary, name=".")
        partial.rename(self._out / f"{run.name} {run.run_id}".strip())


class WandB(Tracker):
    """Writes each run with wandb, offline unless WANDB_MODE says otherwise."""

    def __init__(self, out: pathlib.Path, sweep: Sweep):
        self._library = libraries.load("wandb", "wandb")
        self._ledger = out / "exported.txt"  # ids of the runs that are whole
        super().__init__(out, sweep)

    def exported(self) -> Collection[str]:
        return self._ledger.read_text().split() if self._ledger.exists() else ()

    def add(self, run: TrackedRun) -> None:
        for unfinished in self._out.glob(f"wandb/*run-*-{run.run_id}"):
            shutil.rmtree(unfinished)
        with self._library.init(
            project=self.project,
            id=run.run_id,
            name=run.name or run.run_id,
            config=dict(run.config),
            tags=[run.status],
            dir=str(self._out),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=self._library.Settings(console="off", silent=True),
        ) as begun:
            for update, values in run.points.items():
                begun.log(dict(values), step=update)
            missing = dict.fromkeys(run.ended_without, math.nan)
            begun.summary.update({**run.summary, **missing, "status": run.status})
        with self._ledger.open("a") as ledger:
            ledger.write(f"{run.run_id}\n")

    def close(self) -> None:
        self._library.teardown()


class MLflow(Tracker):
    """Writes each run to an MLflow store: MLFLOW_TRACKING_URI, or an SQLite file in `out`."""

    _TAG = "noisegen.run_id"
    _MOST_METRICS, _MOST_PARAMS = 1000, 100  # in a request

    def __init__(self, out: pathlib.Path, sweep: Sweep):
        self._library = libraries.load("mlflow", "mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        libraries.load("sqlalchemy", "mlflow")  # which mlflow-skinny lacks
        self._client: Any = None
        super().__init__(out, sweep)

    def exported(self) -> Collection[str]:
        self._connect()
        # Another sweep whose directory has this name exports to the same experiment.
        own = {record.run_id for record in self._sweep.records()}
        finished = set()
        for run in list(self._runs()):
            name = run.data.tags[self._TAG]
            if run.info.status == "FINISHED":
                finished.add(name)
            elif name in own:
                # Of an export that was interrupted. One that is still at work would lose it, too.
                self._client.delete_run(run.info.run_id)
        return finished

    def add(self, run: TrackedRun) -> None:
        entities = self._library.entities
        begun = self._client.create_run(
            self._experiment,
            run_name=run.name or run.run_id,
            tags={self._TAG: run.run_id, "status": run.status},
        )
        name = begun.info.run_id
        now = int(1000 * time.time())
        params = [entities.Param(key, str(value)) for key, value in run.config.items()]
        metrics = [entities.Metric(key, value, now, step) for key, step, value in run.series()]
        # The value of the latest step is the one that MLflow shows.
        last = max(run.points, default=0)
        shown = run.points.get(last, {})
        metrics += [
            entities.Metric(key, value, now, last)
            for key, value in run.summary.items()
            if shown.get(key) != value
        ]
        ended = max(last, int(run.summary["num_updates"]))
        metrics += [
            entities.Metric(key, math.nan, now + 1, ended) for key in sorted(run.ended_without)
        ]
        for start in range(0, len(params), self._MOST_PARAMS):
            part = params[start : start + self._MOST_PARAMS]
            self._client.log_batch(name, params=part)
        for start in range(0, len(metrics), self._MOST_METRICS):
            part = metrics[start : start + self._MOST_METRICS]
            self._client.log_batch(name, metrics=part)
        self._client.set_terminated(name)

    def _connect(self):
        """Opens the store and the experiment of the sweep."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self._own_store()
        self._client = self._library.MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(self.project)
        self._experiment = (
            known.experiment_id if known else self._client.create_experiment(self.project)
        )

    def _own_store(self):
        """Returns the address of the SQLite file, which is made if needed."""
        path = self._out.resolve() / "mlflow.db"
        if not path.exists():
            # MLflow cannot go on with a file whose tables it was interrupted in making.
            for unfinished in self._out.glob("partial.db*"):
                unfinished.unlink()
            partial = path.with_name("partial.db")
            self._library.MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments()
            partial.rename(path)
        return f"sqlite:///{path}"

    def _runs(self):
        """Yields the runs that this or an earlier export has begun."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                filter_string=f"tags.`{self._TAG}` LIKE '%'",
                max_results=1000,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return
