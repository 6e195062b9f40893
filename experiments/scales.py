"""Checks the word after the colon of `--config=FILE.py:SCALE`."""


def check(scale: str, *scales: str) -> None:
    """Checks that an experiment has a scale.

    Args:
      scale: Name of a scale.
      *scales: All scales of the experiment.

    Raises:
      ValueError: If there is no such scale.
    """
    if scale not in scales:
        raise ValueError(
            f"There is no scale {scale!r}; write one of {', '.join(scales)} after the colon, as "
            "in NAME.py:cpu."
        )
