"""Answers questions about a sweep in sentences, each with its interval and its rule.

How large can the batch be? Which learning rate goes with it? Is one series, with noise for example,
better than another? Which questions remain open, and which further runs would answer them? Every
sentence is made from the records alone, by three rules:

* All tests of one question (all batch sizes, or all rows of all series) share one level.
* Each seed is scored at a learning rate chosen without it (`sweeps.row_evidence`).
* If no difference is seen, the sentence says how large it may still be.

`experiments/benchmarks/false_sentences.py` measures how often the sentences are false.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from noisegen import statistics
from noisegen.reports.formatting import capitalized, display_name, format_number, ordered
from noisegen.reports.steps import Steps
from noisegen.sweeps import evidence
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import Optimum, Protocol

LEVEL = 0.95  # of all intervals and tests
_PERCENT = f"{100 * LEVEL:g} %"
_FEWEST_SEEDS = 3  # a held-out score needs two seeds to choose with
_INFORMATIVE = 5  # standard deviations of a run; a larger bound excludes little
_UP_TO = (
    ' "Up to" a number: the interval contains 0, which the test excludes, because intervals that'
    " hold together are wider."
)
_WIDEST_EXPONENT = 1.0  # width of an interval; a wider one excludes no rule of scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A sentence about a sweep.

    Attributes:
      kind: "batch_size", "updates", "learning_rate", "target" or "series"; "open" for a question
        that is left open. Advice also has "measured" and "cost".
      series: Label of the series that it is about; '' if there is one only, or if it is about all.
      text: The sentence.
      rule: How it was found, in a sentence; '' if the sentence says so itself.
      figure: Name of the figure of a page that shows it, as in `figures.Figure`, or ''.
      command: A command that trains the runs that it asks for, or ''.
      numbers: The numbers that it states, by name.
    """

    kind: str
    series: str = ""
    text: str
    rule: str = ""
    figure: str = ""
    command: str = ""
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_answers(
    optima: Sequence[Optimum],
    protocol: Protocol,
    *,
    steps: Steps | None = None,
    missing: int = 0,
    num_test_examples: int | None = None,
    more_seeds: Callable[[int], str] | None = None,
    command: str = "",
) -> list[Answer]:
    """Returns the answers that the optima of a sweep give, and the questions that they leave open.

    Args:
      optima: The optima, as `sweeps.select` returns them.
      protocol: The protocol given to `select`.
      steps: Steps to targets, as `steps.read_steps` returns them.
      missing: Number of runs without a record.
      num_test_examples: Number of test examples, if it is known.
      more_seeds: Function `number of seeds -> command` that trains them, if there is one.
      command: The command that trains the missing runs, or ''.
    """
    answers = []
    labels = dict.fromkeys(optimum.series for optimum in optima)
    for label in labels:
        of_series = [optimum for optimum in optima if optimum.series == label and optimum.n]
        if protocol.has_scaling_rule:
            answers += _batch_size(of_series, protocol, len(labels))
            answers += _learning_rate(of_series, protocol)
        if steps is not None:
            answers += _target(label, steps, protocol)
    answers += _series(optima, protocol)
    if missing:
        answers.append(_missing(missing, command, any_record=bool(optima)))
        more_seeds = None  # The planned runs come first.
    answers += _open(optima, protocol, missing, num_test_examples, more_seeds)
    return answers


# How large can the batch be?


