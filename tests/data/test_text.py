"""Tests text files as tokens."""

import numpy as np
import pytest

from noisegen import data


@pytest.fixture
def files(tmp_path):
    """Returns files(train, test) -> their paths."""

    def write(train, test):
        paths = tmp_path / "train.tokens", tmp_path / "test.tokens"
        for path, words in zip(paths, (train, test), strict=True):
            path.write_text(words, encoding="utf-8")
        return paths

    return write


def words(text, split):
    return [text.vocabulary[token] for token in getattr(text, split)]


def test_words_lines_and_unknown_words(files):
    # The WikiText files' form: an empty line, headings, words that are unknown already.
    text = data.load_text(*files(" \n = A b = \n a <unk> a\n", "a zebra b\n\n"))
    assert words(text, "train") == [
        "<eos>",
        "=",
        "A",
        "b",
        "=",
        "<eos>",
        "a",
        "<unk>",
        "a",
        "<eos>",
    ]
    assert words(text, "test") == ["a", "<unk>", "b", "<eos>", "<eos>"]
    assert text.vocabulary == ("<unk>", "<eos>", "=", "a", "A", "b")
    assert text.train.dtype == text.test.dtype == np.int32
    assert text.description == (
        "train.tokens (10 tokens, 6 words), tested on test.tokens (5 tokens)"
    )


def test_a_smaller_vocabulary_keeps_the_frequent_words(files):
    text = data.load_text(*files("a b b c c c\n", "c b a\n"), vocabulary_size=4)
    assert text.vocabulary == ("<unk>", "<eos>", "c", "b")
    assert words(text, "test") == ["c", "b", "<unk>", "<eos>"]


def test_fingerprint_follows_the_tokens(files):
    prints = [
        data.load_text(*files(*pair)).fingerprint
        for pair in [("a b\n", "a\n"), ("b a\n", "b\n"), ("a b\n", "b\n"), ("a b c\n", "a\n")]
    ]
    assert len(set(prints)) == 4
    assert data.load_text(*files("a b\n", "a\n")).fingerprint == prints[0]


def test_a_validation_text_is_read_like_the_test_text(files, tmp_path):
    paths = files("a b a\n", "a c\n")
    (tmp_path / "valid.tokens").write_text("b z\n")
    text = data.load_text(*paths, valid=tmp_path / "valid.tokens")
    without = data.load_text(*paths)
    assert words(text, "valid") == ["b", "<unk>", "<eos>"] and text.valid.dtype == np.int32
    assert text.vocabulary == without.vocabulary and without.valid is None
    assert text.description == f"{without.description}, validated on valid.tokens (3 tokens)"
    assert text.fingerprint != without.fingerprint


def test_invalid_texts_are_refused(files, tmp_path):
    train, test = files("a\n", "\n")
    with pytest.raises(ValueError, match=r"test\.tokens has no words"):
        data.load_text(train, test)
    with pytest.raises(ValueError, match="must leave a word"):
        data.load_text(train, train, vocabulary_size=2)
    with pytest.raises(FileNotFoundError, match="no text"):
        data.load_text(tmp_path / "absent", test)


def test_tokens_of_a_user_make_the_same_text(files):
    read = data.load_text(*files("a b a c\n", "a c\n"))
    made = data.text_from_tokens(read.train.tolist(), read.test.astype(np.uint16), read.vocabulary)
    assert made.fingerprint == read.fingerprint and made.vocabulary == read.vocabulary
    assert made.test.dtype == np.int32 and made.test.tolist() == read.test.tolist()
    assert data.text_from_tokens(read.train, read.test, 9).fingerprint != read.fingerprint


def test_tokens_outside_the_vocabulary_are_refused():
    def refused(message, train=(0, 1), vocabulary=("a", "b"), **options):
        with pytest.raises(ValueError, match=message):
            data.text_from_tokens(np.array(train), np.array([0]), vocabulary, **options)

    refused("train has tokens from 0 to 2, but those of a vocabulary of 2", train=[0, 2])
    refused("train has tokens from -1", train=[-1, 0])
    refused(r"valid has tokens from 5 to 5", valid=[5])
    refused(r"train must be whole numbers .* float64 of the shape \(0,\)", train=[])
    refused(r"of the shape \(1, 2\)", train=[[0, 1]])
    refused("vocabulary must be a whole number >= 1", vocabulary=0)
    refused("vocabulary must be words", vocabulary=[b"a", b"b"])
    refused("vocabulary must be words .* or their number", vocabulary="256")
    refused(r"sorted\(vocabulary, key=vocabulary.get\)", vocabulary={"a": 0, "b": 1})
    with pytest.raises(ValueError, match="train must be one array of tokens; concatenate"):
        data.text_from_tokens([[0], [1, 0]], [0], 2)


def test_words_may_be_an_array():
    assert data.text_from_tokens([0], [1], np.array(["a", "b"])).vocabulary == ("a", "b")
