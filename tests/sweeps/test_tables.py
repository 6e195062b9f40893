"""Tables: the numbers, and each way of writing them."""

import csv
import io
import re

import pytest

from noisegen import sweeps


def make(accuracies, batch_size=64, eta=0.0):
    return [
        {
            "run": {"batch_size": batch_size, "learning_rate": rate, "eta": eta, "seed": seed},
            "status": "diverged" if accuracy is None else "finished",
            "metrics": {"test_accuracy": accuracy, "train_loss": 0.25 + seed / 100},
        }
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


@pytest.fixture(name="table")
def _table():
    return sweeps.make_table(sweeps.select(RECORDS, PROTOCOL), PROTOCOL, PUBLISHED)


def test_cells(table):
    width = (len(table.header) - 1) // 2
    first, second, third = table.body
    assert [text for text, _ in first[: width + 1]] == [
        "64",
        "91.00 ± 1.41 (2)",
        "2^-1 (2^-1–2^0)",
        "0",
        "0.2550 ± 0.0071",
        "90 ± 1",
        "+0.6",
    ]
    assert [text for text, _ in first[width + 1 :]] == ["-", "diverged", "-", "-", "-", "-"]
    assert [text for text, _ in second[: width + 1]][-2:] == ["91", "−0.7"]
    assert [text for text, _ in third[width + 1 :]] == ["-", "-", "-", "-", "50 ± 0.5", "-"]
    assert table.groups == (("", 1), ("none", width), ("noise_1", width))


def test_flags_become_marks_with_notes(table):
    notes = {mark: note for mark, note in table.notes if mark}
    assert list(notes) == ["a", "b"]
    assert "edge" in notes["a"] and "diverged" in notes["b"]
    assert [row[2][1] for row in table.body] == ["", "a", ""]
    assert table.body[0][8][1] == "b"


def test_general_notes(table):
    text = " ".join(note for mark, note in table.notes if not mark)
    assert "of the 2 runs with the best learning rate and eta" in text
    assert "Tuned on the test set" in text and "Difference" in text
    protocol = sweeps.Protocol(metric="train_loss", mode="min")
    loss = sweeps.make_table(sweeps.select(make({0.1: [0.5], 0.2: [0.6]}), protocol), protocol)
    text = " ".join(note for _, note in loss.notes)
    assert "test set" not in text and "Difference" not in text and "of one run with" in text


def test_nothing_is_called_best_that_was_not_chosen():
    records = make({0.1: [0.8, 0.9]}) + make({0.2: [0.7, 0.8]}, batch_size=128)  # by a rule
    protocol = sweeps.Protocol(best=2, of=2)
    table = sweeps.make_table(sweeps.select(records, protocol), protocol)
    text = " ".join((*table.header, *(note for _, note in table.notes)))
    assert "best" not in text and "brackets" not in text and "Tuned" not in text


def test_learning_rates_are_decimals_unless_all_are_powers_of_two():
    protocol = sweeps.Protocol()
    optima = sweeps.select(make({0.25: [0.9], 0.3: [0.1]}), protocol)
    assert sweeps.make_table(optima, protocol).body[0][2][0] == "0.25"


def test_csv_holds_the_unrounded_numbers(table):
    lines = list(csv.DictReader(io.StringIO(sweeps.to_csv(table))))
    assert [(line["series"], line["batch_size"]) for line in lines] == [
        ("none", "64"),
        ("none", "128"),
        ("noise_1", "64"),
        ("noise_1", "256"),
    ]
    assert float(lines[0]["test_accuracy_mean"]) == pytest.approx(0.91)
    assert float(lines[0]["published"]) == 0.9 and float(lines[0]["published_std"]) == 0.01
    assert float(lines[0]["difference_in_std"]) == pytest.approx(1 / (2 + 1) ** 0.5)
    assert (lines[0]["learning_rate_low"], lines[0]["learning_rate_high"]) == ("0.5", "1")
    assert lines[1]["flags"] == "at_boundary" and lines[2]["flags"] == "all_diverged"
    assert lines[2]["test_accuracy_mean"] == "" and lines[3]["runs"] == "0"


def test_text_is_aligned_one_series_below_the_other(table):
    blocks = sweeps.to_text(table).split("\n\n")
    for label, block in zip(("none", "noise_1"), blocks[:2], strict=True):
        name, *lines = block.splitlines()
        assert name.strip() == label and len({len(line) for line in lines}) == 1
        assert [line.split()[0] for line in lines[2:]] == ["64", "128", "256"]
    assert "[a]" in blocks[0] and "[b] Every run diverged." in blocks[2]


def test_markdown_has_equal_cells_in_each_line(table):
    lines = [line for line in sweeps.to_markdown(table).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.header) + 1}
    assert r"noise\_1: best eta" in lines[0] and "2<sup>-1</sup> (2<sup>-1</sup>–2" in lines[2]
    assert r"2<sup>-1</sup> \[a\]" in lines[3]


def test_latex_is_escaped_and_rectangular(table):
    lines = sweeps.to_latex(table).splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows[1:]} == {len(table.header) - 1}
    assert rows[0] == r"\multicolumn{1}{c}{} & \multicolumn{6}{c}{none} & " + (
        r"\multicolumn{6}{c}{noise\_1} \\"
    )
    assert r"test accuracy (\%)" in rows[1]
    assert r"91.00 $\pm$ 1.41 (2) & $2^{-1}$ ($2^{-1}$--$2^{0}$)" in rows[2]
    assert not re.search(r"(?<!\\)[%_#]", "\n".join(lines))


