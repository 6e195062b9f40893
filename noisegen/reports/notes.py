"""Writes the sentences under a table, which explain its numbers and its marks."""

from collections.abc import Mapping, Sequence

from noisegen.reports.formatting import display_name
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
    notes = [("", _choice(optima, protocol))]
    first = display_name(protocol.tune[0])
    if was_tuned(optima) and protocol.best > 1:
        notes.append(
            (
                "",
                f"The range in brackets holds every {first} whose mean is within one standard"
                " deviation of the best.",
            )
        )
    metric = display_name(protocol.metric.name)
    if was_tuned(optima) and protocol.metric.split == "test":
        notes.append(
            (
                "",
                f"Tuned on the test set: {_tuned_fields(protocol)} chosen by the same {metric}"
                " that is shown.",
            )
        )
    if was_tuned(optima) and protocol.metric.split == "valid":
        notes.append(
            (
                "",
                f"Tuned on the validation split: {_tuned_fields(protocol)} chosen by {metric},"
                " without the test set.",
            )
        )
    if published:
        notes.append(
            (
                "",
                "Difference: measured minus published, in standard deviations (of both together"
                " where both are known).",
            )
        )
    notes += [(mark, FLAGS[flag]) for flag, mark in flag_marks(optima).items()]
    return notes


def _choice(optima, protocol):
    """Says how many runs a number is of, and how they were chosen."""
    statistic = "Mean ± standard deviation" if protocol.best > 1 else "Result"
    best = "" if protocol.best == protocol.of else f"best {protocol.best} of "
    runs = f"the {best}{protocol.of} runs" if protocol.of > 1 else "one run"
    tuned = f" with the best {_tuned_fields(protocol)}" if was_tuned(optima) else ""
    return f"{statistic} (number) of {runs}{tuned}; a diverged run counts as the worst."


def _tuned_fields(protocol):
    """Names the tuned fields."""
    return " and ".join(display_name(name) for name in protocol.tune)
