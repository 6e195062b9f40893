"""What experiments with several scales share."""

from collections.abc import Mapping
from typing import Any


def at_scale(scale: str, choices: Mapping[str, Any]) -> Any:
    """What an experiment is at one of its scales.

    Raises:
      ValueError: there is no such scale.
    """
    if scale not in choices:
        raise ValueError(
            f"There is no scale {scale!r}; write one of {', '.join(choices)} after the colon, as "
            "in NAME.py:cpu."
        )
    return choices[scale]