def _batch_size(optima, protocol, num_series) -> list[Answer]:
    """Says up to which batch size the metric is not worse, and how much worse it is at the next."""
    scored = [(o, evidence.estimate(o, protocol)) for o in optima if _is_off_edge(o)]
    scored = [(optimum, score) for optimum, score in scored if score.n >= _FEWEST_SEEDS]
    if len(scored) < 2:
        return []
    # Each series has an answer of its own, and all of them share the level.
    shared = 1 - (1 - LEVEL) / num_series
    scores = [score for _, score in scored]
    last = statistics.last_not_lower(scores, shared).row
    optimum, at_most = scored[last][0], _loss(scores, last, shared).high
    is_first, is_last = last == 0, last + 1 == len(scored)
    if not math.isfinite(at_most):
        return []  # All seeds have equal scores, which show no noise.
    metric, row = display_name(protocol.metric.name), display_name(protocol.row)
    numbers = {"row": optimum.row, "at_most": at_most}
    is_limited = protocol.metric.unit != "%" or at_most < 1
    is_informative = is_limited and at_most <= _INFORMATIVE * _spread(optima)
    if is_first:
        # All others are worse, so there is no loss to limit.
        text = (
            f"The {metric} is measurably worse at every {row} above {format_number(optimum.row)},"
            " the smallest one compared"
        )
    else:
        text = f"The {metric} is not measurably worse up to {row} {format_number(optimum.row)}"
        if is_last:
            text += ", the largest one compared"
        amount, seeds = _amount(protocol.metric, at_most), _count(scores[last].n, "seed")
        if at_most == 0:
            text += f": there it is better than at all others ({_PERCENT})"
        elif is_informative:
            text += f": there it is at most {amount} worse than at the best ({_PERCENT})"
        elif is_limited:
            text += f", but {seeds} do not exclude that it is {amount} worse there ({_PERCENT})"
        else:
            text += f", but {seeds} do not limit how much worse it is there"
    if not is_last:
        beyond, loss = scored[last + 1][0], _loss(scores, last + 1, shared)
        if math.isfinite(loss.high):
            numbers |= {"next_row": beyond.row, "lost": (loss.low, loss.high)}
            text += (
                f". At {format_number(beyond.row)} it is"
                f" {_amount(protocol.metric, loss.value)} worse"
                f" ({_PERCENT}: {_range(protocol.metric, loss.low, loss.high)})"
            )
    is_tuned = any(len(each.points) > 1 for each, _ in scored)
    contains_zero = numbers.get("lost", (1, 1))[0] <= 0
    rule = (
        f"Each {row} is tested against the smaller ones, the largest first. Tests and intervals"
        f" hold for all of them{' and all series' if num_series > 1 else ''} together."
        f" {_held_out(protocol, is_tuned)}{_UP_TO if contains_zero else ''}"
    )
    answer = Answer(
        kind="batch_size",
        series=optimum.series,
        text=about(optimum.series, text),
        rule=rule,
        figure="metric",
        numbers=numbers,
    )
    return [answer, *(_updates(scored, last, protocol) if is_informative else ())]


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


def _spread(optima) -> float:
    """Returns the median over rows of the standard deviation over seeds."""
    return float(np.nanmedian([evidence.noise(optimum) for optimum in optima]))


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
        f" {format_number(first.row)} makes {before:,}: {_digits(before / after)} times fewer"
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


# Which learning rate goes with it?


def _learning_rate(optima, protocol) -> list[Answer]:
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
            f" {name} scales as batch size to the power {exponent.value:.2f} ({_PERCENT}:"
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
        return f"excludes {_listed(rules)}"
    if len(agreeing) == 1:
        return f"agrees with {agreeing[0]}"
    return f"does not tell {_listed(agreeing)} apart"


# How many updates does a larger batch save?


