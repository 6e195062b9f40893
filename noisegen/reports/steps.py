"""Reads the steps to targets of a sweep over batch sizes, for its answers and its page."""

import dataclasses
from collections.abc import Mapping, Sequence

from noisegen.storage import Record
from noisegen.sweeps import critical_batch, data_parallelism, targets
from noisegen.sweeps.critical_batch import CriticalBatch
from noisegen.sweeps.data_parallelism import Scaling
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.targets import RowTarget

MOST_RUNS = 5_000  # whose curves a report reads; they take some 10 kB each


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps to targets that every batch size reaches.

    Attributes:
      rows: Updates and examples to each target, by series and batch size.
      scalings: Regions of data parallelism of each series and target.
      fits: Critical batch size of each series and target.
    """

    rows: Sequence[RowTarget]
    scalings: Sequence[Scaling]
    fits: Sequence[CriticalBatch]


def read_steps(
    records: Sequence[Record], protocol: Protocol, curves: Mapping[str, Mapping]
) -> Steps | None:
    """Returns the steps to targets, None if batch sizes cannot be compared by them.

    That is so if rows are not batch sizes, if the curves are too short or lack the metric, or if no
    target lies between the first evaluations and the best value that every batch size reaches.

    Args:
      records: Records of the sweep.
      protocol: How to read them.
      curves: From run_id to curve.
    """
    if protocol.row != "batch_size" or not protocol.has_scaling_rule:
        return None
    try:
        proposed = targets.propose_targets(records, protocol, curves, quantiles=(0.5, 1.0))
        rows = targets.steps_to_target(records, protocol, proposed, curves)
        return Steps(
            rows=rows,
            scalings=data_parallelism.scaling_regions(rows),
            fits=critical_batch.critical_batch_sizes(rows),
        )
    except ValueError:  # No target can be proposed; `sweeps.propose_targets` says why.
        return None
