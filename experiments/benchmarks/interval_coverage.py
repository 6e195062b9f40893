"""Measures how often the intervals and tests of `noisegen.statistics` hold, by simulation.

Scores are drawn with known means, and the share of samples is counted in which an interval contains
the true value, or in which a test states something false. Standard deviations, of which most are 1,
are those of a single run. With 5,000 samples the standard error of a share of 95 % is 0.3 %.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from experiments.benchmarks import machine, report
from noisegen import statistics, storage, sweeps

TITLE = "Coverage of confidence intervals, and false statements of tests"
SEEDS = (3, 5, 15)
LONGEST = 30  # Settings in a table; the record has all of them.


def measure(options: machine.Options) -> dict:
    """Simulates every interval and test."""
    num_samples = 10 if options.quick else 5000
    tables = {}
    for name, simulate in PARTS.items():
        tables[name] = list(simulate(num_samples))
        machine.say(f"  {name}: {len(tables[name])} settings")
    return {"num_samples": num_samples, "tables": tables}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the range of every measured share over the settings."""
    lines = [line for table in record["tables"].values() for line in table]
    found = []
    for column, goal in GOALS.items():
        shares = [line[column] for line in lines if line.get(column) is not None]
        found.append((column, report.spread(shares), goal))
    return found


def details(record: dict) -> str:
    """Returns the tables, of which the long ones are cut to their worst settings."""
    blocks = []
    for name, lines in record["tables"].items():
        title = name
        if len(lines) > LONGEST:
            title = f"{name}: the worst {LONGEST} of {len(lines)} settings"
            lines = sorted(lines, key=_goodness)[:LONGEST]
        cells = [[_shown(value) for value in line.values()] for line in lines]
        blocks += [f"### {title}\n", report.table(list(lines[0]), cells)]
    return "\n".join(blocks)


def _goodness(line):
    """Returns the first share of a line that has a goal, negative if it should be small."""
    column = next(column for column in line if column in GOALS)
    return -line[column] if GOALS[column].startswith("<=") else line[column]


def _shown(value):
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(flags) -> float | None:
    """Returns the share of true flags in percent, None if there are no flags."""
    return round(100 * float(np.mean(flags)), 2) if len(flags) else None


