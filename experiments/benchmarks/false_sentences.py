"""Measures how often the answers of a sweep are false, on sweeps whose truth is known.

Scores are drawn around planted means: a parabola over the logarithm of the learning rate, whose top
falls with the batch size, or does not, and whose best learning rate is a power of the batch size.
The standard deviation of a run differs between batch sizes and grows beside the best learning rate,
runs of equal seeds are correlated, and far above the best learning rate runs diverge. Nothing is
trained. `reports.make_answers` then reads the records, and every number that it states is compared
with the truth: that of the best learning rate on the grid.

A sentence is false if any of its numbers is, or if it states a difference where there is none. That
a difference is not seen cannot be false, but the sentence then says how large it is at most, which
can. Sentences about open questions and counted updates are left out. With 400 sweeps the standard
error of a share of 5 % is 1.1 % in each case, and 0.2 % over all cases.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from experiments.benchmarks import machine, report
from noisegen import reports, storage, sweeps
from noisegen.sweeps import search

TITLE = "False sentences among the answers of sweeps whose truth is known"
BATCH_SIZES = sweeps.powers_of_two(16, 1024)
RATES = sweeps.powers_of_two(2**-8, 4)
SEEDS = (3, 5, 15)
DEVIATION = 0.005  # of a run at the best learning rate, in a typical row
STEP = 0.01  # by which the mean falls, where it does, for each doubling of the batch size
CURVATURE = 0.01  # by which the mean falls an octave beside the best learning rate
CORRELATION = 0.3  # of runs with equal seeds in a row
PLAIN, NOISE = "plain", "noise"
KINDS = {
    "batch_size": "loss at a batch size",
    "learning_rate": "exponent of the learning rate",
    "series": "difference of two series",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A truth, and how many runs look for it.

    Attributes:
      name: Words for the table.
      peak: How the best mean depends on the batch size, see `mean`.
      exponent: Of the batch size, in the best learning rate. With 1 all best learning rates are on
        the grid, so that a constant best mean is constant there, too.
      effect: Mean of a second series minus that of the first; None without a second one.
      every: The first series has every such learning rate only, and so is a little worse where the
        best one is left out. The second series has all.
      search: As for `Protocol`.
    """

    name: str
    peak: str
    exponent: float = 0.8
    effect: float | None = None
    every: int = 1
    search: str = "grid"

    def mean(self, label: str, batch_size: float, rate: float) -> float:
        """Returns the true mean of a setting."""
        doublings = math.log2(batch_size / BATCH_SIZES[0])
        fall = {
            "constant": 0.0,
            "falls beyond 128": max(doublings - 3, 0),
            "rises to 128, then falls": abs(doublings - 3),
        }[self.peak]
        shift = self.effect if label == NOISE else 0.0
        return 0.9 + shift - STEP * fall - CURVATURE * self.octaves(batch_size, rate) ** 2

    def octaves(self, batch_size: float, rate: float) -> float:
        """Returns how far a learning rate is above the best one of a batch size."""
        return math.log2(rate) + 5 - self.exponent * math.log2(batch_size / BATCH_SIZES[0])

    def rates(self, label: str) -> list[float]:
        """Returns the learning rates that are tried for a series."""
        return list(RATES[:: self.every] if label == PLAIN else RATES)

    def best(self, label: str, batch_size: float) -> float:
        """Returns the true mean at the best of the learning rates tried."""
        return max(self.mean(label, batch_size, rate) for rate in self.rates(label))

    def labels(self) -> list[str]:
        """Returns the labels of the series; one that stands alone has a label, too."""
        return [PLAIN] if self.effect is None else [PLAIN, NOISE]


CASES = (
    Case(name="constant", peak="constant", exponent=1.0),
    Case(name="falls beyond 128", peak="falls beyond 128"),
    Case(name="rises to 128, then falls", peak="rises to 128, then falls"),
    Case(name="falls, by a race", peak="falls beyond 128", search="race"),
    Case(name="two equal series", peak="falls beyond 128", effect=0.0),
    Case(name="two equal series, 4 and 11 rates", peak="falls beyond 128", effect=0.0, every=3),
    Case(name="two series, 1 point apart", peak="falls beyond 128", effect=0.01),
)


