"""The records and the curves of a sweep as pandas DataFrames."""

from collections.abc import Iterable, Mapping

import pandas as pd

from noisegen.storage import RUN_TOTALS, Record


def runs_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Returns every record as a row: hyperparameters, status, metrics and totals."""
    return _frame(
        [
            {
                "run_id": record.run_id,
                **record.hparams,
                "status": record.status,
                **record.metrics,
                **{name: getattr(record, name) for name in RUN_TOTALS},
            }
            for record in records
        ]
    )


def curves_frame(
    records: Iterable[Record], curves: Mapping[str, Mapping[str, list]]
) -> pd.DataFrame:
    """Returns every evaluation as a row: hyperparameters, epoch, update and metrics.

    Args:
      records: The records, from which the hyperparameters come.
      curves: Evaluations by run_id. Those without a record are left out.
    """
    hparams = {record.run_id: record.hparams for record in records}
    rows = [
        {"run_id": name, **hparams[name], **dict(zip(curves[name], values, strict=True))}
        for name in sorted(curves.keys() & hparams.keys())
        for values in zip(*curves[name].values(), strict=True)
    ]
    frame = _frame(rows)
    # A metric that is never finite has only None, which is no number yet.
    measured = {name for curve in curves.values() for name in curve if name != "update"}
    return frame.astype(dict.fromkeys(measured & set(frame.columns), float))


def _frame(rows):
    """Returns rows as a DataFrame, which has a column even without any."""
    return pd.DataFrame(rows, columns=None if rows else ["run_id"])
