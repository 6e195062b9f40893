"""Exports the runs of a sweep: once, or until a running sweep is complete.

>>> import pathlib, tempfile
>>> from noisegen import export, storage, sweeps
>>> runs = sweeps.grid(batch_size=[8], learning_rate=[0.1, 0.2], seed=[0])
>>> workdir = tempfile.mkdtemp()
>>> _ = storage.open_workdir(workdir, "sweep", "t")
>>> with storage.RecordWriter(workdir) as writer:
...     for name, run in sweeps.by_run_id("t", runs).items():
...         metrics = {"test_accuracy": 0.9}
...         writer.append(
...             storage.Record(run_id=name, hparams=run, status="finished", metrics=metrics)
...         )
>>> def make_task():
...     raise ValueError("an export makes no task")
>>> export.export(sweeps.Sweep(make_task, runs, workdir=workdir), "csv")
2
>>> sorted(path.name for path in pathlib.Path(workdir, "export", "csv").iterdir())
['curves.csv', 'runs.csv']
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable

from noisegen.export import files, trackers
from noisegen.sweeps import Sweep

FORMATS = {
    "csv": files.CsvFiles,
    "parquet": files.ParquetFiles,
    "tensorboard": trackers.TensorBoard,
    "wandb": trackers.WandB,
    "mlflow": trackers.MLflow,
}
_POLL_SECONDS = 2.0


def export(
    sweep: Sweep,
    to: str,
    out: str | os.PathLike | None = None,
    *,
    follow: bool = False,
    on_update: Callable[[int], None] = lambda added: None,
) -> int:
    """Exports the finished runs of a sweep. Runs that were exported before are left alone.

    Curves are exported as series over updates, final metrics as a summary, and hyperparameters as
    config. Tables have a row for each run (`Sweep.to_frame`) and for each evaluation
    (`Sweep.curves_frame`). Trackers know a run by its id, and what is not finite is left out there.

    Args:
      sweep: The sweep, with a directory.
      to: One of `FORMATS`.
      out: Directory to export to, by default `export/FORMAT` in the directory of the sweep.
      follow: Whether to go on until the sweep is complete.
      on_update: Called with the number of runs whenever some were exported.

    Returns:
      The number of runs that were exported.

    Raises:
      ImportError: If the library of the format is not installed.
      ValueError: If there is no such format, or the sweep has no directory.
    """
    if to not in FORMATS:
        raise ValueError(f"There is no format {to!r}; choose one of {', '.join(FORMATS)}.")
    if sweep.workdir is None:
        raise ValueError("This sweep has no directory; give Sweep(..., workdir=...).")
    out = pathlib.Path(out) if out is not None else sweep.workdir / "export" / to
    total = 0
    with contextlib.closing(FORMATS[to](out, sweep)) as exporter:
        while True:
            is_last = not follow or sweep.is_complete()  # before the last records are read
            added = exporter.update()
            total += added
            if added:
                on_update(added)
            if is_last:
                return total
            time.sleep(_POLL_SECONDS)
