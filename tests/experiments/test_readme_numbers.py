"""The numbers and quotations in the READMEs of the experiments are those of the records.

A README is read section by section, from heading to heading. The sweeps of a section are those that
it links. In such a section

* a quotation (lines that begin with `> `) has sentences of a sweep's `answers.txt`, word for word;
* a table row whose key, a batch size for example, is a row of a sweep has numbers of that row only;
  its key is in its first cell or, in a table that lies on its side, in the header;
* a bullet that begins with words in bold judges a claim by the rule in `experiments/README.md`;
* decimal numbers in all other rows, in bullets and in the prose below a table are numbers of these
  rows or quotations, settings of the runs, published, or computed from the records in `COMPUTED`.

All numbers are compared at the digits shown.
"""

import collections
import dataclasses
import functools
import importlib
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pytest

from experiments.additive_noise.plots import oscillation
from experiments.jaiswal2020 import figure4
from experiments.smith2020 import table1
from experiments.smith2020.plots import regimes
from experiments.zhang2019.plots import steps_to_target, transformer
from noisegen import reports, statistics, storage, sweeps
from noisegen.sweeps import evidence

ROOT = pathlib.Path(__file__).parents[2]
READMES = {path.parent.name: path for path in sorted(ROOT.glob("experiments/*/README.md"))}
RESULTS = "experiments/results/"
VERDICTS = ("Holds", "Does not hold", "Not told apart", "Not tested")

# READMEs whose numbers are not checked, with the reason. Their quotations are.
NOT_YET = {
    "benchmarks": "its numbers come from programs, not from sweeps",
}

_NUMBER = re.compile(
    r"(?<![\w.^])([-+−]?)(\d+\^-?\d+|\d+(?:\.\d+)?e-?\d+|(?:\d{1,3}(?:,\d{3})+|\d+)?\.\d+"
    r"|\d{1,3}(?:,\d{3})+|\d+)(?![\w^])"
)
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)#\s]+)[^)]*\)")
_KEY = re.compile(rf"(?:[a-z ]+ )?({_NUMBER.pattern})")


# What a README says


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of a text: value, decimals (inf if it is exact), how it is written, and where."""

    value: float
    decimals: float
    text: str
    start: int
    end: int

    def is_one_of(self, values: Iterable[float], signed: bool = False) -> bool:
        """Returns whether a value is this number at the digits shown."""
        margin = 0.5 * 10.0**-self.decimals
        for value in values:
            gap = abs(value - self.value) if signed else abs(abs(value) - abs(self.value))
            if gap <= margin + 1e-9 * abs(value):
                return True
        return False


@dataclasses.dataclass
class Section:
    """A part of a README from heading to heading, with the sweeps that it links."""

    heading: str
    folder: str
    workdirs: list[str]
    quotations: list[str] = dataclasses.field(default_factory=list)
    tables: list[list[list[str]]] = dataclasses.field(default_factory=list)
    prose: list[str] = dataclasses.field(default_factory=list)  # bullets, and what follows a table

    def texts(self) -> list[str]:
        """Returns its prose, and each row of a table behind the table's header."""
        rows = [" | ".join([*header, *row]) for header, *rows in self.tables for row in rows]
        return [*self.prose, *rows]


def numbers(text: str) -> list[Number]:
    """Returns the numbers of a text, without those in code and in the targets of links."""
    found = []
    for match in _NUMBER.finditer(_plain(text)):
        sign, digits = match.groups()
        decimals = len(digits.partition(".")[2])
        if "^" in digits:
            base, power = digits.split("^")
            value, decimals = float(base) ** int(power), math.inf
        else:
            value = float(digits.replace(",", ""))
            decimals = math.inf if "e" in digits else decimals
        value = -value if sign in ("-", "−") else value
        found.append(Number(value, decimals, digits, match.start(), match.end()))
    return found


def groups(text: str) -> Iterator[list[Number]]:
    """Yields the numbers of a table's cell, those of `a ± b` and of `a (b to c)` together."""
    found, text = numbers(text), _plain(text)
    gaps = [text[a.end : b.start].strip(" %") for a, b in zip(found, found[1:], strict=False)]
    while found:
        size = 2 if gaps[:1] == ["±"] else 1
        if gaps[:1] == ["("] and gaps[1:2] in (["–"], ["to"]):
            size = 3
        yield found[:size]
        found, gaps = found[size:], gaps[size:]