def _target(label, steps, protocol) -> list[Answer]:
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
    if min(smallest.n, useful.n) < _FEWEST_SEEDS:
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
            f". The critical batch size is {critical.value:,.0f} ({_PERCENT}:"
            f" {critical.low:,.0f} to {critical.high:,.0f})"
        )
    rule = (
        "First crossing of the target, at the learning rate of fewest updates. A batch saves"
        f" updates if {_PERCENT} intervals show a difference of more than 5 %. The critical"
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


# Is one series better than another?


def _series(optima, protocol) -> list[Answer]:
    """Says at which rows each series differs from the first one."""
    compared = evidence.compare_series(optima, protocol, level=LEVEL)
    is_tuned = any(max(each.num_cells) > 1 for each in compared)
    shared_rule = (
        f"{_held_out(protocol, is_tuned)} Tests are corrected by Holm, and {_PERCENT} intervals"
        " hold together, for all rows and series."
    )
    answers = []
    for label in dict.fromkeys(comparison.series for comparison in compared):
        of_label = [each for each in compared if each.series == label]
        tested = [
            each
            for each in of_label
            if not math.isnan(each.adjusted_p) and each.difference.n >= _FEWEST_SEEDS
        ]
        if not tested:
            continue
        found = [each for each in tested if each.adjusted_p <= 1 - LEVEL]
        rule = shared_rule
        if found:
            text = _differences(found, protocol)
            if any(each.difference.low <= 0 <= each.difference.high for each in found):
                rule += _UP_TO
            numbers = {"differences": {each.row: _stated(each.difference) for each in found}}
            num_others = len(tested) - len(found)
            if num_others:
                rows = _count(num_others, display_name(protocol.row))
                text += f". Elsewhere ({rows}) no difference is seen"
        else:
            ends = [
                abs(end) for each in tested for end in (each.difference.low, each.difference.high)
            ]
            text = (
                f"No difference from {tested[0].baseline} is seen at"
                f" {_rows(protocol.row, tested)}: it is at most"
                f" {_amount(protocol.metric, max(ends))} ({_PERCENT})"
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
                amount = _range(protocol.metric, low, high)
                rows.append(f"{format_number(comparison.row)} (by {amount})")
        if rows:
            parts.append(f"{word} than {found[0].baseline} at {_named(protocol.row, rows)}")
    return capitalized(", and ".join(parts))


def _stated(difference) -> tuple[float, float]:
    """Returns the interval of a difference without values of the sign that the test excludes.

    Holm's test finds a few differences whose simultaneous interval still contains 0.
    """
    if difference.value > 0:
        return max(difference.low, 0.0), difference.high
    return difference.low, min(difference.high, 0.0)


# What remains open?


def _missing(missing, command, any_record) -> Answer:
    """Says how many runs have no record, and how to train them."""
    if any_record:
        runs = "1 run has" if missing == 1 else f"{missing:,} runs have"
        return _open_answer(f"{runs} no record yet, so every sentence may still change", command)
    text = "Nothing is trained yet: the only run has no record"
    if missing > 1:
        text = f"Nothing is trained yet: none of the {missing:,} runs has a record"
    if not command:
        text += ". Call sweep.run() first"
    return _open_answer(text, command)


def _open(optima, protocol, missing, num_test_examples, more_seeds) -> list[Answer]:
    """Names the questions that the records leave open, and the runs that would answer them.

    While runs are missing, no others are asked for.
    """
    sentences = []
    alive = [optimum for optimum in optima if optimum.n]
    dead = [optimum for optimum in optima if not optimum.n]
    name = display_name(protocol.tune[0])
    at_edge = [optimum for optimum in alive if "at_boundary" in optimum.flags]
    if at_edge:
        rows = _rows(protocol.row, at_edge)
        left_out = ""
        if protocol.has_scaling_rule:
            left_out = " (left out of the sentences on batch size and learning rate)"
        remedy = "" if missing else ". Extend the grid there"
        sentences.append(
            f"The best {name} may lie beyond the values tried at {rows}{left_out}{remedy}"
        )
    if dead:
        rows = _rows(protocol.row, dead)
        ending = " so far" if missing else f". Try a smaller {name} there"
        none = "Every run diverged"
        if protocol.metric.derive:
            none = f"No run has a finite value of {display_name(protocol.metric.name)}"
        sentences.append(f"{none} at {rows}{ending}")
    answers = [_open_answer(sentence) for sentence in sentences]
    if alive:
        answers += _seeds(alive, protocol, missing, num_test_examples, more_seeds)
    return answers


def _seeds(optima, protocol, missing, num_test_examples, more_seeds) -> list[Answer]:
    """Says which differences the seeds and the test set cannot show."""
    seeds = round(np.median([optimum.point.tried for optimum in optima]))
    row = display_name(protocol.row)
    if seeds < _FEWEST_SEEDS:
        text = f"With {_count(seeds, 'seed')} no difference can be told from chance"
        if not missing:
            text += f". Train at least {_FEWEST_SEEDS}"
        return [_open_answer(text, more_seeds and more_seeds(_FEWEST_SEEDS))]
    deviation = _spread(optima)
    if not 0 < deviation < math.inf:
        text = (
            f"The seeds have equal scores and so show no noise: no two {_plural(row)} can be"
            " compared"
        )
        return [_open_answer(text)]
    least = statistics.least_difference(deviation, seeds, level=LEVEL)
    needed = statistics.seeds_needed(deviation, least / 2, level=LEVEL)
    text = (
        f"With {seeds} seeds a difference of {_amount(protocol.metric, least)} between two"
        f" {_plural(row)} is seen four times out of five"
    )
    if not missing:
        text += f"; to see half of it takes {needed} seeds"
    answers = [_open_answer(text, more_seeds and more_seeds(needed))]
    is_share = protocol.metric.split == "test" and protocol.metric.unit == "%"
    if num_test_examples and is_share:
        # The same test set scores every run, so the seeds do not show its own error.
        best = protocol.sign * max(protocol.sign * optimum.mean for optimum in optima)
        error = statistics.proportion_error(best, num_test_examples)
        if error > deviation / math.sqrt(seeds):
            answers.append(
                _open_answer(
                    f"Another test set of {num_test_examples:,} examples would move the"
                    f" {display_name(protocol.metric.name)} by {_amount(protocol.metric, error)}"
                    " (standard error), more than other seeds do. Every sentence is about this test"
                    " set alone",
                )
            )
    return answers


def _open_answer(text, command=None) -> Answer:
    return Answer(kind="open", text=f"{text}.", command=command or "")


def to_text(answers: Sequence[Answer]) -> str:
    """Returns answers as lines for a terminal, with their commands and rules."""
    rules = list(dict.fromkeys(answer.rule for answer in answers if answer.rule))
    lines = []
    for answer in answers:
        mark = f" [{rules.index(answer.rule) + 1}]" if answer.rule else ""
        lines.append(f"- {answer.text}{mark}")
        if answer.command:
            lines.append(f"    {answer.command}")
    lines += [f"[{number}] {rule}" for number, rule in enumerate(rules, 1)]
    return "\n".join(lines)


# Parts of sentences


def _is_off_edge(optimum) -> bool:
    """Returns whether the best value is known not to be at an edge of those tried."""
    return not {"at_boundary", "all_diverged", "no_value", "unsettled"} & set(optimum.flags)


def about(label: str, text: str) -> str:
    """Returns a sentence about a series, which is named if it has a label."""
    return f"{label}: {text[0].lower()}{text[1:]}." if label else f"{text}."


def _held_out(protocol, is_tuned) -> str:
    """Says at which values of the tuned fields a seed is scored."""
    if is_tuned:
        return f"Each seed is scored at the {_tuned(protocol)} that the other seeds choose."
    return f"Nothing was tuned: each {display_name(protocol.row)} has a single {_tuned(protocol)}."


def _tuned(protocol) -> str:
    return " and ".join(display_name(name) for name in protocol.tune)


def _amount(metric: Metric, amount: float) -> str:
    """Writes a difference of a metric with its unit."""
    if metric.unit == "%" and amount >= 1:
        return "100 points"  # With few seeds the interval may exceed 100 points.
    shown = _digits(metric.factor * amount)
    return f"{shown} points" if metric.unit == "%" else f"{shown} {metric.unit}".strip()


def _range(metric: Metric, low: float, high: float) -> str:
    """Writes an interval of the size of a difference of a metric."""
    if low <= 0:
        return f"up to {_amount(metric, high)}"
    if _digits(metric.factor * low) == _digits(metric.factor * high):
        return _amount(metric, high)
    return f"{_digits(metric.factor * low)} to {_amount(metric, high)}"


def _digits(value: float) -> str:
    """Writes a number with two digits."""
    if not value:
        return "0"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _rows(name: str, found) -> str:
    """Writes the rows of optima or comparisons, each once."""
    return _named(name, [format_number(row) for row in ordered(each.row for each in found)])


def _named(name: str, values: Sequence[str]) -> str:
    """Writes values of a field behind its name, in singular or plural."""
    what = display_name(name)
    return f"{what if len(values) == 1 else _plural(what)} {_listed(values)}"


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {_plural(what)}"


def _plural(what: str) -> str:
    if what.endswith("ss"):
        return f"{what}es"
    return what if what.endswith("s") else f"{what}s"  # A field such as num_epochs is plural.
