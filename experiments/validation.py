"""Experiments that can choose their learning rate on a validation split (`task.validation`).

With `--config.task.validation=500`, 500 of the training images are held out. The learning rate, and
the runs that count, are chosen on them, and the table reports the test set beside. With 0, the
default, the experiment tunes on the test set, as the papers do.
"""

from typing import Any

import ml_collections

from noisegen import data


def hold_out(dataset: data.Dataset, fields: ml_collections.ConfigDict) -> data.Dataset:
    """Returns the data set with as many validation examples as the fields of its task say."""
    return data.split_validation(dataset, fields.validation) if fields.validation else dataset


def to_json(fields: ml_collections.ConfigDict) -> str:
    """Returns the fields of a task as JSON, for its name.

    A validation split of 0 is left out. The runs without one thus keep the ids that they had before
    there was such a field.
    """
    kept = {name: fields[name] for name in fields if name != "validation" or fields[name]}
    return ml_collections.ConfigDict(kept).to_json(sort_keys=True)


def tuned_on(
    fields: ml_collections.ConfigDict, metric: str, report: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns the arguments `metric` and `report` of a protocol.

    Args:
      fields: Fields of the task.
      metric: Metric to tune for, of the test set.
      report: Further metrics to report.
    """
    if not fields.get("validation"):  # Tasks of text have no such field.
        return {"metric": metric, "report": report}
    return {"metric": metric.replace("test_", "valid_"), "report": (metric, *report)}