def sections(text: str, folder: str) -> Iterator[Section]:
    """Yields the sections of a README in a folder."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for part in re.split(r"^(?=#+ )", text, flags=re.MULTILINE):
        heading, _, body = part.partition("\n")
        section = Section(heading, folder, _workdirs(part, folder))
        for block in _blocks(body):
            lines = [line.strip() for line in block]
            if lines[0].startswith("|"):
                rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
                section.tables.append([rows[0], *rows[2:]])
            elif lines[0].startswith(">"):
                section.quotations.append(" ".join(line[1:].strip() for line in lines))
            elif lines[0].startswith("* ") or section.tables or section.quotations:
                section.prose.append(" ".join(lines))
        yield section


def _plain(text):
    return re.sub(r"`[^`]*`", "", _LINK.sub(r"\1", text)).replace("*", "")


def _blocks(body):
    """Yields tables, quotations, bullets and paragraphs as lists of lines."""
    block = []
    for line in [*body.splitlines(), ""]:
        mark = line[:1] if line[:1] in "|>" else line[:2] if line[:2] == "* " else ""
        is_end = not line.strip(" >") or mark == "* " or (block and mark != _mark(block[-1], mark))
        if block and is_end:
            yield block
            block = []
        if line.strip(" >") and not line.startswith("    "):
            block.append(line)


def _mark(previous, mark):
    """Returns the mark that a line needs to continue the block of a previous line."""
    return previous[0] if previous[0] in "|>" else mark if mark == "" else ""


@functools.cache
def _workdirs(text, folder):
    """Returns the directories of the sweeps that a text links."""
    found = {}
    for _, target in _LINK.findall(text):
        path = (ROOT / folder / target).resolve()
        for parent in (path, *path.parents):
            if RESULTS in f"{parent}/" and (parent / "sweep.json").exists():
                found[str(parent.relative_to(ROOT))] = None
    return list(found)


# What the records give


@dataclasses.dataclass(frozen=True)
class Line:
    """The numbers of one series and row of a sweep, in the units shown.

    A group is a mean with its standard deviation, a value with the ends of its interval or error
    bar, or a single number.
    """

    series: str
    row: float
    groups: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Results:
    """What may be said of a sweep: its lines, its settings, published numbers, its answers."""

    lines: tuple[Line, ...]
    settings: frozenset[float]
    published: tuple[float, ...]
    answers: tuple[str, ...]


def open_sweep(name: str) -> sweeps.Sweep:
    """Opens a sweep by its path below `experiments/results`."""
    return _open(RESULTS + name)


@functools.cache
def _open(workdir) -> sweeps.Sweep:
    return sweeps.Sweep.open(ROOT / workdir)


@functools.cache
def _results(workdir) -> Results:
    sweep = _open(workdir)
    lines, published = [], []
    for protocol in sweep.protocols:
        optima = sweep.optima(protocol)
        percents = {each.name for each in (protocol.metric, *protocol.report) if each.unit == "%"}
        if protocol.metric.unit == "%":
            percents |= {"all_seeds", "unseen_seeds", "difference", "published"}
        frames = [
            sweep.table(protocol),
            reports.make_evidence(optima, protocol, sweep.published),
            reports.make_differences(optima, protocol),
        ]
        for frame in frames:
            for cells in frame.to_dict("records"):
                lines.append(_line(cells, protocol, percents))
    constants = [group for each in _published_constants(sweep) for group in _flat(each)]
    published = [value for _, group in constants for value in group]
    for row in dict.fromkeys(line.row for line in lines):
        lines.append(Line("", row, tuple(group for keys, group in constants if row in keys)))
    settings = {float(v) for r in sweep.records() for v in r.hparams.values() if _is_number(v)}
    text = (ROOT / workdir / "answers.txt").read_text()
    answers = re.findall(r"^- (.*?)(?: \[\d+\])?$", text, re.MULTILINE)
    return Results(tuple(lines), frozenset(settings), tuple(published), tuple(answers))


def _line(cells: Mapping, protocol, percents) -> Line:
    """Returns a line of a table; its fractions of a percentage times 100."""
    found = {}
    for name, value in cells.items():
        if _is_number(value) and name != protocol.row:
            base = re.sub("_(mean|std|low|high)$", "", name)
            factor = 100 if base.removesuffix("_published") in percents or base == "share" else 1
            found.setdefault(base, []).append(factor * value)
    return Line(cells["series"], cells[protocol.row], tuple(map(tuple, found.values())))


def _published_constants(sweep) -> list:
    """Returns published numbers: those of the sweep and those its experiment's file names so."""
    if not sweep.origin:
        return []
    path = sweep.origin.experiment.partition(":")[0].removesuffix(".py")
    module = importlib.import_module(path.replace("/", "."))
    named = [value for name, value in vars(module).items() if "PUBLISHED" in name]
    return [sweep.published, *named]


def _flat(constant, keys=()) -> Iterator[tuple[tuple, tuple]]:
    """Yields the numbers of a nested constant, one by one and as grouped there, with their keys."""
    if _is_number(constant):
        yield keys, (float(constant),)
    elif isinstance(constant, Mapping):
        for key, value in constant.items():
            own = key if isinstance(key, tuple) else (key,)
            yield from _flat(value, (*keys, *own))
    elif isinstance(constant, tuple | list):
        if all(map(_is_number, constant)):
            yield keys, tuple(constant)
        for value in constant:
            yield from _flat(value, keys)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# What is wrong with a README


def verdicts(section: Section) -> list[str]:
    """Returns the verdicts of a section's claims."""
    return re.findall(r"^\* \*\*(.+?)\.\*\*", "\n".join(section.prose), re.MULTILINE)


def wrong_quotations(section: Section) -> list[str]:
    """Returns what no sweep of a section answers in its quotations."""
    known = {answer for workdir in section.workdirs for answer in _results(workdir).answers}
    known |= {part for answer in known for part in re.split(r"(?<=\.) (?=[A-Z])", answer)}
    wrong = []
    for quotation in section.quotations:
        rest = re.sub(r" \[\d+\]", "", quotation)
        for sentence in sorted(known, key=len, reverse=True):
            rest = rest.replace(sentence, "")
        if rest.strip(" *"):
            wrong.append(rest.strip(" *"))
    return wrong


def wrong_numbers(section: Section, computed: Mapping) -> list[str]:
    """Returns the numbers of a section that its sweeps do not give, each with its line."""
    if not section.workdirs:
        return [
            f"{' | '.join(row)}: no sweep is linked in this section"
            for table in section.tables
            for row in table
            if "±" in "".join(row)
        ]
    wrong = []
    shown = [number.value for quotation in section.quotations for number in numbers(quotation)]
    texts = list(section.prose)
    for header, *rows in section.tables:
        for row in rows:
            text = " | ".join([*header, *row])
            known = [_of_cell(section, header, row, column) for column in range(len(row))]
            extra = _computed(text, computed)
            if not any(known) and not extra:
                texts.append(text)
                continue
            for cell, known_groups in zip(row[1:], known[1:], strict=True):
                for group in groups(cell):
                    shown += [number.value for number in group]
                    if not _is_known(group, known_groups, extra):
                        texts_of = " ".join(number.text for number in group)
                        wrong.append(f"{texts_of} in {cell!r} of | {' | '.join(row)} |")
    results = [_results(workdir) for workdir in section.workdirs]
    shown += [value for each in results for value in (*each.settings, *each.published)]
    for text in texts:
        for number in numbers(text):
            known = [*shown, *_computed(text, computed)]
            if re.search("[.^]", number.text) and not number.is_one_of(known):
                wrong.append(f"{number.text} in {text!r}")
    return wrong


