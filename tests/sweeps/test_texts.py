"""Texts of the user's: what each medium shows of them, read as that medium reads it."""

import csv
import html
import io
import re

import markdown_it
import pytest

from noisegen import sweeps
from noisegen.sweeps import numerals, texts

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
    """A table of one row, in which every label names a series and is a tuned word."""
    records = [
        {
            "run": {"batch_size": 64, "learning_rate": 0.5, "word": label},
            "status": "finished",
            "metrics": {"test_accuracy": 0.9},
        }
        for label in labels
    ]
    protocol = sweeps.Protocol(
        series=lambda run: run["word"], labels=tuple(labels), tune=("learning_rate", "word")
    )
    return sweeps.make_table(sweeps.select(records, protocol), protocol)


def test_most_texts_are_shown_as_they_are():
    for text in ("[noise]", "$a_b$", "_x", "a^b\\c", "<&>", "2^-3", "中文 é 😀", 'it\'s "so"'):
        assert texts.shown(text) == text


def test_every_text_is_visible_in_one_line_and_different_ones_differ():
    shown = [texts.shown(label) for label in LABELS]
    assert len(set(shown)) == len(LABELS)
    for text in shown:
        assert text.isprintable() and text == " ".join(text.split()) and text
    assert [texts.shown(text) for text in ("", "a  b", "a\nb", "\x1b[31m")] == [
        "''",
        r"'a \x20b'",
        "'a\\nb'",
        "'\\x1b[31m'",
    ]


def test_markdown_shows_labels_and_words_as_they_are():
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = reader.render(sweeps.to_markdown(table_of(LABELS)))
    head, *rows = (re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in page.split("<tr>")[1:])
    read = [[html.unescape(re.sub("</?span>", "", cell)) for cell in row] for row in (head, *rows)]
    assert [cell.removesuffix(": test accuracy (%)") for cell in read[0][1::3]] == [
        texts.shown(label) for label in LABELS
    ]
    assert read[1][3::3] == [texts.shown(label) for label in LABELS]
    assert read[1][2] == "2<sup>-1</sup> [a]"


def test_markdown_turns_no_word_into_an_emoji():
    assert not re.search(r":smile:", texts.markdown("a :smile: b"))
    assert texts.markdown("lr: 0.1") == "lr: 0.1"


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
    assert texts.latex(text) == latex


def test_no_row_of_latex_begins_with_what_a_line_end_takes():
    records = [
        {"run": {"batch_size": row, "learning_rate": 1}, "status": "diverged", "metrics": {}}
        for row in ("[2pt]", "*")
    ]
    protocol = sweeps.Protocol()
    text = sweeps.to_latex(sweeps.make_table(sweeps.select(records, protocol), protocol))
    assert not re.search(r"(\\\\|\\midrule)\n[\[*]", text)
    assert "{}[2pt] &" in text and "{}* &" in text


def test_words_that_look_like_powers_are_words():
    table = table_of(["2^-3"])
    assert table.body[0][2][0] == "2^-1" and table.body[0][3][0] == "2^-3"
    assert "$2^{-1}$" in sweeps.to_latex(table)
    assert r"2\textasciicircum{}-3" in sweeps.to_latex(table)
    assert "2^{-3}" not in sweeps.to_latex(table)
    assert "2<sup>-3</sup>" not in sweeps.to_markdown(table)


def test_csv_holds_labels_and_words_as_they_are():
    labels = [label for label in LABELS if label != "- x"]
    text = sweeps.to_csv(table_of(labels))
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["series"] for line in lines] == labels
    assert [line["word"] for line in lines] == labels


def test_a_spreadsheet_computes_no_label():
    labels = ["=1+1", "+x", "-x", "@x", "\t=x", "'=x", "-0.5", "0.1", "x=1", "＝1"]
    lines = list(csv.DictReader(io.StringIO(sweeps.to_csv(table_of(labels)), newline="")))
    assert [line["series"] for line in lines] == [
        *("'=1+1", "'+x", "'-x", "'@x", "'\t=x", "''=x"),
        *("-0.5", "0.1", "x=1", "'＝1"),
    ]
    assert lines[0]["test_accuracy_mean"] == "0.9"


