"""Tests texts of other programs: line ends, blanks, encodings."""

import codecs
import pathlib

import numpy as np
import pytest

from noisegen import data


@pytest.fixture
def words_of(tmp_path):
    """Returns words_of(content) -> the words of a training text of these bytes."""

    def read(content):
        path = tmp_path / "train.txt"
        path.write_bytes(content)
        text = data.load_text(path, path)
        return [text.vocabulary[token] for token in text.train]

    return read


@pytest.mark.parametrize("blank", ["\f", "\v", "\t", " ", "\r"])
def test_ascii_blanks_end_words_and_no_lines(words_of, blank):
    assert words_of(f"a{blank}b\n".encode()) == ["a", "b", "<eos>"]


@pytest.mark.parametrize(
    "character", ["\u2028", "\u2029", "\x85", "\xa0", "\x1c", "\x1d", "\x1e", "\x1f", "\u3000"]
)
def test_other_separators_are_a_part_of_their_word(words_of, character):
    word = f"a{character}b"
    assert words_of(f"{word} c\n".encode()) == [word, "c", "<eos>"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems_are_one_end_each(words_of, end):
    expected = ["a", "<eos>", "<eos>", "b", "<eos>"]
    assert words_of(f"a{end}{end}b{end}".encode()) == expected
    assert words_of(f"a{end}{end}b".encode()) == expected


def test_a_byte_order_mark_before_a_line_is_no_part_of_a_word(words_of):
    assert words_of(b"\xef\xbb\xbfthe cat the\n") == ["the", "cat", "the", "<eos>"]
    joined = b"\xef\xbb\xbfthe\n\xef\xbb\xbfthe\n"
    assert words_of(joined) == ["the", "<eos>", "the", "<eos>"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caf\xe9\n".encode("latin-1"), r"train\.txt is not UTF-8 text: byte 0xe9 at offset 3"),
        ("a b\n".encode("utf-16"), r"train\.txt is UTF-16 text.*iconv -f UTF-16"),
        (codecs.BOM_UTF16_BE + "a b\n".encode("utf-16-be"), "is UTF-16 text"),
        ("a b\n".encode("utf-32"), "is UTF-32 text.*iconv -f UTF-32"),
        ("a b\n".encode("utf-16-le"), "has a NUL byte at offset 1"),
        (b"a b\n\0\0\0", "has a NUL byte at offset 4"),
        (b"\x1f\x8b\x08\0rest", r"train\.txt is compressed by gzip.*gunzip"),
        (b"PK\x03\x04rest", "is a zip archive.*unzip"),
        (b"", "has no words"),
        (b"\xef\xbb\xbf", "has no words"),
        (b" \f\n\n", "has no words"),
    ],
)
def test_other_formats_are_refused_by_name_with_the_remedy(words_of, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        words_of(content)
    assert "\n" not in str(raised.value)


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.txt").write_text("a b\n")
    assert data.load_text("~/train.txt", pathlib.Path("~/train.txt")).train.tolist() == [2, 3, 1]


def test_the_vocabulary_size_may_be_any_whole_number(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("a b b\n")
    for size in (3, np.uint8(3), 3.0):
        assert data.load_text(path, path, size).vocabulary == ("<unk>", "<eos>", "b")
    for size in (3.5, True, float("nan")):
        with pytest.raises(ValueError, match="vocabulary_size must be a whole number"):
            data.load_text(path, path, size)