def _is_known(group, known, computed) -> bool:
    """Returns whether the numbers of a cell are those of a line, or are computed."""
    if all(number.is_one_of(computed, signed=True) for number in group):
        return True
    return any(
        len(each) >= len(group)
        and all(n.is_one_of([value], signed=True) for n, value in zip(group, each, strict=False))
        for each in known
    )


def _of_cell(section, header, row, column) -> list[tuple[float, ...]]:
    """Returns the numbers that a cell of a table may show; none if its row has no key."""
    if not column:
        return []
    names = [_plain(row[0]), _plain(header[column])]
    keys = [_KEY.fullmatch(name) for name in names]
    keys = {number.value for key in keys if key for number in numbers(key[1])}
    values = []
    for workdir in _workdirs(header[column], section.folder) or section.workdirs:
        lines = _results(workdir).lines
        labels = {line.series for line in lines if line.series}
        own = set()
        for name in names:
            # Of "noise" and "no noise" the longer label is meant.
            within = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}", name)]
            own |= {max(within, key=len)} if within else set()
        is_own = [line for line in lines if not own or not line.series or line.series in own]
        if not keys and names[0] in labels and len({line.row for line in lines}) == 1:
            keys = {line.row for line in lines}  # the name of a series, which has a single row
        values += [group for line in is_own if line.row in keys for group in line.groups]
    return values


def _computed(text, computed) -> list[float]:
    """Returns the numbers computed for a sentence."""
    values = []
    for fragment, function in computed.items():
        if fragment in text:
            found = function()
            values += [found] if _is_number(found) else list(found)
    return values


# Numbers that are computed from the records


def scores(name, row, metric, series="", protocol=0, **changed) -> dict[int, float]:
    """Returns a metric of every seed at the optimum of a row, or at other values of some fields."""
    sweep = open_sweep(name)
    protocol = sweep.protocols[protocol]
    [optimum] = [
        each for each in sweep.optima(protocol) if (each.series, each.row) == (series, row)
    ]
    wanted = optimum.counted[0].hparams | changed
    factor = 100 if metric == "test_accuracy" else 1
    return {
        record.hparams["seed"]: factor * record.metrics[metric]
        for record in sweep.records()
        if record.status == "finished"
        and record.hparams | {"seed": None} == wanted | {"seed": None}
    }


def differences(*pairs: tuple[dict, dict]) -> list[float]:
    """Tests pairs of scores, the first minus the second of each, paired by seed.

    Returns the mean difference, the ends of its interval and the p value of each. Intervals hold
    together, p values are corrected by Holm.
    """
    level = 1 - 0.05 / len(pairs)
    found = [statistics.paired_difference(*statistics.pair_by_seed(*pair), level) for pair in pairs]
    p_values = statistics.holm([each.p_value for each in found]).tolist()
    numbers = [
        (each.value, each.low, each.high, p) for each, p in zip(found, p_values, strict=True)
    ]
    return [number for each in numbers for number in each]


def _bounds_of_p(found) -> list[float]:
    """Returns the powers of ten that all p values of `differences` are below."""
    largest = max(found[3::4])
    return [10.0**-power for power in range(1, 10) if largest < 10.0**-power]


def steps(name, metric, rows, **options) -> list[float]:
    """Tests every row against the one before."""
    found = [scores(name, row, metric, **options) for row in rows]
    return differences(*zip(found[1:], found[:-1], strict=True))


def from_first(name, metric, rows, **options) -> list[float]:
    """Tests every row against the first one."""
    first, *others = [scores(name, row, metric, **options) for row in rows]
    return differences(*((other, first) for other in others))


def exponent(rows, rates) -> statistics.Interval:
    """Returns the exponent of rates that are a factor of two apart."""
    return statistics.power_law(rows, rates, grid_octaves=1).exponent