def test_numbers_below_zero_stay_numbers():
    record = {"run": {"batch_size": 1, "learning_rate": -0.5}, "status": "finished"}
    protocol = sweeps.Protocol(metric="loss")
    optima = sweeps.select([record | {"metrics": {"loss": -2.0}}], protocol)
    assert ",-2.0,,1,-0.5," in sweeps.to_csv(sweeps.make_table(optima, protocol))


def test_columns_of_wide_and_joining_characters_are_aligned():
    records = [
        {"run": {"batch_size": row, "learning_rate": 1}, "status": "diverged", "metrics": {}}
        for row in ("中文中文中文", "e\u0301e\u0301", "plain")
    ]
    protocol = sweeps.Protocol()
    text = sweeps.to_text(sweeps.make_table(sweeps.select(records, protocol), protocol))
    lines = text.split("\n\n")[0].splitlines()
    assert len({texts.width(line) for line in lines}) == 1
    assert texts.width("中e\u0301a") == 4


TABLE = """\
  batch size  test accuracy (%)  difference
          64   91.00 ± 1.41 (2)        −0.6
         128         90–92 中文           -
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", None])
def test_a_terminal_shows_a_table_in_its_own_characters(encoding):
    text = texts.for_encoding(TABLE, encoding)
    if encoding is None:
        assert text == TABLE
        return
    assert text.encode(encoding).decode(encoding) == text
    if encoding == "ascii":
        assert "91.00 +- 1.41 (2)" in text and "90-92 \\u4e2d\\u6587" in text and "-0.6" in text
    lines = text.splitlines()
    assert len({texts.width(line) for line in lines}) == 1


def test_halves_of_characters_are_escaped():
    assert texts.for_encoding("a\udcff", "utf-8") == "a\\udcff"
    assert texts.printable("a\udcff\x1b[0m\r\n\tb\x00é") == "a\\udcff\\x1b[0m\n\tb\\x00é"


@pytest.mark.parametrize(
    "values, written",
    [
        ([0.1, 0.1000000015, 0.3], ["0.1", "0.1000000015", "0.3"]),
        ([0.1 + 0.2, 0.5], ["0.3", "0.5"]),
        ([1, 1.0000001], ["1", "1.0000001"]),
        ([True, False], ["True", "False"]),
        (["adam", "2^3", ""], ["adam", "2^3", "''"]),
        ([2**60, 2**60 + 1], ["1152921504606846976", "1152921504606846977"]),
        ([1e300, 5e-324], ["1e+300", "4.94066e-324"]),
        ([-0.5, 0, float("nan")], ["-0.5", "0", "nan"]),
    ],
)
def test_different_values_look_different(values, written):
    assert list(map(numerals.speller(values), values)) == written
    assert list(map(numerals.writer([*values, 3]), values)) == written


@pytest.mark.parametrize(
    "mean, std, shown",
    [
        (1e300, 1e299, "1e+300 ± 1e+299"),
        (1.5e-30, 1e-31, "1.5e-30 ± 1e-31"),
        (2e-5, float("nan"), "2e-05"),
        (-0.25, 0.01, "-0.250 ± 0.010"),
        (float(2**53), float("nan"), "9007199254740992"),
        (0.0, 0.0, "0 ± 0"),
        (float("nan"), float("nan"), "-"),
    ],
)
def test_metrics_of_any_size_are_short(mean, std, shown):
    assert numerals.spread("loss", mean, std) == shown


def test_names_are_words_and_different_ones_without_words_differ():
    names = ["learning_rate", "_lr", "lr_", "a__b", "_", "", "x\ny"]
    assert [numerals.words(name) for name in names] == [
        *("learning rate", "_lr", "lr_", "a__b", "_", "''", "'x\\ny'"),
    ]