def test_latex_escapes_every_special_character():
    nasty = r"a\b{c}$d&e%f#g_h~i^j"
    protocol = sweeps.Protocol(series=lambda run: nasty)
    text = sweeps.to_latex(sweeps.make_table(sweeps.select(make({0.1: [0.5]}), protocol), protocol))
    expected = r"a\textbackslash{}b\{c\}\$d\&e\%f\#g\_h\textasciitilde{}i\textasciicircum{}j"
    assert expected in text


def test_published_fractions_are_refused():
    protocol = sweeps.Protocol()
    with pytest.raises(ValueError, match=r"percent, got at most 0.98; multiply"):
        sweeps.make_table([], protocol, {("", 64): (0.98, None)})


def test_an_empty_sweep_still_gives_a_table():
    table = sweeps.make_table([], sweeps.Protocol())
    for write in (sweeps.to_text, sweeps.to_csv, sweeps.to_markdown, sweeps.to_latex):
        assert isinstance(write(table), str)


def test_several_published_numbers_stand_beside_their_own():
    protocol = sweeps.Protocol(best=2, of=2, report=("train_loss",))
    records = make({1: [0.9, 0.92], 2: [0.5, 0.5]})
    printed = {
        "test_accuracy": (90.0, 1.0),
        "train_loss": (0.2, None),
        "learning_rate": (2, 1, 4),
    }
    optima = sweeps.select(records, protocol)
    table = sweeps.make_table(optima, protocol, {("", 64): printed, ("", 128): {}})
    assert table.header[4:] == (
        *("published test accuracy (%)", "difference"),
        *("published train loss", "difference", "published learning rate"),
    )
    texts = [[text for text, _ in row] for row in table.body]
    assert texts[0][4:] == ["90 ± 1", "+0.6", "0.2", "+7.8", "2^1 (2^0–2^2)"]
    assert texts[1] == ["128", *["-"] * 8]
    [first, _] = csv.DictReader(io.StringIO(sweeps.to_csv(table)))
    assert float(first["published"]) == 0.9 and float(first["published_train_loss"]) == 0.2
    assert float(first["published_learning_rate_high"]) == 4
    with pytest.raises(ValueError, match="no column to stand beside"):
        sweeps.make_table(optima, protocol, {("", 64): {"test_loss": (1.0, None)}})


def test_fields_named_like_columns_of_the_csv_file_lose_no_column():
    record = {
        "run": {"series": 4, "runs": 0.5, "flags": 3},
        "status": "finished",
        "metrics": {"runs": 7.0},
    }
    protocol = sweeps.Protocol(row="series", tune=("runs", "flags"), metric="runs")
    table = sweeps.make_table(sweeps.select([record], protocol), protocol)
    [line] = csv.DictReader(io.StringIO(sweeps.to_csv(table)))
    assert (line["series"], line["series_"], line["runs_mean"]) == ("", "4", "7.0")
    assert (line["runs"], line["runs_"], line["flags_"]) == ("1", "0.5", "3")
    assert line["flags"] == "one_value"


def test_rows_and_tuned_fields_may_be_words_and_booleans():
    records = [
        {
            "run": {"optimizer": name, "learning_rate": 0.1, "nesterov": nesterov},
            "status": "finished",
            "metrics": {"test_accuracy": 0.5 + 0.1 * nesterov},
        }
        for name in ("sgd", "adam")
        for nesterov in (False, True)
    ]
    protocol = sweeps.Protocol(row="optimizer", tune=("learning_rate", "nesterov"))
    published = {("", "lamb"): (50.0, None), ("", "adam"): {"nesterov": (True, True, True)}}
    table = sweeps.make_table(sweeps.select(records, protocol), protocol, published)
    assert [[row[0][0], row[3][0]] for row in table.body] == [
        ["adam", "True"],
        ["lamb", "-"],
        ["sgd", "True"],
    ]
    for write in (sweeps.to_text, sweeps.to_csv, sweeps.to_markdown, sweeps.to_latex):
        assert "True" in write(table)


def test_a_field_called_accuracy_has_no_unit():
    records = [
        {"run": {"batch_size": 1, "accuracy": 0.5}, "status": "finished", "metrics": {"loss": 1.0}}
    ]
    protocol = sweeps.Protocol(tune=("accuracy",), metric="loss")
    published = {("", 1): {"accuracy": (0.25, 0.25, 0.25)}}
    table = sweeps.make_table(sweeps.select(records, protocol), protocol, published)
    assert table.header[2:] == ("accuracy", "published")
    assert table.data[0]["published_accuracy"] == 0.25


def test_of_several_series_the_blank_one_is_named():
    protocol = sweeps.Protocol(series=lambda run: "x" * (run["batch_size"] > 64))
    records = make({0.5: [0.9]}) + make({0.5: [0.8]}, batch_size=128)
    table = sweeps.make_table(sweeps.select(records, protocol), protocol)
    assert sweeps.to_text(table).startswith("  ''\n")
    assert "| '': test accuracy" in sweeps.to_markdown(table)
    assert "'{}'" in sweeps.to_latex(table)


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
        sweeps.make_table([], sweeps.Protocol(), published)
    assert "\n" not in str(caught.value)
