"""Plots: what is drawn is what was measured, and odd sweeps draw too."""

import dataclasses
import io
import math

import numpy as np
import pytest
from matplotlib import figure, patches

from noisegen import reports, storage, sweeps
from noisegen.reports import axes, figures, plots

PLOTS = [reports.plot_metric, reports.plot_tuned, reports.plot_heatmap, reports.plot_curves]


METRIC = "test_accuracy"


def make(batch_sizes=(64, 128), rates=(0.1, 0.2, 0.4), seeds=2):
    """Accuracies that fall off by 0.1 from the optimum, which follows the linear rule."""
    runs = sweeps.grid(batch_size=batch_sizes, learning_rate=rates, seed=range(seeds))
    records = []
    for run in runs:
        off = abs(math.log2(run["learning_rate"] / (0.2 * run["batch_size"] / batch_sizes[0])))
        value = 0.9 - 0.1 * off + 0.01 * run["seed"]
        record = storage.Record(
            run_id=str(len(records)),
            hparams=run,
            status="finished",
            metrics={METRIC: value},
            curve={"epoch": [1, 2, 3], METRIC: [value / 2, None, value]},
        )
        records.append(record)
    return records


def draw(plot, optima, protocol, *args):
    ax = figure.Figure().add_subplot()
    assert plot(optima, ax, protocol, *args) is ax
    ax.figure.savefig(io.BytesIO(), format="svg")
    return ax


PROTOCOL = sweeps.Protocol(best=2, of=2)
OPTIMA = sweeps.select(make(), PROTOCOL)


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines if line.get_label()[0] != "_"}


def test_a_reported_metric_is_drawn_at_the_optima_of_the_optimized_one():
    protocol = dataclasses.replace(PROTOCOL, report=("test_loss",))
    records = []
    for number, record in enumerate(make()):
        losses = record.metrics | {"test_loss": float(number)}
        records.append(dataclasses.replace(record, metrics=losses))
    optima = sweeps.select(records, protocol)
    [metric] = protocol.report
    ax = draw(reports.plot_metric, optima, protocol, None, metric)
    expected = [[optimum.row, optimum.report["test_loss"][0]] for optimum in optima]
    np.testing.assert_allclose(lines(ax)["measured"], expected)
    assert ax.get_ylabel() == "test loss"
    titles = [each.title for each in figures.make_overview(optima, protocol, None)]
    assert titles[:2] == ["Test accuracy against batch size", "Test loss against batch size"]


