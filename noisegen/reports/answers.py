"""Answers questions about a sweep in sentences, each with its interval and its rule.

How large can the batch be? Which learning rate goes with it? Is one series, with noise for example,
better than another? Which questions remain open, and which further runs would answer them? Every
sentence is made from the records alone, by three rules:

* All tests of one question (all batch sizes, or all rows of all series) share one level.
* Each seed is scored at a learning rate chosen without it (`sweeps.row_evidence`).
* If no difference is seen, the sentence says how large it may still be.

`experiments/benchmarks/false_sentences.py` measures how often the sentences are false.
"""

from collections.abc import Callable, Sequence

from noisegen.reports.open_questions import missing_runs, open_questions
from noisegen.reports.scaling_answers import (
    batch_size_answers,
    learning_rate_answers,
    target_answers,
)
from noisegen.reports.sentences import Answer
from noisegen.reports.series_answers import series_answers
from noisegen.reports.steps import Steps
from noisegen.sweeps.protocol import Optimum, Protocol


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
            answers += batch_size_answers(of_series, protocol, len(labels))
            answers += learning_rate_answers(of_series, protocol)
        if steps is not None:
            answers += target_answers(label, steps, protocol)
    answers += series_answers(optima, protocol)
    if missing:
        is_race = protocol.search == "race"
        answers.append(missing_runs(missing, command, any_record=bool(optima), is_race=is_race))
        more_seeds = None  # The planned runs come first.
    answers += open_questions(optima, protocol, missing, num_test_examples, more_seeds)
    return answers


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