def _ends(interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


# Of Smith, Elsen & De


_SIZES = [2**power for power in range(4, 12)]
_SIZES_UP_TO_128 = [4, 8, 16, 32, 64, 128]
_MNIST1 = "smith2020/cpu/table1_mnist"
_MNIST_FIGURE1 = "smith2020/cpu/figure1_mnist"
_MNIST_FIGURE2 = "smith2020/cpu/figure2_mnist"
_MNIST_EPOCHS = [5, 10, 20, 40, 80, 160, 320]
_SMALL = {"SGD": [4, 8, 16, 32], "momentum .9": [4, 8, 16]}  # where no loss of accuracy is seen
_AUTOENCODER = "smith2020/cpu/autoencoder_fitted"
_ANEW = "batches drawn anew"
_EPOCHS = [20, 40, 80, 160, 320, 640]
_TABLE1, _FIGURE1, _FIGURE2, _FIGURE3 = (
    f"smith2020/cpu/{name}" for name in ("table1", "figure1", "figure2", "figure3")
)


def _factor(name, one, other):
    """Returns the factor between the training losses of two rows of batches drawn anew."""
    losses = [
        np.mean(list(scores(name, row, "clean_train_loss", _ANEW).values())) for row in (one, other)
    ]
    return [losses[0] / losses[1]]


def _published_exponent():
    published = table1._PUBLISHED
    return _ends(exponent(list(published), [rates[0] for _, _, rates in published.values()]))


def _visible_exponent():
    """Returns the largest exponent below 1 that Table 1 would show with a power of .8."""
    sweep = open_sweep(_TABLE1)
    [law] = evidence.learning_rate_laws(sweep.optima(), sweep.protocols[0]).values()
    interval, freedom = law.exponent, law.n - 2
    error = (interval.high - interval.value) / statistics.t_quantile(0.95, freedom)
    pairs = freedom + 1
    return 1 - statistics.least_difference(error * math.sqrt(pairs), pairs, paired=True)


def _law(name, series, low, high):
    """Returns the exponent of the best rates of a Figure 1 for some of its batch sizes."""
    sweep = open_sweep(name)
    optima = [each for each in sweep.optima() if each.series == series and low <= each.row <= high]
    return _ends(evidence.learning_rate_laws(optima, sweep.protocols[0])[series].exponent)


def _rates(name, protocol):
    """Returns the exponent of the best rates of a Figure 2 over epochs."""
    sweep = open_sweep(name)
    optima = sweep.optima(sweep.protocols[protocol])
    rates = [each.values["effective_learning_rate"] for each in optima]
    return _ends(exponent([each.row for each in optima], rates))


def _at_rates(series, one, other):
    """Tests two learning rates of Figure 1 at batch size 2048."""
    return differences(
        tuple(
            scores(_FIGURE1, 2048, "test_accuracy", series, effective_learning_rate=rate)
            for rate in (one, other)
        )
    )


def _choices(name, rows, second):
    """Tests the rates of best accuracy against those of least training loss."""
    pairs = []
    for row in rows:
        sweep = open_sweep(name)
        [optimum] = [each for each in sweep.optima() if each.row == row]
        unseen = evidence.held_out(optimum, sweep.protocols[0]).scores
        seeds = optimum.point.seeds
        pairs.append(
            (
                {seed: 100 * score for seed, score in zip(seeds, unseen, strict=True)},
                scores(name, row, "test_accuracy", protocol=second),
            )
        )
    return differences(*pairs)


@functools.cache
def _boundaries():
    """Returns the numbers of the program `regimes`."""
    folder = ROOT / RESULTS / "smith2020/cpu"
    found = []
    for row in regimes.compare(folder / "figure1", folder / "stability"):
        fit = row["boundary"]
        found += [fit.batch_size, fit.low, fit.high, row["stable"], row["best"]]
        found.append(row["stable"] / row["best"])
    return found


def _momentum_over_sgd():
    """Returns the factor of the best rates on MNIST with momentum, with its interval over rows."""
    rates = {(each.series, each.row): each.values for each in open_sweep(_MNIST_FIGURE1).optima()}
    octaves = {
        row: math.log2(
            rates["momentum .9", row]["effective_learning_rate"]
            / rates["SGD", row]["effective_learning_rate"]
        )
        for row in (64, 128, 256, 512, 1024)
    }
    return [2**end for end in interval(octaves)]


def _momentum_minus_sgd(metric, rows):
    return differences(
        *(
            tuple(scores(_MNIST_FIGURE1, row, metric, series) for series in ("momentum .9", "SGD"))
            for row in rows
        )
    )


def _test_losses(name):
    """Returns the mean test loss of the runs that count at each optimum."""
    return [
        np.mean([record.metrics["test_loss"] for record in optimum.counted])
        for optimum in open_sweep(name).optima()
    ]


def _near_chance():
    losses = open_sweep("smith2020/cpu/stability").to_frame()
    losses = losses[(losses.momentum == 0) & (losses.effective_learning_rate == 8)].train_loss
    return [regimes.CHANCE, *losses]


def _of_temperature(metric):
    return [
        scores("smith2020/cpu/temperature", 16, metric, series)
        for series in ("growing the batch", "decaying the learning rate")
    ]


# Of the other papers


_MATCHED = "matched_noise/cpu/mnist_steps"
_FUTURE = "jaiswal2020/cpu/future"
_CURVATURE = "jaiswal2020/cpu/figure3"
_RATIOS = [2.0**power for power in range(-13, -8)]


def accuracies(name, row, series, **changed) -> dict[int, float]:
    """Returns the test accuracy of every seed in percent, see `scores`."""
    return scores(name, row, "test_accuracy", series, **changed)


def interval(sample: Mapping[int, float]) -> list[float]:
    """Returns the mean of a sample with the ends of its interval."""
    return _ends(statistics.mean_interval(list(sample.values())))


def least_of_pairs(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Returns the difference of paired scores that is seen four times out of five."""
    pairs = np.subtract(*statistics.pair_by_seed(one, other))
    return statistics.least_difference(np.std(pairs, ddof=1), len(pairs), paired=True)


def _of_series(name, row, **changed):
    return [accuracies(name, row, series, **changed) for series in ("noise", "no noise")]


def _beside_published():
    sweep = open_sweep("additive_noise/table1")
    frame = reports.make_evidence(sweep.optima(), sweep.protocols[0], sweep.published)
    measured = 100 * frame.set_index(["series", "batch_size"]).all_seeds
    differences = [measured[key] - value for key, (value, _) in sweep.published.items()]
    return [*sweep.origin.config.grid.eta, 0.005, *frame.difference_in_se, *differences]


def _largest_published():
    published = open_sweep("additive_noise/table1").published
    return max(
        value - published["no noise", row][0]
        for (series, row), (value, _) in published.items()
        if series == "noise"
    )


def _largest_eta():
    """Returns the least and the largest lead of eta .3, the least p value, and the power."""

    def of_eta(size, eta):
        return accuracies("additive_noise/table1", size, "noise", eta=eta, learning_rate=0.05)

    pairs = [
        (of_eta(size, 0.3), of_eta(size, eta))
        for size in (32768, 45000)
        for eta in (0.1, 0.01, 0.005)
    ]
    found = differences(*pairs)
    # Each is a difference, the ends of its interval, and its p value.
    leads, p_values = found[::4], found[3::4]
    least = [least_of_pairs(*pair) for pair in pairs]
    return [0.3, 0.1, 0.01, 0.005, min(leads), max(leads), min(p_values), min(least), max(least)]


def _fixed_sizes():
    decaying = accuracies("additive_noise/table1", 32768, "noise")
    fixed = [
        accuracies("additive_noise/fixed_noise", 32768, "noise", eta=eta)
        for eta in (0.03, 0.1, 0.3)
    ]
    return differences(*((decaying, each) for each in fixed))


@functools.cache
def _oscillations(eta):
    """Returns the numbers of the program `oscillation`, and the largest drop of every seed."""
    sweep = open_sweep("additive_noise/figure1")
    records = [record for record in sweep.records() if record.hparams["eta"] == eta]
    curves = sweep.curves(record.run_id for record in records)
    rows, drops = [], {}
    for record in records:
        accuracy = 100 * np.array(curves[record.run_id]["test_accuracy"])
        rows.append((*oscillation.oscillation(accuracy), accuracy[-1]))
        drops[record.hparams["seed"]] = rows[-1][0]
    return [*np.mean(rows, axis=0), *np.std(rows, axis=0, ddof=1)], drops


def _smaller_swings():
    drops = [_oscillations(eta)[1] for eta in (0, 0.3)]
    return [*differences(drops), least_of_pairs(*drops)]


def _full_batches():
    """Returns the accuracies after some updates of full-batch descent."""
    found = []
    for name in ("figure2", "table3"):
        sweep = open_sweep(f"additive_noise/{name}")
        curves = sweep.curves(record.run_id for record in sweep.records())
        for curve in curves.values():
            at = dict(zip(curve["update"], curve["test_accuracy"], strict=True))
            found += [100 * at[update] for update in (10, 20, 40, 60, 80, 100, 500) if update in at]
    return [*found, *(value for value, _ in open_sweep("additive_noise/table3").published.values())]


def _as_many_updates():
    figures = ("jaiswal2020/cpu/figure5", "jaiswal2020/cpu/figure4")
    return differences(
        *([accuracies(name, row, "no noise") for name in figures] for row in (64, 128))
    )


def _log_eigenvalues(size, ratio):
    found = scores(_CURVATURE, ratio, "largest_eigenvalue", f"batch size {size}")
    return {seed: math.log(value) for seed, value in found.items()}


def _doublings_of_ratio():
    sizes = (16, 64, 256)
    pairs = [
        (_log_eigenvalues(size, 2 * ratio), _log_eigenvalues(size, ratio))
        for size in sizes
        for ratio in _RATIOS[:-1]
    ]
    return differences(*pairs)


def _flatter():
    """Returns by which factors batch size 256 is flatter than 16."""
    means = open_sweep(_CURVATURE).table().set_index(["series", "temperature"])
    means = means.largest_eigenvalue_mean
    return [means["batch size 16", ratio] / means["batch size 256", ratio] for ratio in _RATIOS]


def _epochs_over_anew():
    """Tests batches in epochs against batches drawn anew, at both of the best rates of size 4."""
    found = []
    for rate in (2**-4, 2**-3):
        fields = {"effective_learning_rate": rate}
        epochs = accuracies(_MNIST1, 4, "batches in epochs", **fields)
        found += differences((epochs, accuracies(_MNIST1, 4, _ANEW, **fields)))
    return found


def _kinds():
    """Tests noise of the whole covariance against isotropic and diagonal noise."""
    return differences(
        *(
            (accuracies(_MATCHED, size, "full"), accuracies(_MATCHED, size, kind))
            for size in (128, 384, 768)
            for kind in ("isotropic", "diagonal")
        )
    )


def _small_batch():
    """Tests the small batch against large ones without noise."""
    small = accuracies(_MATCHED, 16, "small batch")
    pairs = [(small, accuracies(_MATCHED, size, "no noise")) for size in (128, 384, 768)]
    return [*differences(*pairs), *(least_of_pairs(*pair) for pair in pairs)]


def _equal_choices():
    sweep = open_sweep("matched_noise/cpu/mnist_epochs")
    frame = reports.make_differences(sweep.optima(), sweep.protocols[0], equalize=True)
    [row] = frame[(frame.series == "tuned noise") & (frame.batch_size == 768)].itertuples()
    return [100 * row.difference, 100 * row.difference_low, 100 * row.difference_high]


# Of Zhang et al.


@functools.cache
def _quadratic():
    """Returns the tables of the program `steps_to_target`."""
    found = steps_to_target.load(ROOT / RESULTS / "zhang2019/cpu/noisy_quadratic")
    return steps_to_target.compare_steps(*found), steps_to_target.compare_critical(*found)


def _updates(size):
    """Returns the updates to 5 % of the first loss at a batch size."""
    steps, _ = _quadratic()
    is_meant = (steps["batch size"] == size) & (steps.target == steps.target.min())
    [line] = steps[is_meant].to_dict("records")
    return list(line.values())


def _of_rule(figure, size):
    """Returns the test accuracy of every seed at a batch size of a figure of Signer & Barbier."""
    return accuracies(f"signer2021/{figure}", size, "")


def _square_root_over_linear(*sizes):
    pairs = [(_of_rule("figure2", size), _of_rule("figure3", size)) for size in sizes]
    return differences(*pairs)


def _curves(figure, size, **fields):
    """Returns the test accuracy of each run at a batch size, by epoch and in percent."""
    return [
        100 * np.array(record.curve["test_accuracy"])
        for record in storage.read_records(f"{RESULTS}signer2021/{figure}")
        if record.hparams.items() >= {"batch_size": size, **fields}.items()
    ]


def _epochs_to_95(figure, *sizes, **fields):
    """Returns the epochs to a test accuracy of 95 %, with 31 for more than 30."""
    curves = [curve for size in sizes for curve in _curves(figure, size, **fields)]
    return [int(np.argmax([*(curve >= 95), True])) + 1 for curve in curves]


def _square_root_over_fixed():
    """Tests how much more the square-root rule adds at 8192 than at 128."""

    def gain(size):
        fixed = _of_rule("figure1", size)
        return {seed: score - fixed[seed] for seed, score in _of_rule("figure2", size).items()}

    return differences((gain(8192), gain(128)))


def _momentum_is_earlier():
    """Returns epochs to 95 % with and without momentum at 64, and with it at 8192.

    Nothing if at some batch size a run with momentum is not earlier than all runs without.
    """
    for size in (64, 128, 256, 512, 1024, 2048, 4096, 8192):
        if max(_epochs_to_95("figure5", size)) >= min(_epochs_to_95("figure1", size)):
            return []
    return [*_epochs_to_95("figure5", 64, 8192), *_epochs_to_95("figure1", 64)]


def _largest_falls(figure, **fields):
    """Returns the largest fall of the accuracy at 8192 in an epoch after the fifth, of each run."""
    return [-np.diff(curve)[4:].min() for curve in _curves(figure, 8192, **fields)]


def _warmed_up():
    """Returns extremes of the accuracy at 4096 and 8192 with warm-up.

    They are the smallest and the largest over the runs of the best accuracy in ten epochs, the
    largest of the worst one later, and the last one of every run.
    """
    curves = [*_curves("figure4", 4096), *_curves("figure4", 8192)]
    best = [curve[:10].max() for curve in curves]
    ends = [curve[-1] for curve in curves]
    return [min(best), max(best), max(curve[10:].min() for curve in curves), *ends]


def _up_to(largest, figure, other):
    """Tests a sweep against another at each batch size, and returns what three seeds show."""
    sizes = sweeps.powers_of_two(64, largest)
    pairs = [(_of_rule(figure, size), _of_rule(other, size)) for size in sizes]
    return [*differences(*pairs), *(least_of_pairs(*pair) for pair in pairs)]


def _of_base_rate(learning_rate):
    """Returns the test accuracy of every seed at a learning rate and batch size 64."""
    return accuracies("signer2021/base_rate", 64, "", learning_rate=learning_rate)


def _critical(*columns):
    """Returns columns of the table of critical batch sizes, for both targets."""
    return _quadratic()[1][list(columns)].to_numpy().ravel().tolist()


def _noise_over_fit():
    """Returns the ratio of the noise scale and the critical batch size for both targets."""
    _, critical = _quadratic()
    return (critical["noise scale"] / critical["fit to mean curve"]).tolist()


@functools.cache
def _transformer():
    """Returns the critical batch sizes of the transformer, by optimizer and ascending target."""
    _, rows = transformer.load("experiments/results/zhang2019/cpu/transformer")
    found = sweeps.critical_batch_sizes(rows)
    names = dict.fromkeys(each.series for each in found)
    return {
        name: sorted((f for f in found if f.series == name), key=lambda fit: fit.target)
        for name in names
    }


def _critical_of(name):
    """Returns critical batch sizes of an optimizer with their intervals."""
    return [number for fit in _transformer()[name] for number in _ends(fit.batch_size)]


def _growth():
    """Returns the growth and the p value of each optimizer, and the growth seen with Adam."""
    growth, errors = {}, {}
    for name, (lowest, *_, highest) in _transformer().items():
        ends = lowest.batch_size, highest.batch_size
        growth[name] = math.log(ends[0].value / ends[1].value)
        # Of the logarithms, from the intervals.
        errors[name] = math.hypot(*(math.log(e.high / e.low) / (2 * 1.96) for e in ends))
    p_values = [math.erfc(abs(growth[name]) / errors[name] / math.sqrt(2)) for name in growth]
    # The quantiles of a two-sided test at 5 % and of a power of 80 %.
    least = (1.96 + 0.84) * errors["Adam"]
    return [*np.exp(list(growth.values())), *statistics.holm(p_values), math.exp(least)]


def _ratio_of_adam():
    lowest = {name: fits[0].batch_size.value for name, fits in _transformer().items()}
    return lowest["Adam"] / lowest["momentum"]


# From a paper to functions that compute numbers. Their keys are parts of the sentences that have
# these numbers; for a table row they are parts of its header or of the row.
COMPUTED = {
    "additive_noise": {
        "within 2.4 standard errors": _beside_published,
        "At three quarters of the training set": lambda: interval(
            accuracies("additive_noise/table1_new_seeds", 45000, "noise")
        ),
        "Noise helps very large batches": lambda: differences(
            *(_of_series("additive_noise/table1_new_seeds", size) for size in (32768, 45000))
        ),
        "by as much as 10 %": _largest_published,
        "noise of fixed size": _fixed_sizes,
        "Large ones need a large eta": _largest_eta,
        "published (one run)": lambda: [
            50,
            *(number for eta in (0, 0.3) for number in _oscillations(eta)[0]),
        ],
        "swings wildly": lambda: interval(_oscillations(0)[1]),
        "in the low 90s* ": lambda: interval(
            accuracies("additive_noise/figure1", 16384, "no noise")
        ),
        "Noise stabilizes training": _smaller_swings,
        "updates | 10 | 20": _full_batches,
    },
    "jaiswal2020": {
        "The accuracy falls with the batch": lambda: figure4.ACCURACIES.values(),
        "at a constant ratio": lambda: figure4.ACCURACIES.values(),
        "As many updates do not help": _as_many_updates,
        "at each doubling of the ratio": _doublings_of_ratio,
        "The ratio is what counts": _flatter,
        "Four times out of five": lambda: [
            least_of_pairs(*_of_series(_FUTURE, size)) for size in (32, 128)
        ],
    },
    "matched_noise": {
        "helps more than noise of the same": _kinds,
        "worse than the small one": _small_batch,
        "as few values to choose from": _equal_choices,
    },
    "signer2021": {
        "converge more slowly": lambda: [
            *_epochs_to_95("figure1", 64, 512, 1024),
            *[30] * (min(_epochs_to_95("figure1", 2048, 4096, 8192)) == 31),
            *differences((_of_rule("figure1", 64), _of_rule("figure1", 8192))),
        ],
        "helps large batches most": _square_root_over_fixed,
        "improves convergence whatever": _momentum_is_earlier,
        "improves on Figure 5": lambda: [
            *_epochs_to_95("figure6", 4096),
            *_epochs_to_95("figure5", 4096),
            *differences(
                (
                    accuracies("signer2021/figure6", 4096, "learning rate scaled"),
                    _of_rule("figure5", 4096),
                )
            ),
        ],
        "is faster but unstable": lambda: [
            *_epochs_to_95("figure6", 8192, momentum=0.929),
            *_epochs_to_95("figure5", 8192),
            *_largest_falls("figure6", momentum=0.929),
            max(_largest_falls("figure5")),
        ],
        "does better than the linear": lambda: [
            *_square_root_over_linear(4096, 8192),
            *_of_rule("figure2", 4096).values(),
            *_of_rule("figure3", 4096).values(),
        ],
        "better up to 1024": lambda: [
            -number for number in _square_root_over_linear(64, 128, 256, 512, 1024)
        ],
        "prevents convergence": lambda: [12, *_of_rule("figure3", 2048).values()],
        "which rounding separated": lambda: [
            _of_rule(figure, 64)[0] for figure in ("figure1", "figure4")
        ],
        "learn at first": _warmed_up,
        "no significant improvement": lambda: _up_to(2048, "figure4", "figure3"),
        "is the learning rate of best test accuracy": lambda: [
            *differences((_of_base_rate(0.08), _of_base_rate(0.01))),
            least_of_pairs(_of_base_rate(0.08), _of_base_rate(0.01)),
        ],
        "worse than a gradual one": lambda: _up_to(4096, "figure4", "constant_warmup"),
        "The linear rule holds for Adam": lambda: [
            accuracy
            for size in (2048, 4096, 8192)
            for accuracy in accuracies("signer2021/adam", size, "linear").values()
        ],
        "cures the instability": lambda: [
            *accuracies("signer2021/decay", 8192, "linear").values(),
            *accuracies("signer2021/decay", 4096, "linear").values(),
        ],
    },
    "smith2020": {
        "at each doubling up to 128": lambda: [
            *steps(_MNIST1, "clean_train_loss", _SIZES_UP_TO_128, series=_ANEW),
            *_factor(_MNIST1, 4, 128),
        ],
        "From 128 on it rises": lambda: from_first(
            _MNIST1, "clean_train_loss", [128, 256, 512, 1024], series=_ANEW
        ),
        "From 64 to 1024 it falls": lambda: from_first(
            _MNIST1, "test_accuracy", [64, 128, 256, 512, 1024], series=_ANEW
        ),
        "how batches are drawn": _epochs_over_anew,
        "at each doubling of the batch": lambda: steps(_TABLE1, "clean_train_loss", _SIZES),
        "from 1024 to 2048 the loss on clean": lambda: steps(_TABLE1, "clean_train_loss", _SIZES),
        "rises at first": lambda: from_first(_TABLE1, "test_accuracy", _SIZES),
        "of the published optima": _published_exponent,
        "would be seen four times out of five.": _visible_exponent,
        "higher at 64 than at 16": lambda: from_first(_FIGURE1, "train_loss", _SIZES, series="SGD"),
        "get worse beyond": lambda: [
            number
            for series in ("SGD", "momentum .9")
            for number in from_first(_FIGURE1, "train_loss", _SIZES, series=series)
        ],
        "up to the boundary below": lambda: _law(_FIGURE1, "momentum .9", 16, 256),
        "From the boundary on": lambda: _law(_FIGURE1, "SGD", 128, 2048),
        "SGD is 2.1 points": lambda: [
            *_at_rates("SGD", 2.0, 4.0),
            *_at_rates("momentum .9", 16.0, 4.0),
        ],
        "differs from that at 4": lambda: [
            number
            for series, sizes in _SMALL.items()
            for number in from_first(_MNIST_FIGURE1, "test_accuracy", sizes, series=series)
        ],
        "Nor does the training loss": lambda: [
            0.001,  # the margin
            *(
                number
                for series, sizes in _SMALL.items()
                for number in from_first(_MNIST_FIGURE1, "clean_train_loss", sizes, series=series)
            ),
        ],
        "the loss is higher by .36 and .12": lambda: [
            number
            for series in _SMALL
            for metric in ("test_accuracy", "clean_train_loss")
            for number in from_first(_MNIST_FIGURE1, metric, [4, 64, 1024], series=series)
        ],
        "Up to 16 at most": lambda: _momentum_minus_sgd("test_accuracy", [4, 8, 16]),
        "It helps their training loss": lambda: _momentum_minus_sgd(
            "clean_train_loss", [64, 128, 256, 512, 1024]
        ),
        "the exponent from 4 to 64": lambda: [
            *_law(_MNIST_FIGURE1, "momentum .9", 4, 64),
            *_law(_MNIST_FIGURE1, "SGD", 4, 32),
        ],
        "From 32 to 1024 the exponent of SGD": lambda: [
            *_law(_MNIST_FIGURE1, "SGD", 32, 1024),
            *_law(_MNIST_FIGURE1, "momentum .9", 64, 1024),
        ],
        "From 64 to 1024 by a factor": _momentum_over_sgd,
        "test loss, same runs | 37.4": lambda: _test_losses(_AUTOENCODER),
        "one of them ends at 10.4": lambda: max(
            scores(_AUTOENCODER, 16, "test_squared_error").values()
        ),
        "From 4 to 256 it rises": lambda: from_first(
            "smith2020/cpu/lstm_fitted", "test_loss", [4, 8, 16, 32, 64, 128, 256]
        ),
        "boundary fitted": _boundaries,
        "the loss of guessing": _near_chance,
        "rises with the epochs": lambda: from_first(_FIGURE2, "test_accuracy", _EPOCHS),
        "It saturates": lambda: from_first(_FIGURE2, "test_accuracy", _EPOCHS[2:]),
        "falls steadily": lambda: steps(_FIGURE2, "train_loss", _EPOCHS, protocol=1),
        "of best accuracy hardly changes": lambda: _rates(_FIGURE2, 0),
        "falls by much more": lambda: [*_rates(_FIGURE2, 1), -math.log(16) / math.log(6400 / 50)],
        "To choose the rate by the loss": lambda: _choices(_FIGURE2, [20, 80, 160, 320, 640], 1),
        "accuracy grows with the epochs": lambda: from_first(
            _MNIST_FIGURE2, "test_accuracy", _MNIST_EPOCHS
        ),
        "It levels off": lambda: from_first(_MNIST_FIGURE2, "test_accuracy", _MNIST_EPOCHS[2:]),
        "loss goes on falling": lambda: _bounds_of_p(
            steps(_MNIST_FIGURE2, "clean_train_loss", _MNIST_EPOCHS, protocol=1)
        ),
        "stays nearly the same": lambda: _rates(_MNIST_FIGURE2, 0),
        "loss falls much faster": lambda: [
            *_rates(_MNIST_FIGURE2, 1),
            -math.log(16) / math.log(6400 / 50),
        ],
        "Choosing it by the loss": lambda: _choices(_MNIST_FIGURE2, [5, 80, 160, 320], 1),
        "final rate of best accuracy decays": lambda: differences(
            tuple(
                scores(_FIGURE3, 320, "test_accuracy", final_effective_learning_rate=rate)
                for rate in (2.0**-14, 2.0**-5)
            )
        ),
        "rates of least loss cost": lambda: _choices(_FIGURE3, [80, 320], 2),
        "the same training loss": lambda: differences(_of_temperature("clean_train_loss")),
    },
    "zhang2019": {
        f"| 2.11 | {name} |": functools.partial(_critical_of, name)
        for name in ("SGD", "momentum", "Adam")
    }
    | {
        "2.23 | 2.16": lambda: [fit.target for fit in _transformer()["Adam"]],
        "of Adam is much larger": _ratio_of_adam,
        "grows during training": _growth,
    }
    | {
        f"exact, any rate | {size} |": functools.partial(_updates, size)
        for size in (8, 16, 32, 64, 128, 256, 512)
    }
    | {
        f"5 % | {name} |": functools.partial(_critical, *columns)
        for name, *columns in (
            ("E_min / S_min, exact", "E_min / S_min"),
            ("fit to the exact updates", "fit to exact"),
            ("fit to the mean curve, with 95 % interval", "fit to mean curve", "low", "high"),
            ("fit to first crossings", "fit to first crossings"),
            ("gradient noise scale, averaged as by McCandlish et al.", "noise scale"),
            ("the same, exact noise scale", "exact noise scale"),
            ("ratio of means of the noise", "ratio of means"),
            ("the same, exact ratio", "exact ratio of means"),
        )
    }
    | {"predicts its order of magnitude": _noise_over_fit},
}


# Tests


@pytest.fixture(autouse=True)
def in_the_clone(monkeypatch):
    """Sweeps are opened with their experiments' files, which lie below the current directory."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", [*READMES.values(), ROOT / "README.md"], ids=str)
def test_quotations_are_answers_of_the_sweeps(path):
    folder = str(path.parent.relative_to(ROOT))
    for section in sections(path.read_text(), folder):
        assert wrong_quotations(section) == [], section.heading


@pytest.mark.parametrize("name", [name for name in READMES if name not in NOT_YET])
def test_numbers_are_those_of_the_records(name):
    computed = COMPUTED.get(name, {})
    found = list(sections(READMES[name].read_text(), f"experiments/{name}"))
    assert [each for section in found for each in wrong_numbers(section, computed)] == []
    texts = "\n".join(text for section in found for text in section.texts())
    assert [fragment for fragment in computed if fragment not in texts] == []


@pytest.mark.parametrize("name", [name for name in READMES if name not in NOT_YET])
def test_verdicts_are_those_of_the_rule_and_counted_in_the_index(name):
    index = {}
    for row in _rows("experiments/README.md"):
        for workdir in _workdirs("|".join(row), "experiments")[:1]:
            if f"{RESULTS}{name}/" in workdir:
                index.setdefault(workdir, collections.Counter()).update(_counts(row[-1]))
    judged = set()
    for section in sections(READMES[name].read_text(), f"experiments/{name}"):
        words = verdicts(section)
        assert set(words) <= set(VERDICTS), section.heading
        if words:
            # A section on several sweeps links none of them in its heading.
            workdirs = _workdirs(section.heading, section.folder)[:1] or section.workdirs
            counted = sum((index[workdir] for workdir in workdirs), collections.Counter())
            assert counted == collections.Counter(words), section.heading
            judged |= set(workdirs)
    assert judged == set(index)


def test_the_main_readme_has_rows_of_the_index():
    shown, index = _reproductions("README.md"), _reproductions("experiments/README.md")
    assert len(shown) > 10
    assert shown <= index


def _rows(path):
    """Yields the rows of all tables of a README."""
    for section in sections((ROOT / path).read_text(), str(pathlib.Path(path).parent)):
        for table in section.tables:
            yield from table


def _reproductions(path):
    """Returns command, what was run and verdict of each row of a table of reproductions."""
    found = set()
    for row in _rows(path):
        command = re.search(r"`(\w+/\w+\.py[:\w]*)`", "|".join(row))
        if command:
            found.add((command[1], *row[-2:]))
    return found


def _counts(cell):
    """Returns the counts of verdicts in a cell of the index, such as `holds 3, not tested 1`."""
    counts = {}
    for word in VERDICTS:
        number = re.search(rf"(?:^|, ){word.lower()} (\d+)", cell)
        if number:
            counts[word] = int(number[1])
    # Nothing else is in the cell, and the order is that of the rule.
    assert cell == ", ".join(f"{word.lower()} {count}" for word, count in counts.items())
    return counts


def test_a_changed_digit_is_found():
    row = open_sweep("digits").table().iloc[1]
    answer = _results(RESULTS + "digits").answers[0]
    mean, deviation = (f"{100 * row[f'test_accuracy_{name}']:.2f}" for name in ("mean", "std"))
    sound = (
        f"## [Digits](../results/digits/table.csv)\n\n> {answer}\n\n| batch size | accuracy |\n"
        f"|---|---|\n| {row.batch_size} | {mean} ± {deviation} |\n\n* It is {mean} %.\n"
    )

    def change(before, number, after):
        changed = number[:-1] + str((int(number[-1]) + 5) % 10)
        assert sound.count(before + number + after) == 1
        return sound.replace(before + number + after, before + changed + after)

    def wrong(text):
        [section] = [each for each in sections(text, "experiments/any") if each.workdirs]
        return wrong_quotations(section) + wrong_numbers(section, {})

    assert wrong(sound) == []
    assert wrong(change("| ", mean, " ±"))
    assert wrong(change("± ", deviation, " |"))
    assert wrong(change("is ", mean, " %"))
    assert wrong(sound.replace(answer, answer.replace("batch size", "batch size 1")))


def test_a_computed_number_is_accepted_in_its_sentence_only():
    text = "## [Digits](../results/digits/table.csv)\n\n* It is .123 so.\n* It is .123 too.\n"
    [section] = [each for each in sections(text, "experiments/any") if each.workdirs]
    assert wrong_numbers(section, {"so": lambda: 0.1234}) == [".123 in '* It is .123 too.'"]
