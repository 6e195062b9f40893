"""Tables: the numbers (`tables.py`), and each way of writing them (`rendering.py`)."""

import csv
import io
import math
import re

import pandas as pd
import pytest

from noisegen import reports, storage, sweeps
from noisegen.reports import notes, rendering

RENDERERS = [
    *(reports.to_text, reports.to_csv, reports.to_markdown, reports.to_latex, rendering.to_html),
]


def make(accuracies, batch_size=64, eta=0.0):
    return [
        storage.Record(
            hparams={"batch_size": batch_size, "learning_rate": rate, "eta": eta, "seed": seed},
            status="diverged" if accuracy is None else "finished",
            metrics={"test_accuracy": accuracy, "train_loss": 0.25 + seed / 100},
        )
        for rate, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    ]


PROTOCOL = sweeps.Protocol(
    series=lambda run: "noise_1" if run["eta"] else "none",
    labels=("none", "noise_1"),
    tune=("learning_rate", "eta"),
    best=2,
    of=2,
    report=("train_loss",),
)
RECORDS = [
    *make({0.25: [0.1, 0.1], 0.5: [0.9, 0.92], 1: [0.899, 0.9], 2: [0.1, 0.1]}),
    *make({0.5: [0.9, 0.91], 1: [0.8, 0.8]}, batch_size=128),
    *make({0.5: [None, None]}, eta=0.3),
]
PUBLISHED = {("none", 64): (90.0, 1.0), ("none", 128): (91.0, None), ("noise_1", 256): (50, 0.5)}


def cells_of(records, protocol, published=None):
    """The cells of a table as lists of text."""
    frame = rendering.format_table(sweeps.select(records, protocol), protocol, published)
    return frame.to_numpy().tolist()


@pytest.fixture(name="whole")
def _whole():
    """Arguments of a table with two series, marks and published numbers."""
    return sweeps.select(RECORDS, PROTOCOL), PROTOCOL, PUBLISHED


def test_cells(whole):
    frame = rendering.format_table(*whole)
    assert list(frame["none"].iloc[0]) == [
        *("91.00 ± 1.41 (2)", "2^-1 (2^-1–2^0)", "0", "0.2550 ± 0.0071", "90 ± 1", "+0.6"),
    ]
    assert list(frame["noise_1"].iloc[0]) == ["-", "diverged [b]", "-", "-", "-", "-"]
    assert list(frame["none"].iloc[1])[1] == "2^-1 [a]"
    assert list(frame["none"].iloc[1])[-2:] == ["91", "−0.7"]
    assert list(frame["noise_1"].iloc[2]) == ["-", "-", "-", "-", "50 ± 0.5", "-"]


def test_columns_are_series_over_headings(whole):
    frame = rendering.format_table(*whole)
    assert list(frame.columns.unique(level=0)) == ["", "none", "noise_1"]
    assert list(frame[""]) == ["batch size"] and list(frame["", "batch size"]) == [
        "64",
        "128",
        "256",
    ]
    assert list(frame["none"]) == [
        *("test accuracy (%)", "best learning rate", "best eta", "train loss"),
        *("published", "difference (std)"),
    ]


def test_a_sweep_without_series_has_headings_only():
    frame = rendering.format_table(
        sweeps.select(make({0.1: [0.5]}), sweeps.Protocol()), sweeps.Protocol()
    )
    assert list(frame.columns) == ["batch size", "test accuracy (%)", "learning rate"]


def test_flags_become_marks_with_notes(whole):
    marked = {mark: note for mark, note in notes.make_notes(*whole) if mark}
    assert marked == {"a": sweeps.FLAGS["at_boundary"], "b": sweeps.FLAGS["all_diverged"]}


def general_notes(records, protocol, published=None):
    optima = sweeps.select(records, protocol)
    found = notes.make_notes(optima, protocol, published)
    return " ".join(note for mark, note in found if not mark)


def test_general_notes_say_how_the_numbers_were_chosen():
    text = general_notes(RECORDS, PROTOCOL, PUBLISHED)
    assert "of 2 seeds, at the best learning rate and eta" in text
    assert "Tuned on the test set" in text and "Difference" in text
    protocol = sweeps.Protocol(metric="train_loss", mode="min")
    text = general_notes(make({0.1: [0.5], 0.2: [0.6]}), protocol)
    assert "test set" not in text and "Difference" not in text
    assert "of one seed, at the best learning rate" in text


