"""The files of a sweep: records, claims, checkpoints and parameters. Nothing here is executed."""

from noisegen.storage.checkpoints import Checkpoints
from noisegen.storage.claims import Claims, WorkerStatus, read_workers
from noisegen.storage.params import damaged_params, load_params, save_params, without_params
from noisegen.storage.record import RUN_TOTALS, LineError, Record
from noisegen.storage.records import (
    RecordReader,
    RecordWriter,
    add_first_finished,
    read_curves,
    read_records,
)
from noisegen.storage.workdir import (
    ADVICE,
    check_workdir,
    check_writable,
    open_workdir,
    read_sweep,
    undone_if_refused,
    write_file,
)

__all__ = [
    "ADVICE",
    "RUN_TOTALS",
    "Checkpoints",
    "Claims",
    "LineError",
    "Record",
    "RecordReader",
    "RecordWriter",
    "WorkerStatus",
    "add_first_finished",
    "check_workdir",
    "check_writable",
    "damaged_params",
    "load_params",
    "open_workdir",
    "read_curves",
    "read_records",
    "read_sweep",
    "read_workers",
    "save_params",
    "undone_if_refused",
    "without_params",
    "write_file",
]
