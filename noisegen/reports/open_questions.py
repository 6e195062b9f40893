"""Names the questions that records leave open, and the runs that would answer them."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from noisegen import statistics
from noisegen._text import count, plural
from noisegen.reports.formatting import display_name
from noisegen.reports.sentences import (
    FEWEST_SEEDS,
    LEVEL,
    Answer,
    rows_named,
    spread,
    with_unit,
)
from noisegen.sweeps.protocol import Optimum, Protocol


def missing_runs(missing: int, command: str, any_record: bool, is_race: bool) -> Answer:
    """Says how many runs have no record, and how to train them."""
    if any_record:
        runs = "1 run has" if missing == 1 else f"{missing:,} runs have"
        others = " and the race may add others" if is_race else ""
        return _answer(f"{runs} no record yet{others}, so every sentence may still change", command)
    text = "Nothing is trained yet: the only run has no record"
    if missing > 1:
        text = f"Nothing is trained yet: none of the {missing:,} runs has a record"
    if not command:
        text += ". Call sweep.run() first"
    return _answer(text, command)


def open_questions(
    optima: Sequence[Optimum],
    protocol: Protocol,
    missing: int,
    num_test_examples: int | None,
    more_seeds: Callable[[int], str] | None,
) -> list[Answer]:
    """Names the questions that the records leave open, and the runs that would answer them.

    While runs are missing, no others are asked for. Arguments as for `answers.make_answers`.
    """
    sentences = []
    alive = [optimum for optimum in optima if optimum.n]
    dead = [optimum for optimum in optima if not optimum.n]
    name = display_name(protocol.tune[0])
    at_edge = [optimum for optimum in alive if "at_boundary" in optimum.flags]
    if at_edge:
        rows = rows_named(protocol.row, at_edge)
        left_out = ""
        if protocol.has_scaling_rule:
            left_out = " (left out of the sentences on batch size and learning rate)"
        remedy = "" if missing else ". Extend the grid there"
        sentences.append(
            f"The best {name} may lie beyond the values tried at {rows}{left_out}{remedy}"
        )
    if dead:
        rows = rows_named(protocol.row, dead)
        ending = " so far" if missing else f". Try a smaller {name} there"
        none = "Every run diverged"
        if protocol.metric.derive:
            none = f"No run has a finite value of {display_name(protocol.metric.name)}"
        sentences.append(f"{none} at {rows}{ending}")
    answers = [_answer(sentence) for sentence in sentences]
    if alive:
        answers += _seeds(alive, protocol, missing, num_test_examples, more_seeds)
    return answers


def _seeds(optima, protocol, missing, num_test_examples, more_seeds) -> list[Answer]:
    """Says which differences the seeds and the test set cannot show."""
    seeds = round(np.median([optimum.point.tried for optimum in optima]))
    row = display_name(protocol.row)
    if seeds < FEWEST_SEEDS:
        text = f"With {count(seeds, 'seed')} no difference can be told from chance"
        if not missing:
            text += f". Train at least {FEWEST_SEEDS}"
        return [_answer(text, more_seeds and more_seeds(FEWEST_SEEDS))]
    deviation = spread(optima)
    if not 0 < deviation < math.inf:
        text = (
            f"The seeds have equal scores and so show no noise: no two {plural(row)} can be"
            " compared"
        )
        return [_answer(text)]
    least = statistics.least_difference(deviation, seeds, level=LEVEL)
    needed = statistics.seeds_needed(deviation, least / 2, level=LEVEL)
    text = (
        f"With {seeds} seeds a difference of {with_unit(protocol.metric, least)} between two"
        f" {plural(row)} is seen four times out of five"
    )
    if not missing:
        text += f"; to see half of it takes {needed} seeds"
    rule = (
        f"A t test at {100 * (1 - LEVEL):.0f} %, with the median over {plural(row)} of the standard"
        " deviation over seeds."
    )
    answers = [_answer(text, more_seeds and more_seeds(needed), rule)]
    is_share = protocol.metric.split == "test" and protocol.metric.unit == "%"
    if num_test_examples and is_share:
        # The same test set scores every run, so the seeds do not show its own error.
        best = protocol.sign * max(protocol.sign * optimum.mean for optimum in optima)
        error = statistics.proportion_error(best, num_test_examples)
        if error > deviation / math.sqrt(seeds):
            answers.append(
                _answer(
                    f"Another test set of {num_test_examples:,} examples would move the"
                    f" {display_name(protocol.metric.name)} by {with_unit(protocol.metric, error)}"
                    " (standard error), more than other seeds do. Every sentence is about this test"
                    " set alone",
                    rule="The binomial standard error of the best row's score.",
                )
            )
    return answers


def _answer(text, command=None, rule="") -> Answer:
    return Answer(kind="open", text=f"{text}.", command=command or "", rule=rule)