@pytest.mark.parametrize(
    "best, of, said",
    [(1, 1, "one seed"), (1, 5, "the best of 5 seeds"), (4, 5, "the best 4 of 5 seeds")],
)
def test_general_notes_say_how_many_seeds_count(best, of, said):
    text = general_notes(make({0.1: [0.5]}), sweeps.Protocol(best=best, of=of))
    assert f"(number of runs) of {said}." in text


def test_a_learning_rate_chosen_on_validation_data_is_reported_on_test_data():
    records = make({0.1: [0.5], 0.2: [0.6]})
    for record, accuracy in zip(records, (0.9, 0.8), strict=True):
        record.metrics["valid_accuracy"] = accuracy
    protocol = sweeps.Protocol(metric="valid_accuracy", report=("test_accuracy",))
    text = general_notes(records, protocol)
    assert "Tuned on the validation split: learning rate was chosen by the valid accuracy" in text
    assert "Tuned on the test set" not in text
    [optimum] = sweeps.select(records, protocol)
    assert optimum.values == {"learning_rate": 0.1} and optimum.report["test_accuracy"][0] == 0.5
    alone = general_notes(records[:1], protocol)
    assert "Tuned" not in alone  # as nothing was chosen


def test_the_split_and_the_unit_of_a_metric_are_declared():
    records = make({0.1: [0.5], 0.2: [0.6]})
    for record in records:
        record.metrics["test_recall"] = record.metrics["test_accuracy"]
    plain = sweeps.Protocol(metric="test_recall")
    assert "test set" not in general_notes(records, plain)
    assert cells_of(records, plain)[0][1] == "0.6000 (1)"
    recall = sweeps.Metric("test_recall", unit="%", split="test")
    declared = sweeps.Protocol(metric=recall)
    assert "Tuned on the test set" in general_notes(records, declared)
    assert cells_of(records, declared)[0][1] == "60.00 (1)"
    published = {("", 64): (61.0, None)}
    table = reports.make_table(sweeps.select(records, declared), declared, published)
    assert table["published"][0] == 0.61


def test_nothing_is_called_best_that_was_not_chosen():
    records = make({0.1: [0.8, 0.9]}) + make({0.2: [0.7, 0.8]}, batch_size=128)  # by a rule
    protocol = sweeps.Protocol(best=2, of=2)
    text = reports.to_text(sweeps.select(records, protocol), protocol)
    assert "best" not in text and "brackets" not in text and "Tuned" not in text


def test_learning_rates_are_decimals_unless_all_are_powers_of_two():
    assert cells_of(make({0.25: [0.9], 0.3: [0.1]}), sweeps.Protocol())[0][2] == "0.25 [a]"
    assert cells_of(make({0.25: [0.9], 0.5: [0.1]}), sweeps.Protocol())[0][2] == "2^-2 [a]"


def test_the_table_holds_the_unrounded_numbers(whole):
    table = reports.make_table(*whole)
    assert table["series"].tolist() == ["none", "none", "noise_1", "noise_1"]
    assert table["batch_size"].tolist() == [64, 128, 64, 256]
    first = table.iloc[0]
    assert first["test_accuracy_mean"] == pytest.approx(0.91)
    assert (first["published"], first["published_std"]) == (0.9, 0.01)
    assert first["difference_in_std"] == pytest.approx(1 / (2 + 1) ** 0.5)
    assert (first["learning_rate_low"], first["learning_rate_high"]) == (0.5, 1)
    assert table["flags"].tolist() == ["", "at_boundary", "all_diverged", ""]
    assert math.isnan(table["test_accuracy_mean"][2]) and table["runs"].tolist() == [2, 2, 0, 0]


def test_all_columns_but_series_and_flags_are_numeric(whole):
    table = reports.make_table(*whole)
    numeric = table.select_dtypes("number").columns
    assert [name for name in table if name not in numeric] == ["series", "flags"]


