"""The fields that all runs of an experiment share."""

from collections.abc import Mapping
from typing import Any

from noisegen import sweeps


def fixed(fields: Mapping[str, Any]) -> sweeps.Grid:
    """Returns the group `run` of a config as a grid of one point.

    `last_batch="straddle"`, the engine's default, is left out. Runs thus keep the ids that they had
    before the configs named it.
    """
    kept = dict(fields)
    if kept.get("last_batch") == "straddle":
        del kept["last_batch"]
    return sweeps.fixed(**kept)
