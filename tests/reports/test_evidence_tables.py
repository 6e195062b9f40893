"""The tables of evidence: their numbers, and the same written for readers."""

import math

import pytest

from noisegen import reports, storage, sweeps
from noisegen.reports import evidence_tables, markup

SCORES = {
    0.25: [0.80, 0.82, 0.81, 0.80, 0.82],
    0.5: [0.90, 0.93, 0.93, 0.91, 0.92],
    1.0: [0.85, 0.86, 0.84, 0.85, 0.85],
}


def records_of(scores, metric="test_accuracy", **fields):
    """From learning rate to the score of each seed, None where the run diverged."""
    return [
        storage.Record(
            hparams={"batch_size": 64, "learning_rate": rate, "seed": seed} | fields,
            status="diverged" if score is None else "finished",
            metrics={metric: score},
        )
        for rate, values in scores.items()
        for seed, score in enumerate(values)
    ]


def optima_of(records, **fields):
    protocol = sweeps.Protocol(**{"best": 4, "of": 5, "max_extensions": 0} | fields)
    return sweeps.select(records, protocol), protocol


def two_series(first="a", second="b"):
    shift = {0: 0.04, 1: 0.05, 2: 0.05, 3: 0.04, 4: 0.05}
    better = {rate: [s + shift[k] for k, s in enumerate(v)] for rate, v in SCORES.items()}
    records = records_of(SCORES, kind=first) + records_of({0.5: better[0.5]}, kind=second)
    return optima_of(records, series=lambda run: run["kind"], labels=(first, second))


def test_each_row_of_a_sweep_is_a_row_of_numbers():
    optima, protocol = optima_of(records_of(SCORES))
    frame = reports.make_evidence(optima, protocol)
    [line] = frame.to_dict("records")
    [row] = sweeps.row_evidence(optima, protocol)
    assert (line["series"], line["batch_size"], line["seeds"], line["diverged"]) == ("", 64, 5, 0)
    assert line["all_seeds"] == pytest.approx(0.918) and line["share"] == 1
    for name, interval in (("all_seeds", row.all_seeds), ("unseen_seeds", row.held_out.interval)):
        assert line[f"{name}_low"] == interval.low < interval.value < interval.high
        assert line[f"{name}_high"] == interval.high
    assert line["between"] == pytest.approx(2**row.between.value)  # a learning rate, no logarithm
    assert line["between_low"] < line["between"] < line["between_high"]
    assert "difference_in_se" not in frame


def test_without_seeds_only_the_mean_is_known():
    optima, protocol = optima_of(records_of({r: v[:1] for r, v in SCORES.items()}), best=1, of=1)
    [line] = reports.make_evidence(optima, protocol).to_dict("records")
    assert line["all_seeds"] == 0.90
    assert all(math.isnan(line[name]) for name in ("all_seeds_low", "unseen_seeds", "share"))
    assert evidence_tables.to_html(optima, protocol) == ""


def test_the_distance_to_a_published_number_is_in_standard_errors():
    optima, protocol = optima_of(records_of(SCORES))
    error = 100 * math.sqrt(1.7e-4 / 5)  # 1.7e-4 is the variance of the five scores at 0.5

    def distance(published):
        frame = reports.make_evidence(optima, protocol, {("", 64): published})
        return frame["difference_in_se"].item()

    assert distance((90.0, None)) == pytest.approx(1.8 / error)
    both = math.hypot(error, 1.0 / math.sqrt(5))
    assert distance((93.0, 1.0)) == pytest.approx(-1.2 / both)
    frame = reports.make_evidence(optima, protocol, {("", 128): (90.0, None)})
    assert math.isnan(frame["difference_in_se"].item())