def _contains(interval: statistics.Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def _means(num_samples: int) -> Iterator[dict]:
    """Samples of seeds: normal scores, skewed ones, and accuracies on 360 examples."""
    draws: dict[str, tuple[Callable, float]] = {
        "normal": (lambda random, size: random.normal(0, 1, size), 0.0),
        "skewed (- log-normal, 0.5)": (
            lambda random, size: -random.lognormal(0, 0.5, size),
            -math.exp(0.125),
        ),
        "98 % of 360 examples": (lambda random, size: random.binomial(360, 0.98, size) / 360, 0.98),
    }
    for name, (draw, truth) in draws.items():
        for n in (2, *SEEDS):
            random = np.random.default_rng(n)
            found = [statistics.mean_interval(row) for row in draw(random, (num_samples, n))]
            defined = [each for each in found if not math.isnan(each.low)]
            yield {
                "scores": name,
                "seeds": n,
                "mean_interval: coverage %": _percent([_contains(each, truth) for each in defined]),
                "without interval %": _percent([math.isnan(each.low) for each in found]),
            }


def _differences(num_samples: int) -> Iterator[dict]:
    """Two samples, by Welch's interval, and by pairs if runs of a seed share half of the variance.

    Also whether the difference of `least_difference` is found in 80 % of the samples.
    """
    for ratio in (1, 4, 10):
        for n in SEEDS:
            random = np.random.default_rng(n)
            a, b = random.normal(0, 1, (num_samples, n)), random.normal(0, ratio, (num_samples, n))
            shared = random.normal(0, 1, (num_samples, n))
            welch = [statistics.welch_difference(*pair) for pair in zip(a, b, strict=True)]
            paired = [
                statistics.paired_difference(*pair)
                for pair in zip(a + shared, b + shared, strict=True)
            ]
            shift = statistics.least_difference(1.0, n)
            seen = _percent([shift + each.low > 0 for each in welch]) if ratio == 1 else None
            yield {
                "standard deviations": f"1 : {ratio}",
                "seeds": n,
                "welch_difference: coverage %": _percent([_contains(each, 0) for each in welch]),
                "paired_difference: coverage %": _percent([_contains(each, 0) for each in paired]),
                "least_difference: found %": seen,
            }


def _shapes(num_points: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Learning rates in steps of one, with the best one in the middle."""
    steps = np.arange(num_points) - num_points // 2
    ones = np.ones(num_points)
    return {
        "equal": (0.0 * steps, ones),
        "- 0.3 steps^2": (-0.3 * steps**2, ones),
        "- steps^2": (-1.0 * steps**2, ones),
        "- 0.5 steps^2, sd sqrt(3)^step": (-0.5 * steps**2, 3 ** (steps / 2)),
    }


def _draw(
    means, stds, num_seeds: int, num_samples: int, correlation: float = 0.0, seed: int | None = None
) -> np.ndarray:
    """Draws tables (R, P, N), whose scores of equal seeds are correlated between points."""
    random = np.random.default_rng(num_seeds if seed is None else seed)
    own = random.normal(0, 1, (num_samples, len(means), num_seeds))
    shared = random.normal(0, 1, (num_samples, 1, num_seeds))
    noise = math.sqrt(1 - correlation) * own + math.sqrt(correlation) * shared
    return means[:, None] + stds[:, None] * noise


def _selection(num_samples: int) -> Iterator[dict]:
    """Selected points: coverage of the true mean of the point that all seeds choose."""
    for num_points in (3, 5, 9):
        for shape, (means, stds) in _shapes(num_points).items():
            for correlation in (0.0, 0.5):
                for n in SEEDS:
                    for best_k in {None, n * 4 // 5} if num_points == 5 and n > 3 else {None}:
                        tables = _draw(means, stds, n, num_samples, correlation)
                        line = {"points": num_points, "means": shape, "correlation": correlation}
                        line |= {"seeds": n, "best": best_k or n}
                        yield line | _selected(tables, means, best_k)


def _selected(tables, means, best_k) -> dict:
    found = [statistics.selected_without_seed(table, best_k=best_k) for table in tables]
    truth = means[statistics.best_points(tables, best_k)]
    held_out = [each.interval for each in found]
    plain = [statistics.mean_interval(each.scores) for each in found]
    errors = np.array([each.value for each in held_out]) - truth
    top_k = np.sort(tables, 2)[:, :, -(best_k or tables.shape[2]) :].mean(2).max(1)
    return {
        "selected_without_seed: coverage %": _percent(list(map(_contains, held_out, truth))),
        "plain t interval: coverage %": _percent(list(map(_contains, plain, truth))),
        "bias": round(float(errors.mean()), 3),
        "bias of the printed mean": round(float((top_k - truth).mean()), 3),
    }


def _shares(num_samples: int) -> Iterator[dict]:
    """Bootstrap shares of the optimum beside the rate at which it is the best point."""
    num_samples = max(num_samples // 5, 1)
    for correlation in (0.0, 0.5):
        for n in SEEDS:
            means, stds = _shapes(5)["- 0.3 steps^2"]
            tables = _draw(means, stds, n, num_samples, correlation)
            chosen = statistics.best_points(tables)
            line = {"correlation": correlation, "seeds": n}
            line["optimum is the best point %"] = _percent(chosen == means.argmax())
            for joint in (True, False):
                shares = [
                    statistics.bootstrap_shares(table, joint=joint, num_resamples=200)[point]
                    for table, point in zip(tables, chosen, strict=True)
                ]
                name = "seeds" if joint else "runs of each point"
                line[f"share of the optimum %, resampling {name}"] = _percent(shares)
            yield line


def _parabolas(num_samples: int) -> Iterator[dict]:
    """Optima between seven rates, whose means lie on a parabola with its top at 0.3."""
    x = np.arange(-3.0, 4.0)
    for correlation in (0.0, 0.5):
        for std in (0.5, 1.0, 2.0):
            for n in SEEDS:
                means, stds = -((x - 0.3) ** 2), np.full(len(x), std)
                tables = _draw(means, stds, n, num_samples, correlation)
                errors = tables.std(2, ddof=1) / math.sqrt(n)
                found = [
                    statistics.parabola_optimum(x, *pair, degrees_of_freedom=3 * (n - 1))
                    for pair in zip(tables.mean(2), errors, strict=True)
                ]
                inner = [each for each in found if not each.reason]
                delta = [abs(each.value - 0.3) <= 1.96 * each.standard_error for each in inner]
                yield {
                    "standard deviation": std,
                    "correlation": correlation,
                    "seeds": n,
                    "parabola_optimum: coverage %": _percent(
                        [_contains(each, 0.3) for each in inner]
                    ),
                    "delta method: coverage %": _percent(delta),
                    "with bounds %": _percent([math.isfinite(each.high) for each in inner]),
                    "at an edge %": _percent([bool(each.reason) for each in found]),
                }


def _power_laws(num_samples: int) -> Iterator[dict]:
    """Exponents from 0 to 1.2: with log-normal errors, and rounded to a grid of octaves."""
    random = np.random.default_rng(0)
    for num_rows in (4, 7, 10):
        x = 2.0 ** np.arange(num_rows)
        for std, step in ((0.3, 0.0), (0.0, 1.0), (0.3, 1.0), (0.0, 0.5)):
            contained, ignoring = [], []
            for slope, offset in random.uniform((0, 0), (1.2, 1), (num_samples, 2)):
                log2_y = slope * np.log2(x) + offset + random.normal(0, std, num_rows)
                if step:
                    log2_y = step * np.round(log2_y / step)
                for kept, octaves in ((contained, step), (ignoring, 0.0)):
                    exponent = statistics.power_law(x, 2**log2_y, grid_octaves=octaves).exponent
                    kept.append(_contains(exponent, slope))
            yield {
                "rows": num_rows,
                "error in octaves": std,
                "step in octaves": step,
                "power_law: coverage %": _percent(contained),
                "without the step: coverage %": _percent(ignoring) if step else None,
            }


def _spreads(num_rows: int) -> dict[str, np.ndarray]:
    ones = np.ones(num_rows)
    return {
        "equal": ones,
        "1 to 4": 4 ** np.linspace(0, 1, num_rows),
        "first 10, others 1": np.array([10, *ones[1:]]),
        "last 10, others 1": np.array([*ones[1:], 10]),
        "first 0.1, others 1": np.array([0.1, *ones[1:]]),
    }


def _comparisons(num_samples: int) -> Iterator[dict]:
    """Rows of which all, or the first half, have the greatest mean; the others are far lower."""
    for num_rows in (3, 8):
        for spread, stds in _spreads(num_rows).items():
            for num_equal in (num_rows, (num_rows + 1) // 2):
                for n in SEEDS:
                    means = np.where(np.arange(num_rows) < num_equal, 0.0, -1000.0)
                    tables = _draw(means, stds, n, num_samples)
                    line = {"rows": num_rows, "equally good": num_equal}
                    line |= {"standard deviations": spread, "seeds": n}
                    yield line | _compared(tables, means)


def _compared(tables, means) -> dict:
    compared = [statistics.compare_with_best(table) for table in tables]
    last = np.flatnonzero(means == means.max())[-1]
    false = [any(found[row].is_lower for row in range(last + 1)) for found in compared]
    truth = means - means.max()
    covered = [all(map(_contains, found, truth)) for found in compared]
    too_small = [statistics.last_not_lower(table).row < last for table in tables]
    return {
        "compare_with_best: false statements %": _percent(false),
        "compare_with_best: coverage %": _percent(covered),
        "last_not_lower: false statements %": _percent(too_small),
    }


def _selected_rows(num_samples: int) -> Iterator[dict]:
    """Equally good rows, each at the point that its scores choose: which scores may be compared.

    A false statement calls a row lower whose best point is as good as any. About the chosen points
    the statement is true if the row's seeds chose a worse one.
    """
    num_samples = max(num_samples // 5, 1)
    for num_rows in (3, 8):
        for shape in ("equal", "- 0.3 steps^2", "- steps^2"):
            for last in (1, 5, 15) if shape == "equal" else (5,):
                for n in SEEDS:
                    random = np.random.default_rng(n)
                    means = [_shapes(p)[shape][0] for p in [5] * (num_rows - 1) + [last]]
                    samples = [
                        [row[:, None] + random.normal(0, 1, (len(row), n)) for row in means]
                        for _ in range(num_samples)
                    ]
                    line = {"rows": num_rows, "means": shape, "points of the last row": last}
                    yield line | {"seeds": n} | _compared_at_selected(samples, means)


def _compared_at_selected(samples, means) -> dict:
    false = {"chosen point": [], "selected_by_first_seeds": [], "selected_without_seed": []}
    about_points = []
    for tables in samples:
        chosen = [table[statistics.best_points(table[None])[0]] for table in tables]
        split = [statistics.selected_by_first_seeds(t, max(t.shape[1] // 3, 1)) for t in tables]
        held_out = [statistics.selected_without_seed(table).scores for table in tables]
        rows = (chosen, [each.scores for each in split], held_out)
        for kept, scores in zip(false.values(), rows, strict=True):
            compared = statistics.compare_with_best(scores)
            kept.append(any(row.is_lower for row in compared))
            if kept is false["selected_by_first_seeds"]:
                truth = np.array([m[each.points[0]] for m, each in zip(means, split, strict=True)])
                lower = np.array([row.is_lower for row in compared])
                about_points.append(bool(lower[truth == truth.max()].any()))
    found = {f"{name}: false statements %": _percent(flags) for name, flags in false.items()}
    return found | {"selected_by_first_seeds: false about points %": _percent(about_points)}


def _few_seeds(num_samples: int) -> Iterator[dict]:
    """Two series of too few seeds for pairs, each at the point that its scores choose.

    Their intervals pool the variance over the points in the error bar (`sweeps.compare_series`).
    The truth is the difference of the means of the chosen points.
    """
    num_samples = max(num_samples // 10, 1)
    for shape in ("equal", "- 0.3 steps^2", "- steps^2", "- 0.5 steps^2, sd sqrt(3)^step"):
        means, stds = _shapes(5)[shape]
        for ratio in (1, 4):
            for n in (3, 4):
                first = _draw(means, stds, n, num_samples)
                second = ratio * _draw(means, stds, n, num_samples, seed=100 + n)
                found = [_compared_series(*pair) for pair in zip(first, second, strict=True)]
                truths = ratio * means[statistics.best_points(second)]
                truths -= means[statistics.best_points(first)]
                false = [each.adjusted_p <= 0.05 for each in found]
                line = {"means": shape, "scales": f"1 : {ratio}", "seeds": n}
                yield line | {
                    "compare_series: coverage %": _percent(
                        list(map(_contains, [each.difference for each in found], truths))
                    ),
                    "compare_series: false differences %": _percent(np.array(false)[truths == 0]),
                }


def _compared_series(*tables) -> sweeps.Comparison:
    """Compares two tables of scores, of shape (points, seeds), as two series of a sweep."""
    records = [
        storage.Record(
            hparams={"batch_size": 1, "learning_rate": 2.0**point, "kind": kind, "seed": seed},
            status="finished",
            metrics={"test_accuracy": float(table[point, seed])},
        )
        for kind, table in enumerate(tables)
        for point, seed in np.ndindex(table.shape)
    ]
    num_seeds = tables[0].shape[1]
    protocol = sweeps.Protocol(best=num_seeds, of=num_seeds, series=lambda run: f"{run['kind']}")
    [found] = sweeps.compare_series(sweeps.select(records, protocol), protocol)
    return found


def _drops(num_samples: int) -> Iterator[dict]:
    """Rows of equal means of which the last one is lower: how often the drop is seen."""
    num_samples = max(num_samples // 5, 1)
    for num_rows in (3, 8):
        for n in SEEDS:
            line = {"rows": num_rows, "seeds": n}
            for drop in (1, 2, 4, 8):
                means = np.append(np.zeros(num_rows - 1), -drop)
                tables = _draw(means, np.ones(num_rows), n, num_samples)
                seen = [statistics.compare_with_best(table)[-1].is_lower for table in tables]
                found = [statistics.last_not_lower(table).row < num_rows - 1 for table in tables]
                line[f"drop of {drop}: compare_with_best %"] = _percent(seen)
                line[f"drop of {drop}: last_not_lower %"] = _percent(found)
            yield line


PARTS = {
    "Means": _means,
    "Differences of two samples": _differences,
    "Scores of selected points": _selection,
    "Bootstrap shares": _shares,
    "Optima between grid points": _parabolas,
    "Exponents of power laws": _power_laws,
    "Rows against the best one": _comparisons,
    "Rows at selected points against the best one": _selected_rows,
    "Two series of few seeds": _few_seeds,
    "Drops of the last row": _drops,
}
GOALS = {
    "mean_interval: coverage %": "95",
    "welch_difference: coverage %": "95",
    "paired_difference: coverage %": "95",
    "least_difference: found %": "80",
    "selected_without_seed: coverage %": "95",
    "parabola_optimum: coverage %": "95",
    "power_law: coverage %": "95",
    "compare_with_best: coverage %": ">= 95",
    "compare_with_best: false statements %": "<= 5",
    "last_not_lower: false statements %": "<= 5",
    "chosen point: false statements %": "<= 5",
    "selected_by_first_seeds: false about points %": "<= 5",
    "compare_series: coverage %": "95",
    "compare_series: false differences %": "<= 5",
}
