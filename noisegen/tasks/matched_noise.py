"""Checks the runs of tasks whose noise is matched to a smaller batch."""

from collections.abc import Mapping

from noisegen.training import Plan


def check_matched_noise(
    hparams: Mapping[str, float], plan: Plan, field: str = "reference_batch_size"
) -> None:
    """Checks that a run adds noise; noise cannot be taken away from a batch.

    Give it to a task as `check_run`. Without it, a run whose batch is smaller than the reference
    batch diverges at its first update.

    Args:
      hparams: The run's hyperparameters. A run without the field is not checked.
      plan: The run's plan.
      field: Name of the field that holds the reference batch size.

    Raises:
      ValueError: If the reference batch is not between 0 and the run's smallest batch.

    Examples:
      >>> from noisegen import training
      >>> run = {"batch_size": 8, "num_updates": 5, "seed": 0, "reference_batch_size": 4}
      >>> check_matched_noise(run, training.plan(run, 64))
    """
    reference = hparams.get(field, plan.smallest_batch)
    if isinstance(reference, bool | str) or not 0 < reference <= plan.smallest_batch:
        raise ValueError(
            f"{field}={reference!r} must be above 0 and at most {plan.smallest_batch}, the run's "
            "smallest batch: noise is added to make a batch as noisy as a smaller one, and cannot "
            "be taken away."
        )