def test_every_comparison_is_a_row_of_numbers():
    optima, protocol = two_series()
    [line] = reports.make_differences(optima, protocol).to_dict("records")
    assert (line["series"], line["baseline"], line["batch_size"]) == ("b", "a", 64)
    assert line["difference"] == pytest.approx(0.046)
    assert line["difference_low"] < 0.046 < line["difference_high"] and line["p_value"] < 0.001
    assert (line["tried"], line["baseline_tried"]) == (1, 3)
    [line] = reports.make_differences(optima, protocol, baseline="b").to_dict("records")
    assert line["difference"] == pytest.approx(-0.046) and line["series"] == "a"


def test_one_series_has_no_comparison():
    optima, protocol = optima_of(records_of(SCORES))
    assert reports.make_differences(optima, protocol).empty
    text = evidence_tables.to_html(optima, protocol)
    assert text.count("<table") == 1 and "Differences" not in text  # no series to compare


def test_cells_are_written_in_the_unit_of_the_metric():
    scores = SCORES | {0.5: [*SCORES[0.5][:4], None]}
    [cells] = evidence_tables.evidence_cells(*optima_of(records_of(scores))).to_dict("records")
    assert cells["test accuracy (%), all seeds"].startswith("91.75 (")
    assert cells["seeds"] == "5 (1 diverged)" and cells["batch size"] == "64"
    # A resample in which two runs diverged has too few survivors, and chooses another value.
    assert (
        cells["learning rate chosen"].startswith("2^-1: ")
        and "2^0" in cells["learning rate chosen"]
    )
    assert cells["optimal learning rate"] == "-"  # the mean at 0.5 is unknown
    assert "series" not in cells
    losses = {rate: [12 * (1 - score) for score in values] for rate, values in SCORES.items()}
    optima, protocol = optima_of(records_of(losses, "test_loss"), metric="test_loss", mode="min")
    [cells] = evidence_tables.evidence_cells(optima, protocol).to_dict("records")
    assert cells["test loss, all seeds"].startswith("0.98 (0.")
    assert cells["optimal learning rate"].startswith("0.5")


def test_published_numbers_have_a_column():
    optima, protocol = optima_of(records_of(SCORES))
    cells = evidence_tables.evidence_cells(optima, protocol, {("", 64): (90.0, None)})
    assert cells["from published (SE)"].item() == "+3.1"
    cells = evidence_tables.evidence_cells(optima, protocol, {("", 32): (90.0, None)})
    assert cells["from published (SE)"].item() == "-"


def test_comparisons_are_written_with_their_numbers_of_values():
    [cells] = evidence_tables.difference_cells(*two_series()).to_dict("records")
    assert cells["series"] == "b − a" and cells["values tried"] == "1 and 3"
    assert cells["difference of test accuracy (%)"].startswith("4.60 (")
    assert float(cells["p (Holm)"]) < 0.001


def test_a_comparison_that_could_not_be_tested_says_so():
    records = records_of({0.5: [0.9]}, kind="a") + records_of({0.5: [0.8]}, kind="b")
    optima = optima_of(records, best=1, of=1, series=lambda run: run["kind"])
    [cells] = evidence_tables.difference_cells(*optima).to_dict("records")
    assert cells["p (Holm)"] == "no test" and cells["values tried"] == "1"


def test_labels_are_escaped_in_html():
    label = "<b>&\"'"
    text = evidence_tables.to_html(*two_series(label, "plain"))
    assert "<b>" not in text and text.count("&lt;b&gt;&amp;") == 2
    assert markup.HTML.escape(label) in text and "Differences: of scores" in text


def test_a_row_without_survivors_is_left_out():
    records = records_of(SCORES) + records_of({0.5: [None] * 5}, batch_size=128)
    optima, protocol = optima_of(records)
    assert reports.make_evidence(optima, protocol)["batch_size"].tolist() == [64]
    nothing, protocol = optima_of(records_of({0.5: [None] * 5}))
    assert reports.make_evidence(nothing, protocol).empty
    assert evidence_tables.to_html(nothing, protocol) == ""