def measure(options: machine.Options) -> dict:
    """Counts the sentences, and the false ones, of every case and number of seeds."""
    num_sweeps = 2 if options.quick else 400
    found = []
    for seeds in SEEDS[:2] if options.quick else SEEDS:
        for case in CASES:
            found.append(_count(case, seeds, num_sweeps))
            machine.say(f"  {case.name}, {seeds} seeds: {found[-1]}")
    return {"num_sweeps": num_sweeps, "cases": found}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the share of false sentences of each kind, and of sweeps that have any."""
    lines = []
    for kind, words in KINDS.items():
        stated = sum(case["stated"].get(kind, 0) for case in record["cases"])
        false = sum(case["false"].get(kind, 0) for case in record["cases"])
        of_cases = [
            100 * case["false"].get(kind, 0) / case["stated"][kind]
            for case in record["cases"]
            if case["stated"].get(kind)
        ]
        value = f"{_share(false, stated)}; {max(of_cases, default=0):.1f} in the worst case"
        lines.append((f"false among {stated:,} sentences, %: {words}", value, "< 5"))
    num_sweeps = record["num_sweeps"]
    shares = [100 * case["sweeps_with_any"] / num_sweeps for case in record["cases"]]
    lines.append(("sweeps with any false sentence, % of a case's", report.spread(shares), ""))
    return lines


def details(record: dict) -> str:
    """Returns a table of the cases."""
    lines = []
    for case in record["cases"]:
        cells = [
            f"{_share(case['false'].get(kind, 0), case['stated'].get(kind, 0))}"
            f" of {case['stated'].get(kind, 0):,}"
            for kind in KINDS
        ]
        cells.append(_share(case["sweeps_with_any"], record["num_sweeps"]))
        cells.append(_share(case["drops"], case["stated"].get("batch_size", 0)))
        num_rows = len(BATCH_SIZES) * case["stated"].get("series", 0)
        cells.append(_share(case["differences"], num_rows))
        lines.append((case["case"], str(case["seeds"]), *cells))
    header = ("truth", "seeds", *(f"{words}: false, %" for words in KINDS.values()))
    return report.table(
        (*header, "any false, % of sweeps", "drop seen, %", "rows told apart, %"), lines
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _count(case: Case, seeds: int, num_sweeps: int) -> dict:
    stated: dict[str, int] = collections.Counter()
    false: dict[str, int] = collections.Counter()
    sweeps_with_any, num_drops, num_differences = 0, 0, 0
    protocol = sweeps.Protocol(
        best=seeds,
        of=seeds,
        max_extensions=0,
        search=case.search,
        series=lambda run: run["series"],
        labels=tuple(case.labels()),
    )
    for number in range(num_sweeps):
        random = np.random.default_rng([number, seeds])
        records = draw(case, seeds, random)
        if case.search == "race":
            records = _raced(records, protocol)
        answers = reports.make_answers(sweeps.select(records, protocol), protocol)
        flags = [
            (answer.kind, is_false(answer, case)) for answer in answers if answer.kind in KINDS
        ]
        stated.update(kind for kind, _ in flags)
        false.update(kind for kind, flag in flags if flag)
        sweeps_with_any += any(flag for _, flag in flags)
        num_drops += sum("next_row" in answer.numbers for answer in answers)
        num_differences += sum(len(answer.numbers.get("differences", ())) for answer in answers)
    return {
        "case": case.name,
        "seeds": seeds,
        "stated": dict(stated),
        "false": dict(false),
        "sweeps_with_any": sweeps_with_any,
        "drops": num_drops,
        "differences": num_differences,
    }


def draw(case: Case, seeds: int, random: np.random.Generator) -> list[storage.Record]:
    """Draws the records of a sweep."""
    records = []
    for label in case.labels():
        for batch_size in BATCH_SIZES:
            shared = math.sqrt(CORRELATION) * DEVIATION * random.standard_normal(seeds)
            own = math.sqrt(1 - CORRELATION) * DEVIATION * math.exp(0.3 * random.standard_normal())
            for rate in case.rates(label):
                above = case.octaves(batch_size, rate)
                noise = shared + own * (1 + 0.3 * abs(above)) * random.standard_normal(seeds)
                scores = case.mean(label, batch_size, rate) + noise
                for seed, score in enumerate(scores.tolist()):
                    run = {"batch_size": batch_size, "learning_rate": rate}
                    records.append(
                        storage.Record(
                            hparams=run | {"seed": seed, "series": label},
                            status="finished" if above <= 3 else "diverged",
                            metrics={"test_accuracy": score if above <= 3 else math.nan},
                        )
                    )
    return records


def _raced(records: Iterable[storage.Record], protocol) -> list[storage.Record]:
    """Returns those of the records that a race trains."""
    by_id = {sweeps.run_id("task", record.hparams): record for record in records}
    planned = {name: record.hparams for name, record in by_id.items()}
    racing = search.Search("task", planned, [protocol])
    racing.wanted({})  # No record was there before.
    return [by_id[name] for name in racing.wanted(by_id)]


def is_false(answer: reports.Answer, case: Case) -> bool:
    """Returns whether any number of a sentence is false."""
    if answer.kind == "batch_size":
        return _is_false_loss(answer.numbers, answer.series, case)
    if answer.kind == "learning_rate":
        _, low, high = answer.numbers["exponent"]
        return not low <= case.exponent <= high
    truth = {size: case.best(NOISE, size) - case.best(PLAIN, size) for size in BATCH_SIZES}
    if "at_most" in answer.numbers:
        return any(abs(each) > answer.numbers["at_most"] for each in truth.values())
    stated = answer.numbers["differences"].items()
    return any(not low <= truth[size] <= high or truth[size] == 0 for size, (low, high) in stated)


def _is_false_loss(numbers: Mapping, label: str, case: Case) -> bool:
    truth = {size: case.best(label, size) for size in BATCH_SIZES}
    best = max(truth.values())
    false = best - truth[numbers["row"]] > numbers["at_most"] + 1e-12
    if "next_row" in numbers:
        beyond = numbers["next_row"]
        before = max(mean for size, mean in truth.items() if size < beyond)
        low, high = numbers["lost"]
        false |= truth[beyond] >= before - 1e-12
        false |= not low - 1e-12 <= best - truth[beyond] <= high + 1e-12
    return false
