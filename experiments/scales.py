"""The scales of an experiment: the word after the colon of `--config=FILE.py:SCALE`."""

import ml_collections


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


def is_published(config: ml_collections.ConfigDict, paper: ml_collections.ConfigDict) -> bool:
    """Returns whether the results of a config compare with the published ones.

    The groups `task` and `run`, the number of seeds, and the number that counts must equal those of
    the scale `paper`. Every tuned value of its grid must be tried, and more may be. Batch sizes may
    be missing, because each is compared by itself. The dtype may differ, because it changes
    rounding only.
    """
    paper.task.dtype = config.task.dtype
    same = ("task", "run", "best")
    if any(config[name] != paper[name] for name in same):
        return False
    if len(config.grid.seed) != len(paper.grid.seed):
        return False
    tuned = [name for name in paper.grid if name not in ("seed", "batch_size")]
    return all(set(paper.grid[name]) <= set(config.grid[name]) for name in tuned)
