"""Text as tokens, from files of words separated by spaces.

Penn Treebank as Mikolov prepared it (`ptb.train.txt`, `ptb.valid.txt`, `ptb.test.txt`) and
WikiText-2 (`wiki.train.tokens`, ...) are such files.

>>> import pathlib, tempfile
>>> from noisegen import data
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> _ = (folder / "train").write_text("the cat sat\\non the mat\\n")
>>> _ = (folder / "test").write_text("the dog sat\\n")
>>> text = data.load_text(folder / "train", folder / "test")
>>> [text.vocabulary[token] for token in text.test]
['the', '<unk>', 'sat', '<eos>']
"""

import codecs
import collections
import os
import pathlib
from typing import NamedTuple

import numpy as np

from noisegen import _validate
from noisegen.data import cache

END, UNKNOWN = "<eos>", "<unk>"

_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What the first bytes of a file say. The marks of UTF-32 come first: one begins with a UTF-16 mark.
_NO_TEXT = (
    *((mark, "UTF-32 text", "iconv -f UTF-32 -t UTF-8") for mark in _UTF32),
    *((mark, "UTF-16 text", "iconv -f UTF-16 -t UTF-8") for mark in _UTF16),
    (b"\x1f\x8b", "compressed by gzip", "gunzip"),
    (b"BZh91AY&SY", "compressed by bzip2", "bunzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unzstd"),
    (b"PK\x03\x04", "a zip archive", "unzip"),
)


class Text(NamedTuple):
    """Two texts as tokens, numbers of the words of the training text."""

    name: str
    train: np.ndarray  # int32 (n,)
    test: np.ndarray
    vocabulary: tuple[str, ...]  # word of each token, the most frequent first
    fingerprint: str  # 16 hexadecimal digits, equal for equal tokens
    source: str  # one line: the files and their sizes


def load_text(
    train: str | os.PathLike, test: str | os.PathLike, vocabulary_size: int | None = None
) -> Text:
    """Reads two files of words.

    Every line ends with the word `<eos>`, an empty line with nothing else; words that are not in
    the vocabulary become `<unk>`.

    A line ends at a line feed, with or without a carriage return before it. Carriage returns alone
    end lines only if the file has no line feed. Words end at ASCII blanks: space, tab, form feed,
    vertical tab, carriage return. Every other character is a part of its word, U+00A0 (no-break
    space), U+0085 and U+2028 among them. A byte order mark before a line does not count.

    Args:
      train: the training text, UTF-8, whose words make the vocabulary. `~` is the home directory.
      test: the text to evaluate on.
      vocabulary_size: keeps only the most frequent words, `<unk>` and `<eos>` counted; by default
        all.

    Returns:
      The `Text`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file has no words or is not UTF-8 text, or the vocabulary is too small.
    """
    if vocabulary_size is not None:
        [vocabulary_size] = _validate.whole(0, vocabulary_size=vocabulary_size)
        if vocabulary_size < 3:
            raise ValueError(f"vocabulary_size={vocabulary_size} must leave a word: at least 3.")
    # Unlike pathlib's, this expansion leaves the name as it is if there is no home directory.
    paths = [pathlib.Path(os.path.expanduser(os.fsdecode(path))) for path in (train, test)]
    words = [_words(path) for path in paths]
    counts = collections.Counter(words[0])
    kept = sorted(counts.keys() - {END, UNKNOWN}, key=lambda word: (-counts[word], word))
    kept = kept[: None if vocabulary_size is None else vocabulary_size - 2]
    vocabulary = (UNKNOWN, END, *kept)
    token = {word: index for index, word in enumerate(vocabulary)}
    tokens = [np.array([token.get(word, 0) for word in each], np.int32) for each in words]
    names = [path.name for path in paths]
    arrays = {"train": tokens[0], "test": tokens[1], "size": np.int32([len(vocabulary)])}
    return Text(
        name=names[0],
        train=tokens[0],
        test=tokens[1],
        vocabulary=vocabulary,
        fingerprint=cache.in_memory(arrays).fingerprint,
        source=f"{names[0]} ({len(tokens[0]):,} tokens, {len(vocabulary):,} words), tested on "
        f"{names[1]} ({len(tokens[1]):,} tokens)",
    )


def _words(path):
    """The words of a file, in order."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no text {path}; give a file of words separated by spaces, such as "
            "wiki.train.tokens or ptb.train.txt."
        )
    lines = _lines(_read(path))
    words = [word for line in lines for word in (*line, END)]
    if len(words) == len(lines):
        raise ValueError(f"{path} has no words.")
    return words


def _read(path):
    """Reads a file of UTF-8 text as bytes; refuses anything else."""
    raw = path.read_bytes()
    for mark, kind, command in _NO_TEXT:
        if raw.startswith(mark):
            raise ValueError(f"{path} is {kind}, not UTF-8 text: convert it with `{command}`.")
    place = raw.find(b"\0")
    if place >= 0:
        raise ValueError(
            f"{path} has a NUL byte at offset {place}, so it is not UTF-8 text: give a text file, "
            "or convert this one with `iconv -t UTF-8 -f` and its encoding."
        )
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "convert it with `iconv -t UTF-8 -f` and its encoding, such as LATIN1."
        ) from None
    return raw


def _lines(raw):
    """Returns the words of every line. Bytes split at ASCII blanks only; str would at others."""
    if b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")
    lines = raw.split(b"\n")
    if not lines[-1].removeprefix(codecs.BOM_UTF8):  # what follows the last line's end
        lines.pop()
    return [
        [word.decode("utf-8") for word in line.removeprefix(codecs.BOM_UTF8).split()]
        for line in lines
    ]