def test_csv_holds_the_numbers_of_the_table(whole):
    read = pd.read_csv(io.StringIO(reports.to_csv(*whole)), keep_default_na=False, na_values=[""])
    table = reports.make_table(*whole)
    numeric = table.select_dtypes("number").columns
    pd.testing.assert_frame_equal(read[numeric], table[numeric], check_dtype=False)
    assert reports.to_csv(*whole).splitlines()[1].split(",")[7:9] == ["0.5", "1"]


def test_text_is_aligned_one_series_below_the_other(whole):
    blocks = reports.to_text(*whole).split("\n\n")
    rows = {"none": ["64", "128"], "noise_1": ["64", "256"]}  # each series has its own
    for label, block in zip(rows, blocks[:2], strict=True):
        name, *lines = block.splitlines()
        assert name.strip() == label and len({len(line) for line in lines}) == 1
        assert [line.split()[0] for line in lines[2:]] == rows[label]
    assert "[a]" in blocks[0] and "[b] Every run diverged." in blocks[2]


def test_markdown_has_equal_cells_in_each_line(whole):
    lines = [line for line in reports.to_markdown(*whole).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {14}
    assert r"noise\_1: best eta" in lines[0] and "2<sup>-1</sup> (2<sup>-1</sup>–2" in lines[2]
    assert r"2<sup>-1</sup> \[a\]" in lines[3]


def test_latex_is_escaped_and_rectangular(whole):
    lines = reports.to_latex(*whole).splitlines()
    series, *rows = [line for line in lines if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {12}
    assert r"\multicolumn{6}{c}{none} & \multicolumn{6}{c}{noise\_1}" in series
    assert r"test accuracy (\%)" in rows[0]
    assert r"91.00 $\pm$ 1.41 (2) & $2^{-1}$ ($2^{-1}$--$2^{0}$)" in rows[1]
    assert not re.search(r"(?<!\\)[%_#]", "\n".join(lines))


def test_html_has_superscripts_and_small_marks(whole):
    text = rendering.to_html(*whole)
    assert '<th colspan="6">noise_1</th>' in text
    assert "2<sup>−1</sup> (2<sup>−1</sup>–2<sup>0</sup>)" in text
    assert "2<sup>−1</sup> <small>[a]</small>" in text
    assert "<p><small>[b]</small> Every run diverged.</p>" in text


def test_latex_escapes_every_special_character():
    nasty = r"a\b{c}$d&e%f#g_h~i^j"
    protocol = sweeps.Protocol(series=lambda run: nasty)
    text = reports.to_latex(sweeps.select(make({0.1: [0.5]}), protocol), protocol)
    expected = r"a\textbackslash{}b\{c\}\$d\&e\%f\#g\_h\textasciitilde{}i\textasciicircum{}j"
    assert expected in text


def test_published_fractions_are_refused():
    protocol = sweeps.Protocol()
    with pytest.raises(ValueError, match=r"percent, got at most 0.98; multiply"):
        reports.make_table([], protocol, {("", 64): (0.98, None)})


def test_an_empty_sweep_still_gives_a_table():
    assert reports.make_table([], sweeps.Protocol()).empty
    for write in RENDERERS:
        assert isinstance(write([], sweeps.Protocol()), str)


def test_several_published_numbers_stand_beside_their_own():
    protocol = sweeps.Protocol(best=2, of=2, report=("train_loss",))
    records = make({1: [0.9, 0.92], 2: [0.5, 0.5]})
    printed = {
        "test_accuracy": (90.0, 1.0),
        "train_loss": (0.2, None),
        "learning_rate": (2, 1, 4),
    }
    optima = sweeps.select(records, protocol)
    published = {("", 64): printed, ("", 128): {}}
    frame = rendering.format_table(optima, protocol, published)
    assert list(frame.columns[4:]) == [
        *("published test accuracy (%)", "difference (std)"),
        *("published train loss", "difference (std)", "published learning rate"),
    ]
    cells = frame.to_numpy().tolist()
    assert cells[0][4:] == ["90 ± 1", "+0.6", "0.2", "+7.8", "2^1 (2^0–2^2)"]
    assert cells[1] == ["128", *["-"] * 8]
    first = reports.make_table(optima, protocol, published).iloc[0]
    assert (first["published"], first["published_train_loss"]) == (0.9, 0.2)
    assert first["published_learning_rate_high"] == 4
    for write in RENDERERS:  # two columns have one heading
        assert write(optima, protocol, published)
    with pytest.raises(ValueError, match="no column to stand beside"):
        reports.make_table(optima, protocol, {("", 64): {"test_loss": (1.0, None)}})


def test_fields_named_like_columns_of_the_csv_file_lose_no_column():
    record = storage.Record(
        hparams={"series": 4, "runs": 0.5, "flags": 3}, status="finished", metrics={"runs": 7.0}
    )
    protocol = sweeps.Protocol(row="series", tune=("runs", "flags"), metric="runs")
    optima = sweeps.select([record], protocol)
    [line] = csv.DictReader(io.StringIO(reports.to_csv(optima, protocol)))
    assert (line["series"], line["series_"], line["runs_mean"]) == ("", "4", "7.0")
    assert (line["runs"], line["runs_"], line["flags_"]) == ("1", "0.5", "3")
    assert line["flags"] == "one_value"


def test_rows_and_tuned_fields_may_be_words_and_booleans():
    records = [
        storage.Record(
            hparams={"optimizer": name, "learning_rate": 0.1, "nesterov": nesterov},
            status="finished",
            metrics={"test_accuracy": 0.5 + 0.1 * nesterov},
        )
        for name in ("sgd", "adam")
        for nesterov in (False, True)
    ]
    protocol = sweeps.Protocol(row="optimizer", tune=("learning_rate", "nesterov"))
    published = {("", "lamb"): (50.0, None), ("", "adam"): {"nesterov": (True, True, True)}}
    assert [[cells[0], cells[3]] for cells in cells_of(records, protocol, published)] == [
        ["adam", "True"],
        ["lamb", "-"],
        ["sgd", "True"],
    ]
    optima = sweeps.select(records, protocol)
    for write in RENDERERS:
        assert "True" in write(optima, protocol, published)


def test_a_field_called_accuracy_has_no_unit():
    records = [
        storage.Record(
            hparams={"batch_size": 1, "accuracy": 0.5}, status="finished", metrics={"loss": 1.0}
        )
    ]
    protocol = sweeps.Protocol(tune=("accuracy",), metric="loss")
    published = {("", 1): {"accuracy": (0.25, 0.25, 0.25)}}
    optima = sweeps.select(records, protocol)
    headings = rendering.format_table(optima, protocol, published).columns
    assert list(headings[2:]) == ["accuracy", "published"]
    assert reports.make_table(optima, protocol, published)["published_accuracy"][0] == 0.25


def test_of_several_series_the_blank_one_is_named():
    protocol = sweeps.Protocol(series=lambda run: "x" * (run["batch_size"] > 64))
    records = make({0.5: [0.9]}) + make({0.5: [0.8]}, batch_size=128)
    optima = sweeps.select(records, protocol)
    assert reports.to_text(optima, protocol).startswith("  ''\n")
    assert "'': test accuracy" in reports.to_markdown(optima, protocol)
    assert "'{}'" in reports.to_latex(optima, protocol)


@pytest.mark.parametrize(
    "published, said",
    [
        ({("", 64): 98.6}, "must be .value, standard deviation or None., got 98.6"),
        ({("", 64): ("98", None)}, "must be .value"),
        ({("", 64): (float("nan"), None)}, "must be .value"),
        ({("", 64): (98.0, -1.0)}, "must be .value"),
        ({("", 64): (98.0, 1.0, 2.0)}, "must be .value"),
        ({("", 64): {"learning_rate": (0.1, None)}}, "must be .best value, low, high"),
        ({64: (98.0, None)}, "have the key 64"),
        ({(None, 64): (98.0, None)}, "have the key .None, 64."),
        ([(98.0, None)], "must be a mapping"),
    ],
)
def test_published_numbers_of_another_form_are_refused(published, said):
    with pytest.raises(ValueError, match=said) as caught:
        reports.make_table([], sweeps.Protocol(), published)
    assert "\n" not in str(caught.value)
