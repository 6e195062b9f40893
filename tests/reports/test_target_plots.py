"""The plot of steps to target: what is drawn is what was measured, and odd rows draw too."""

import io

import numpy as np
import pytest
from matplotlib import figure

from noisegen import reports, storage, sweeps

PROTOCOL = sweeps.Protocol(metric="test_accuracy", mode="max", best=1, of=2)
SIZES = (8, 16, 32, 64, 128)


def make(critical=20.0, sizes=SIZES, seeds=2, evaluate_every=1, label=""):
    """Runs whose accuracy is 0.5 after 10 (1 + critical / B) updates, the second 10 % later."""
    records = []
    for size in sizes:
        for seed in range(seeds):
            updates = np.arange(evaluate_every, 201, evaluate_every)
            half = 10 * (1 + critical / size) * (1 + 0.1 * seed)
            values = 1 - 0.5 ** (updates / half)
            records.append(
                storage.Record(
                    run_id=f"{size} {seed} {label}",
                    hparams={"batch_size": size, "learning_rate": 0.1, "seed": seed},
                    status="finished",
                    metrics={"test_accuracy": values[-1]},
                    num_examples=int(updates[-1]) * size,
                    curve={
                        "epoch": (updates * size / 64).tolist(),
                        "update": updates.tolist(),
                        "test_accuracy": values.tolist(),
                    },
                )
            )
    return records


def steps(records, targets=0.5, **changes):
    return sweeps.steps_to_target(records, PROTOCOL, targets, **changes)


def draw(rows, *args):
    ax = figure.Figure().add_subplot()
    assert reports.plot_steps_to_target(rows, ax, PROTOCOL, *args) is ax
    ax.figure.savefig(io.BytesIO(), format="svg")
    return ax


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines if line.get_label()[0] != "_"}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_each_target_is_a_line_of_mean_updates():
    rows = steps(make(), [0.5, 0.75])
    ax = draw(rows)
    assert legend(ax) == ["test accuracy ≥ 50%", "test accuracy ≥ 75%"]
    for name, chosen in zip(legend(ax), (rows[:5], rows[5:]), strict=True):
        np.testing.assert_allclose(lines(ax)[name][:, 0], SIZES)
        np.testing.assert_allclose(lines(ax)[name][:, 1], [row.updates.value for row in chosen])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(size) for size in SIZES]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("batch size", "updates to target")


def test_perfect_scaling_starts_at_the_smallest_batch_and_the_largest_useful_one_is_ringed():
    rows = steps(make(critical=100))
    scalings = sweeps.scaling_regions(rows)
    ax = draw(rows, scalings)
    first = rows[0].examples.value
    np.testing.assert_allclose(lines(ax)["perfect scaling"], [[8, first / 8], [128, first / 128]])
    [[size, updates]] = lines(ax)["largest useful batch"]
    assert size == scalings[0].largest_useful
    assert updates == next(row.updates.value for row in rows if row.row == size)


def test_the_fit_goes_through_the_measured_updates():
    rows = steps(make())
    [fit] = sweeps.critical_batch_sizes(rows)
    drawn = lines(draw(rows, [], [fit]))["fit, critical batch"]
    updates = np.interp(SIZES, *drawn.T)
    np.testing.assert_allclose(updates, [row.updates.value for row in rows], rtol=0.01)


def test_upper_bounds_are_markers_of_their_own_and_missed_targets_are_not_drawn():
    records = make(sizes=(32, 64)) + make(sizes=(128,), evaluate_every=50)
    records += make(sizes=(8,), critical=1e5)
    ax = draw(steps(records))
    assert lines(ax)["test accuracy ≥ 50%"][:, 0].tolist() == [32, 64]
    np.testing.assert_allclose(lines(ax)["upper bound"], [[128, 50]])


def test_intervals_below_zero_and_missing_ones_draw():
    wide = make(seeds=1) + [record for record in make(critical=100) if record.hparams["seed"] == 1]
    rows = steps(wide)
    assert min(row.updates.low for row in rows) < 0
    draw(rows)
    ax = draw(steps(make(seeds=1)))
    assert len(lines(ax)["test accuracy ≥ 50%"]) == len(SIZES)


def test_without_a_reached_target_the_plot_says_so():
    ax = draw(steps(make(critical=1e5)), sweeps.scaling_regions(steps(make(critical=1e5))))
    assert "no target was reached" in ax.texts[0].get_text()


@pytest.mark.parametrize("label", ["_noise", "$5", "a"])
def test_series_are_named_as_they_are(label):
    protocol = sweeps.Protocol(of=2, series=lambda run: label)
    rows = sweeps.steps_to_target(make(), protocol, 0.5)
    assert legend(draw(rows)) == [f"{label}: test accuracy ≥ 50%"]
