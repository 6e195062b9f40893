"""Says whether one series of a sweep is better than another."""

import math
from collections.abc import Sequence

from noisegen._text import count
from noisegen.reports.formatting import capitalized, display_name, format_number
from noisegen.reports.sentences import (
    FEWEST_SEEDS,
    LEVEL,
    PERCENT,
    UP_TO,
    Answer,
    about,
    held_out,
    named,
    range_with_unit,
    rows_named,
    with_unit,
)
from noisegen.sweeps import evidence
from noisegen.sweeps.protocol import Optimum, Protocol


def series_answers(optima: Sequence[Optimum], protocol: Protocol) -> list[Answer]:
    """Says at which rows each series differs from the first one."""
    compared = evidence.compare_series(optima, protocol, level=LEVEL)
    is_tuned = any(max(each.num_cells) > 1 for each in compared)
    shared_rule = (
        f"{held_out(protocol, is_tuned)} Tests are corrected by Holm, and {PERCENT} intervals"
        " hold together, for all rows and series."
    )
    answers = []
    for label in dict.fromkeys(comparison.series for comparison in compared):
        of_label = [each for each in compared if each.series == label]
        tested = [
            each
            for each in of_label
            if not math.isnan(each.adjusted_p) and each.difference.n >= FEWEST_SEEDS
        ]
        if not tested:
            continue
        found = [each for each in tested if each.adjusted_p <= 1 - LEVEL]
        rule = shared_rule
        if found:
            text = _differences(found, protocol)
            if any(each.difference.low <= 0 <= each.difference.high for each in found):
                rule += UP_TO
            numbers = {"differences": {each.row: _stated(each.difference) for each in found}}
            num_others = len(tested) - len(found)
            if num_others:
                rows = count(num_others, display_name(protocol.row))
                text += f". Elsewhere ({rows}) no difference is seen"
        else:
            ends = [
                abs(end) for each in tested for end in (each.difference.low, each.difference.high)
            ]
            text = (
                f"No difference from {tested[0].baseline} is seen at"
                f" {rows_named(protocol.row, tested)}: it is at most"
                f" {with_unit(protocol.metric, max(ends))} ({PERCENT})"
            )
            numbers = {"differences": {}, "at_most": max(ends)}
        answers.append(
            Answer(
                kind="series",
                series=label,
                text=about(label, text),
                rule=rule,
                figure="metric",
                numbers=numbers,
            )
        )
    return answers


def _differences(found, protocol) -> str:
    """Writes where a series is better, and where it is worse."""
    parts = []
    for word, sign in (("better", protocol.sign), ("worse", -protocol.sign)):
        rows = []
        for comparison in found:
            if sign * comparison.difference.value > 0:
                low, high = sorted(map(abs, _stated(comparison.difference)))
                amount = range_with_unit(protocol.metric, low, high)
                rows.append(f"{format_number(comparison.row)} (by {amount})")
        if rows:
            parts.append(f"{word} than {found[0].baseline} at {named(protocol.row, rows)}")
    return capitalized(", and ".join(parts))


def _stated(difference) -> tuple[float, float]:
    """Returns the interval of a difference without values of the sign that the test excludes.

    Holm's test finds a few differences whose simultaneous interval still contains 0.
    """
    if difference.value > 0:
        return max(difference.low, 0.0), difference.high
    return difference.low, min(difference.high, 0.0)