def test_metric_shows_means_and_published_points():
    published = {("", 64): (91.0, None), ("", 256): (95.0, 0.5)}
    ax = draw(reports.plot_metric, OPTIMA, PROTOCOL, published)
    np.testing.assert_allclose(lines(ax)["measured"], [[64, 90.5], [128, 90.5]])
    np.testing.assert_allclose(lines(ax)["published"], [[64, 91], [256, 95]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("batch size", "test accuracy (%)")
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["64", "128", "256"]
    bars = ax.containers[0].get_children()[-1].get_segments()
    spread = 100 * np.std([0.9, 0.91], ddof=1)
    np.testing.assert_allclose(bars[0][:, 1], [90.5 - spread, 90.5 + spread])


def test_tuned_shows_optimum_and_linear_rule_through_the_smallest_batch():
    ax = draw(reports.plot_tuned, OPTIMA, PROTOCOL)
    np.testing.assert_allclose(lines(ax)["measured"], [[64, 0.2], [128, 0.4]])
    np.testing.assert_allclose(lines(ax)["linear rule"], [[64, 0.2], [128, 0.4]])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    other = sweeps.Protocol(best=2, of=2, row="learning_rate", tune=("batch_size",))
    ax = draw(reports.plot_tuned, sweeps.select(make(), other), other)
    assert "linear rule" not in lines(ax)


def test_heatmap_holds_the_means_frames_the_optimum_and_crosses_the_dead():
    records = [
        dataclasses.replace(record, status="diverged")
        if record.hparams["learning_rate"] == 0.1 and record.hparams["batch_size"] == 128
        else record
        for record in make()
    ]
    optima = sweeps.select(records, PROTOCOL)
    rows, values, means = plots.load_heatmap(optima, PROTOCOL)
    assert (rows, values) == ([64, 128], [0.1, 0.2, 0.4])
    np.testing.assert_allclose(means, [[80.5, np.nan], [90.5, 80.5], [80.5, 90.5]])
    ax = draw(reports.plot_heatmap, optima, PROTOCOL)
    frames = [patch.get_xy() for patch in ax.patches if isinstance(patch, patches.Rectangle)]
    assert np.floor(frames).tolist() == [[0, 1], [1, 2]]
    crosses = [text.get_position() for text in ax.texts if text.get_text() == "×"]
    assert crosses == [(1.5, 0.5)]
    assert sum(text.get_text() == "90.5" for text in ax.texts) == 2


def test_heatmap_takes_the_best_over_further_tuned_fields():
    records = [
        storage.Record(
            hparams={"batch_size": 64, "learning_rate": 0.1, "eta": eta},
            status="finished",
            metrics={"test_loss": loss},
        )
        for eta, loss in ((0, 2.0), (0.1, 1.0), (0.3, 3.0))
    ]
    protocol = sweeps.Protocol(tune=("learning_rate", "eta"), metric="test_loss", mode="min")
    optima = sweeps.select(records, protocol)
    assert plots.load_heatmap(optima, protocol)[2].tolist() == [[1.0]]
    draw(reports.plot_heatmap, optima, protocol)


def test_curves_are_means_over_the_best_seeds_up_to_the_shortest():
    epochs, values = plots.load_curves(OPTIMA[0], "test_accuracy")
    assert epochs.tolist() == [1, 2, 3]
    np.testing.assert_allclose(values, [[45.5, np.nan, 91], [45, np.nan, 90]])
    short = {OPTIMA[0].counted[0].run_id: {"epoch": [1], "test_accuracy": [0.5]}}
    epochs, values = plots.load_curves(OPTIMA[0], "test_accuracy", short)
    assert epochs.tolist() == [1] and values.tolist() == [[50], [45]]
    ax = draw(reports.plot_curves, OPTIMA, PROTOCOL)
    np.testing.assert_allclose(lines(ax)["128"][:, 1], [45.25, np.nan, 90.5])


def test_series_have_their_own_colours_markers_and_anchors():
    protocol = sweeps.Protocol(best=1, of=1, series=lambda run: f"seed {run['seed']}")
    optima = sweeps.select(make(), protocol)
    ax = draw(reports.plot_metric, optima, protocol)
    assert list(lines(ax)) == ["seed 0", "seed 1"]
    drawn = [line for line in ax.lines if line.get_label() in ("seed 0", "seed 1")]
    assert drawn[0].get_color() != drawn[1].get_color()
    assert drawn[0].get_marker() != drawn[1].get_marker()


def dead():
    return [dataclasses.replace(record, status="diverged") for record in make()]


@pytest.mark.slow
@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    "records",
    [
        [],
        dead(),
        make(batch_sizes=(64,)),
        make(rates=(0.1,)),
        make(batch_sizes=(64,), rates=(0.1,), seeds=1),
        make(batch_sizes=tuple(range(1, 40)), rates=tuple(0.01 * k for k in range(1, 30)), seeds=1),
        [dataclasses.replace(record, curve=None) for record in make()],
    ],
    ids=["none", "dead", "one row", "one rate", "one run", "many", "no curves"],
)
def test_odd_sweeps_draw_without_a_warning(plot, mode, records):
    protocol = sweeps.Protocol(best=1, of=1, mode=mode)
    draw(plot, sweeps.select(records, protocol), protocol)


def test_many_ticks_are_thinned():
    records = make(batch_sizes=tuple(2**k for k in range(20)), rates=(0.1,), seeds=1)
    ax = draw(reports.plot_metric, sweeps.select(records, sweeps.Protocol()), sweeps.Protocol())
    assert len(ax.get_xticks()) <= axes.MAX_TICKS


def shown(ax):
    """The texts of the legend, as they are drawn."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("plot", [reports.plot_metric, reports.plot_tuned])
def test_labels_are_drawn_as_they_are(plot):
    labels = ("$a_b$", "_hidden", "$x", "a^b\\c")
    protocol = sweeps.Protocol(best=1, of=1, series=lambda run: labels[run["seed"]], labels=labels)
    ax = draw(plot, sweeps.select(make(seeds=4), protocol), protocol)
    assert [text for text in shown(ax) if text != "linear rule"] == list(labels)
    assert not any(text.get_parse_math() for text in ax.get_legend().get_texts())


def test_names_with_dollars_are_no_formulas():
    records = [
        storage.Record(hparams={"a$b_$": row, "l$r$": 0.1}, status="finished", metrics={"$m$": 1.0})
        for row in ("x$1$", "_y$2$")
    ]
    protocol = sweeps.Protocol(row="a$b_$", tune=("l$r$",), metric="$m$")
    optima = sweeps.select(records, protocol)
    for plot in (reports.plot_metric, reports.plot_tuned, reports.plot_heatmap):
        ax = draw(plot, optima, protocol)
        ticks = ax.get_xticklabels()
        assert [tick.get_text() for tick in ticks] == ["_y$2$", "x$1$"]
        drawn = [ax.xaxis.label, ax.yaxis.label, *ticks, *ax.texts]
        assert not any(text.get_parse_math() for text in drawn)
        assert ax.get_xlabel() == "a$b $"


def test_a_blank_series_among_several_and_one_called_published_are_told_apart():
    labels = ("", "published", "a", "a published")
    protocol = sweeps.Protocol(best=1, of=1, series=lambda run: labels[run["seed"]], labels=labels)
    published = {(label, 64): (50.0, None) for label in ("", "a")}
    ax = draw(reports.plot_metric, sweeps.select(make(seeds=4), protocol), protocol, published)
    assert shown(ax) == [
        *("''", "'' published", "published", "a", "'a' published", "a published"),
    ]


@pytest.mark.parametrize("plot", [reports.plot_metric, reports.plot_tuned])
@pytest.mark.parametrize("rates", [(0.0, 0.1, 0.2), (-1.0, 0.5)])
def test_zero_and_negative_values_have_a_linear_axis(plot, rates):
    records = [
        storage.Record(
            hparams={"batch_size": rate, "learning_rate": rate, "seed": seed},
            status="finished",
            metrics={METRIC: 0.5},
        )
        for rate in rates
        for seed in (0, 1)
    ]
    protocol = sweeps.Protocol(series=lambda run: f"{run['seed']}")
    ax = draw(plot, sweeps.select(records, protocol), protocol)
    assert ax.get_xscale() == "linear"
    first, second = (line[:, 0] for name, line in lines(ax).items() if name in "01")
    assert (first < second).all()  # side by side, where 0 times anything is 0, too


def test_a_learning_rate_of_zero_breaks_no_line():
    records = [
        storage.Record(hparams=run, status="finished", metrics={METRIC: 0.9 - run["learning_rate"]})
        for run in sweeps.grid(batch_size=(16, 32, 64), learning_rate=(0.0, 0.1), seed=(0, 1))
    ]
    optima = sweeps.select(records, PROTOCOL)
    boundary = sweeps.Boundary(batch_size=32, learning_rate=0.1)
    ax = draw(reports.plot_tuned, optima, PROTOCOL, {"": boundary})
    np.testing.assert_allclose(lines(ax)["measured"][:, 1], 0)


def test_ticks_tell_close_values_apart():
    records = make(batch_sizes=(64,), rates=(0.1, 0.10000005))
    ax = draw(reports.plot_heatmap, sweeps.select(records, PROTOCOL), PROTOCOL)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0.1", "0.10000005"]


def test_a_declared_scaling_rule_needs_no_usual_names():
    names = {"batch_size": "b", "learning_rate": "lr", "seed": "seed"}
    records = [
        dataclasses.replace(record, hparams={names[n]: v for n, v in record.hparams.items()})
        for record in make(batch_sizes=(16, 32, 64), rates=(0.1, 0.2, 0.4, 0.8))
    ]
    for declared in (None, False, True):
        protocol = sweeps.Protocol(best=2, of=2, row="b", tune=("lr",), scaling_rule=declared)
        optima = sweeps.select(records, protocol)
        ax = draw(reports.plot_tuned, optima, protocol)
        assert ("linear rule" in lines(ax)) == bool(declared)
    [boundary] = sweeps.boundaries(optima, protocol, num_resamples=0).values()
    assert boundary.flags == ("no_plateau",)
    assert boundary.temperature == pytest.approx(0.2 / 16)
    draw(reports.plot_tuned, optima, protocol, {"": boundary})
