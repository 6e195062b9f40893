"""Labels and words of any characters appear as they are, read as each language reads them."""

import csv
import html
import io
import re

import markdown_it
import pytest

from noisegen import reports, storage, sweeps
from noisegen.reports import markup, rendering

LABELS = [
    "[noise]",
    "[/small]",
    ":smile:",
    "\x1b[31mred",
    "$a_b$",
    "$5",
    "_hidden",
    "a^b\\c",
    "a|b",
    "a\\|b",
    "`code`",
    "*x* **y** ~~z~~",
    "<script>&\"'</script>",
    "&amp;",
    "[x](http://y)",
    "{title} %s 100%",
    "2^-3",
    "",
    "  ",
    "a  b",
    "a\nb",
    "a\\nb",
    "'a\\nb'",
    "中文",
    "α ± 1–2 😀",
    "\u202eabc",
    "# x",
    "- x",
    "1. x",
    "measured",
    "a\rb,\"c'",
    "a" * 200,
]


def table_of(labels):
    """Optima and protocol of one row, in which every label names a series and is a tuned word."""
    records = [
        storage.Record(
            hparams={"batch_size": 64, "learning_rate": 0.5, "word": label},
            status="finished",
            metrics={"test_accuracy": 0.9},
        )
        for label in labels
    ]
    protocol = sweeps.Protocol(
        series=lambda run: run["word"], labels=tuple(labels), tune=("learning_rate", "word")
    )
    return sweeps.select(records, protocol), protocol


def test_most_texts_are_shown_as_they_are():
    for text in ("[noise]", "$a_b$", "_x", "a^b\\c", "<&>", "2^-3", "中文 é 😀", 'it\'s "so"'):
        assert markup.visible(text) == text


def test_every_text_is_visible_in_one_line_and_different_ones_differ():
    shown = [markup.visible(label) for label in LABELS]
    assert len(set(shown)) == len(LABELS)
    for text in shown:
        assert text.isprintable() and text == " ".join(text.split()) and text
    assert [markup.visible(text) for text in ("", "a  b", "a\nb", "\x1b[31m")] == [
        "''",
        r"'a \x20b'",
        "'a\\nb'",
        "'\\x1b[31m'",
    ]


def test_markdown_shows_labels_and_words_as_they_are():
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = reader.render(reports.to_markdown(*table_of(LABELS)))
    head, *rows = (re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in page.split("<tr>")[1:])
    read = [[html.unescape(re.sub("</?span>", "", cell)) for cell in row] for row in (head, *rows)]
    assert [cell.removesuffix(": test accuracy (%)") for cell in read[0][1::3]] == [
        markup.visible(label) for label in LABELS
    ]
    assert read[1][3::3] == [markup.visible(label) for label in LABELS]
    assert read[1][2] == "2<sup>-1</sup> [a]"


def test_markdown_turns_no_word_into_an_emoji():
    assert not re.search(r":smile:", markup.MARKDOWN.escape("a :smile: b"))
    assert markup.MARKDOWN.escape("lr: 0.1") == "lr: 0.1"


@pytest.mark.parametrize(
    "text, latex",
    [
        (
            '<a> | "b" `c`',
            r"\textless{}a\textgreater{} \textbar{} \symbol{34}b\symbol{34} "
            r"\textasciigrave{}c\textasciigrave{}",
        ),
        ("a--b ''c'' d,,e", "a-{}-b '{}'c'{}' d,{},e"),
        ("α=β ± 2 × γ−1", r"$\alpha$=$\beta$ $\pm$ 2 $\times$ $\gamma$$-$1"),
        ("10⁻³ x₂", "10$^{-}$$^{3}$ x$_{2}$"),
        ("1–2", "1--2"),
        ("naïve 中", "naïve 中"),
    ],
)
def test_latex_sets_characters_as_they_are(text, latex):
    assert markup.LATEX.escape(text) == latex


def test_no_row_of_latex_begins_with_what_a_line_end_takes():
    records = [
        storage.Record(
            hparams={"batch_size": row, "learning_rate": 1}, status="diverged", metrics={}
        )
        for row in ("[2pt]", "*")
    ]
    protocol = sweeps.Protocol()
    text = reports.to_latex(sweeps.select(records, protocol), protocol)
    assert not re.search(r"(\\\\|\\midrule)\n[\[*]", text)
    assert "{}[2pt] &" in text and "{}* &" in text


def test_words_that_look_like_powers_are_words():
    table = table_of(["2^-3"])
    assert list(rendering.format_table(*table).iloc[0, 2:4]) == ["2^-1 [a]", "2^-3"]
    latex = reports.to_latex(*table)
    assert "$2^{-1}$" in latex and r"2\textasciicircum{}-3" in latex and "2^{-3}" not in latex
    assert "2<sup>-3</sup>" not in reports.to_markdown(*table)
    assert "2<sup>−3</sup>" not in rendering.to_html(*table)


def test_html_shows_labels_and_words_as_they_are():
    text = rendering.to_html(*table_of(LABELS))
    head, *rows = (re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in text.split("<tr>")[1:])
    shown = [markup.visible(label) for label in LABELS]
    assert [html.unescape(cell) for cell in head[1:]] == shown
    assert [html.unescape(cell) for cell in rows[1][3::3]] == shown
    assert "<script" not in text


def test_csv_holds_labels_and_words_as_they_are():
    labels = [label for label in LABELS if label != "- x"]
    text = reports.to_csv(*table_of(labels))
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["series"] for line in lines] == labels
    assert [line["word"] for line in lines] == labels


def test_a_spreadsheet_computes_no_label():
    labels = ["=1+1", "+x", "-x", "@x", "\t=x", "'=x", "-0.5", "0.1", "x=1", "＝1"]
    lines = list(csv.DictReader(io.StringIO(reports.to_csv(*table_of(labels)), newline="")))
    assert [line["series"] for line in lines] == [
        *("'=1+1", "'+x", "'-x", "'@x", "'\t=x", "''=x"),
        *("-0.5", "0.1", "x=1", "'＝1"),
    ]
    assert lines[0]["test_accuracy_mean"] == "0.9"


def test_numbers_below_zero_stay_numbers():
    run = {"batch_size": 1, "learning_rate": -0.5}
    record = storage.Record(hparams=run, status="finished", metrics={"loss": -2.0})
    protocol = sweeps.Protocol(metric="loss")
    optima = sweeps.select([record], protocol)
    assert ",-2.0,,1,-0.5," in reports.to_csv(optima, protocol)


def test_columns_of_wide_and_joining_characters_are_aligned():
    records = [
        storage.Record(
            hparams={"batch_size": row, "learning_rate": 1}, status="diverged", metrics={}
        )
        for row in ("中文中文中文", "e\u0301e\u0301", "plain")
    ]
    protocol = sweeps.Protocol()
    text = reports.to_text(sweeps.select(records, protocol), protocol)
    lines = text.split("\n\n")[0].splitlines()
    assert len({markup.width(line) for line in lines}) == 1
    assert markup.width("中e\u0301a") == 4


def test_characters_that_html_cannot_hold_are_escaped():
    assert markup.printable("a\udcff\x1b[0m\r\n\tb\x00é") == "a\\udcff\\x1b[0m\n\tb\\x00é"
