"""Exports a sweep to tables: `runs` and `curves`, as CSV or Parquet."""

import io
import pathlib

import pandas as pd

from noisegen import storage
from noisegen.export import libraries
from noisegen.sweeps import Sweep


class CsvFiles:
    """Writes runs.csv and curves.csv, anew if there are new records.

    Args:
      out: Directory of the files, made if needed.
      sweep: The sweep.
    """

    suffix = "csv"

    def __init__(self, out: pathlib.Path, sweep: Sweep):
        self._out, self._sweep = out, sweep
        self._written = -1  # records in the files

    def update(self) -> int:
        """Writes the files; returns how many runs are new in them since the last call."""
        frame = self._sweep.to_frame()
        added = len(frame) - max(self._written, 0)
        if len(frame) != self._written:
            self._out.mkdir(parents=True, exist_ok=True)
            # Each file is replaced as a whole, so that a reader never sees half of it.
            for name, table in {"runs": frame, "curves": self._sweep.curves_frame()}.items():
                storage.write_file(self._out / f"{name}.{self.suffix}", self._encode(table))
            self._written = len(frame)
        return added

    def close(self) -> None:
        """Does nothing, since no file stays open."""

    def _encode(self, frame: pd.DataFrame) -> bytes:
        return frame.to_csv(index=False).encode()


class ParquetFiles(CsvFiles):
    """Writes runs.parquet and curves.parquet likewise, with pyarrow."""

    suffix = "parquet"

    def __init__(self, out: pathlib.Path, sweep: Sweep):
        libraries.load("pyarrow", "parquet")
        super().__init__(out, sweep)

    def _encode(self, frame: pd.DataFrame) -> bytes:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, engine="pyarrow", index=False)
        return buffer.getvalue()
