"""Says how large the batch can be, at which learning rate, and how many updates it saves."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from noisegen import statistics
from noisegen._text import count
from noisegen.reports.formatting import display_name, format_number
from noisegen.reports.sentences import (
    FEWEST_SEEDS,
    LEVEL,
    PERCENT,
    UP_TO,
    Answer,
    about,
    held_out,
    listed,
    range_with_unit,
    spread,
    two_digits,
    with_unit,
)
from noisegen.reports.steps import Steps
from noisegen.sweeps import evidence
from noisegen.sweeps.protocol import Optimum, Protocol

_INFORMATIVE = 5  # standard deviations of a run; a larger bound excludes little
_WIDEST_EXPONENT = 1.0  # width of an interval; a wider one excludes no rule of scaling


def batch_size_answers(
    optima: Sequence[Optimum], protocol: Protocol, num_series: int
) -> list[Answer]:
    """Says up to which batch size the metric is not worse, and how much worse it is at the next.

    Args:
      optima: Those of one series.
      protocol: The protocol.
      num_series: Number of series that share the level.
    """
    scored = [(o, evidence.estimate(o, protocol)) for o in optima if _is_off_edge(o)]
    scored = [(optimum, score) for optimum, score in scored if score.n >= FEWEST_SEEDS]
    if len(scored) < 2:
        return []
    # Each series has an answer of its own, and all of them share the level.
    level = 1 - (1 - LEVEL) / num_series
    scores = [score for _, score in scored]
    last = statistics.last_not_lower(scores, level).row
    optimum, at_most = scored[last][0], _loss(scores, last, level).high
    if not math.isfinite(at_most):
        return []  # All seeds have equal scores, which show no noise.
    is_limited = protocol.metric.unit != "%" or at_most < 1
    is_informative = is_limited and at_most <= _INFORMATIVE * spread(optima)
    text = _largest_batch_size(scored, last, protocol)
    if last > 0:
        amount, seeds = with_unit(protocol.metric, at_most), count(scores[last].n, "seed")
        if at_most == 0:
            text += f": there it is better than at all others ({PERCENT})"
        elif is_informative:
            text += f": there it is at most {amount} worse than at the best ({PERCENT})"
        elif is_limited:
            text += f", but {seeds} do not exclude that it is {amount} worse there ({PERCENT})"
        else:
            text += f", but {seeds} do not limit how much worse it is there"
    numbers = {"row": optimum.row, "at_most": at_most}
    next_text, next_numbers = _next_batch_size(scored, last, level, protocol)
    is_tuned = any(len(each.points) > 1 for each, _ in scored)
    answer = Answer(
        kind="batch_size",
        series=optimum.series,
        text=about(optimum.series, text + next_text),
        rule=_batch_size_rule(protocol, is_tuned, num_series, next_numbers),
        figure="metric",
        numbers=numbers | next_numbers,
    )
    return [answer, *(_updates(scored, last, protocol) if is_informative else ())]


def _largest_batch_size(scored, last, protocol) -> str:
    """Says up to which batch size the metric is not measurably worse."""
    metric, row = display_name(protocol.metric.name), display_name(protocol.row)
    shown = format_number(scored[last][0].row)
    if last == 0:
        # All others are worse, so there is no loss to limit.
        text = f"The {metric} is measurably worse at every {row} above {shown}"
        return f"{text}, the smallest one compared"
    text = f"The {metric} is not measurably worse up to {row} {shown}"
    return text + (", the largest one compared" if last + 1 == len(scored) else "")


def _is_off_edge(optimum) -> bool:
    """Returns whether the best value is known not to be at an edge of those tried."""
    return not {"at_boundary", "all_diverged", "no_value", "unsettled"} & set(optimum.flags)


def _next_batch_size(scored, last, level, protocol) -> tuple[str, dict[str, Any]]:
    """Says how much worse the first batch size is that is measurably worse, if there is one."""
    if last + 1 == len(scored):
        return "", {}
    optimum, loss = scored[last + 1][0], _loss([score for _, score in scored], last + 1, level)
    if not math.isfinite(loss.high):
        return "", {}
    text = (
        f". At {format_number(optimum.row)} it is {with_unit(protocol.metric, loss.value)} worse"
        f" ({PERCENT}: {range_with_unit(protocol.metric, loss.low, loss.high)})"
    )
    return text, {"next_row": optimum.row, "lost": (loss.low, loss.high)}


def _batch_size_rule(protocol, is_tuned, num_series, next_numbers) -> str:
    """Says how the largest batch size without a loss was found."""
    rule = (
        f"Each {display_name(protocol.row)} is tested against the smaller ones, the largest first."
        f" Tests and intervals hold for all of them{' and all series' if num_series > 1 else ''}"
        f" together. {held_out(protocol, is_tuned)}"
    )
    contains_zero = "lost" in next_numbers and next_numbers["lost"][0] <= 0
    return rule + UP_TO if contains_zero else rule


def _loss(scores, row, level) -> statistics.Interval:
    """Returns how far one of several scores is below the greatest of the others, at least 0.

    With K scores, each of the K - 1 differences has an interval at 1 - (1 - level) / (K - 1).
    """
    shared = 1 - (1 - level) / (len(scores) - 1)
    differences = [
        statistics.estimated_difference(other, scores[row], shared)
        for index, other in enumerate(scores)
        if index != row
    ]
    values = np.array([(each.value, each.low, each.high) for each in differences])
    value, low, high = np.maximum(values.max(0), 0)
    return statistics.Interval(float(value), float(low), float(high), level)


def _updates(scored, last, protocol) -> list[Answer]:
    """Says how many updates the largest batch size without a loss saves."""
    if protocol.row != "batch_size" or last == 0:
        return []
    first, largest = scored[0][0], scored[last][0]
    before, after = (o.counted[0].num_updates for o in (first, largest))
    if not before or not after or before < 1.5 * after:
        return []
    text = (
        f"Batch size {format_number(largest.row)} makes {after:,} updates where"
        f" {format_number(first.row)} makes {before:,}: {two_digits(before / after)} times fewer"
    )
    return [
        Answer(
            kind="updates",
            series=largest.series,
            text=about(largest.series, text),
            rule="Counted, at the largest batch size that is not measurably worse.",
            figure="metric",
            numbers={"updates": (before, after)},
        )
    ]


def learning_rate_answers(optima: Sequence[Optimum], protocol: Protocol) -> list[Answer]:
    """Says with which power of the batch size the best learning rate grows."""
    answers = []
    laws = evidence.learning_rate_laws(optima, protocol, level=LEVEL)
    for label, law in laws.items():
        exponent = law.exponent
        if not exponent.high - exponent.low <= _WIDEST_EXPONENT:
            continue
        name = display_name(protocol.tune[0])
        text = (
            f"From batch size {format_number(law.low_x)} to {format_number(law.high_x)} the best"
            f" {name} scales as batch size to the power {exponent.value:.2f} ({PERCENT}:"
            f" {exponent.low:.2f} to {exponent.high:.2f}), which {_rules(exponent)}"
        )
        answers.append(
            Answer(
                kind="learning_rate",
                series=label,
                text=about(label, text),
                rule=(
                    f"A line fitted to the logarithms. The best {name} is the top of a parabola"
                    " through the best value tried and those beside it, or the best value itself"
                    " if there is no such top."
                ),
                figure="tuned",
                numbers={"exponent": (exponent.value, exponent.low, exponent.high)},
            )
        )
    return answers


def _rules(exponent) -> str:
    """Says which rules of scaling an exponent agrees with, as the end of a sentence."""
    rules = {"the linear rule (1)": 1.0, "the square-root rule (1/2)": 0.5, "a constant (0)": 0.0}
    agreeing = [name for name, value in rules.items() if exponent.low <= value <= exponent.high]
    if not agreeing:
        return f"excludes {listed(rules)}"
    if len(agreeing) == 1:
        return f"agrees with {agreeing[0]}"
    return f"does not tell {listed(agreeing)} apart"


def target_answers(label: str, steps: Steps, protocol: Protocol) -> list[Answer]:
    """Says up to which batch size a larger one saves updates to the hardest target."""
    scalings = [each for each in steps.scalings if each.series == label]
    if not scalings or "few_rows" in scalings[-1].flags:
        return []
    scaling = scalings[-1]
    rows = {
        row.row: row for row in steps.rows if (row.series, row.target) == (label, scaling.target)
    }
    smallest, useful = rows[min(rows)], rows[scaling.largest_useful]
    if not smallest.is_measured or not useful.is_measured:
        return []
    if min(smallest.n, useful.n) < FEWEST_SEEDS:
        return []
    metric = protocol.metric
    target = f"{display_name(metric.name)} {format_number(metric.factor * scaling.target)}"
    target += f" {metric.unit}" if metric.unit else ""
    size = format_number(useful.row)
    if useful is smallest:
        text = f"No batch larger than {size} measurably saves updates on the way to {target}"
    else:
        ending = "the largest one still saves updates"
        if "no_plateau" not in scaling.flags:
            ending = "larger ones do not measurably save more"
        text = (
            f"To reach {target}, batch size {size} takes {useful.updates.value:,.0f} updates where"
            f" {format_number(smallest.row)} takes {smallest.updates.value:,.0f}; {ending}"
        )
    [fit] = [each for each in steps.fits if (each.series, each.target) == (label, scaling.target)]
    critical = fit.batch_size
    if not fit.flags and math.isfinite(critical.low):
        text += (
            f". The critical batch size is {critical.value:,.0f} ({PERCENT}:"
            f" {critical.low:,.0f} to {critical.high:,.0f})"
        )
    rule = (
        "First crossing of the target, at the learning rate of fewest updates. A batch saves"
        f" updates if {PERCENT} intervals show a difference of more than 5 %. The critical"
        " batch size is that of McCandlish et al. (2018), fitted to updates and examples."
    )
    return [
        Answer(
            kind="target",
            series=label,
            text=about(label, text),
            rule=rule,
            figure="steps",
            numbers={
                "target": scaling.target,
                "largest_useful": useful.row,
                "critical": (critical.value, critical.low, critical.high),
            },
        )
    ]
