"""Writes the sentences under a table, which explain its numbers and its marks."""

from collections.abc import Mapping, Sequence

from noisegen.reports.formatting import capitalized, display_name
from noisegen.reports.sentences import tuned_fields
from noisegen.sweeps.protocol import FLAGS, Optimum, Protocol


def flag_marks(optima: Sequence[Optimum]) -> dict[str, str]:
    """Returns a letter for each flag that any optimum has, in the order of `FLAGS`."""
    raised = {flag for optimum in optima for flag in optimum.flags}
    flags = [flag for flag in FLAGS if flag in raised]
    return dict(zip(flags, "abcde", strict=False))


def was_tuned(optima: Sequence[Optimum]) -> bool:
    """Returns whether optima were chosen among several values; yes for no optima."""
    return not optima or any(len(optimum.points) > 1 for optimum in optima)


def make_notes(
    optima: Sequence[Optimum], protocol: Protocol, published: Mapping | None = None
) -> list[tuple[str, str]]:
    """Returns the notes of a table: for each its mark, '' for a general note, and its sentence."""
    sentences = [_describe_numbers(optima, protocol)]
    if was_tuned(optima):
        if protocol.best > 1:  # a single run has no standard deviation, and so no error bar
            sentences.append(_describe_range(protocol))
        if protocol.metric.split == "test":
            sentences.append(_describe_bias(protocol))
        if protocol.metric.split == "valid":
            sentences.append(_describe_validation(protocol))
        if protocol.search == "race":
            sentences.append(
                f"Found by a race: values of the {display_name(protocol.tune[0])} that cannot be"
                " the best have fewer seeds, or none."
            )
    if published:
        sentences.append(
            "Difference: measured minus published, in standard deviations (of both combined if both"
            " are known)."
        )
    notes = [("", sentence) for sentence in sentences]
    notes += [(mark, FLAGS[flag]) for flag, mark in flag_marks(optima).items()]
    return notes


def _describe_numbers(optima, protocol):
    """Says what the metric's cells hold, of which runs, and how these were chosen."""
    metric = capitalized(display_name(protocol.metric.name))
    statistic = "mean ± standard deviation" if protocol.best > 1 else "result"
    chosen = f", at the best {tuned_fields(protocol)}" if was_tuned(optima) else ""
    worst = "A diverged run"
    if protocol.metric.derive:
        worst = "A run that diverged or has no finite value"
    return (
        f"{metric}: {statistic} (number of runs) of {_describe_seeds(protocol)}{chosen}. {worst}"
        " counts as the worst."
    )


def _describe_seeds(protocol):
    """Says which runs of a point count. They differ in the seed only."""
    if protocol.of == 1:
        return "one seed"
    if protocol.best == protocol.of:
        return f"{protocol.of} seeds"
    if protocol.best == 1:
        return f"the best of {protocol.of} seeds"
    return f"the best {protocol.best} of {protocol.of} seeds"


def _describe_range(protocol):
    """Says what the range beside a tuned value is."""
    first = display_name(protocol.tune[0])
    return (
        f"In brackets beside the best {first}: the smallest and the largest {first} whose mean is"
        " within one standard deviation of the best mean."
    )


def _describe_bias(protocol):
    """Says that a metric is optimistic because the fields were tuned by it."""
    metric = display_name(protocol.metric.name)
    were = "was" if len(protocol.tune) == 1 else "were"
    return (
        f"Tuned on the test set: the {tuned_fields(protocol)} {were} chosen by the {metric} shown,"
        " which is therefore optimistic."
    )


def _describe_validation(protocol):
    """Says that fields were tuned without the test set."""
    were = "was" if len(protocol.tune) == 1 else "were"
    return (
        f"Tuned on the validation split: {tuned_fields(protocol)} {were} chosen by the"
        f" {display_name(protocol.metric.name)}, without the test set."
    )
