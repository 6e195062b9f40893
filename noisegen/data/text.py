"""Text as tokens: a user's own, or from files of words separated by blanks.

Such files are Penn Treebank as prepared by Mikolov (`ptb.train.txt`, `ptb.valid.txt`,
`ptb.test.txt`) and WikiText-2 (`wiki.train.tokens`, ...).

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
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from noisegen import _validate
from noisegen.data import cache

END, UNKNOWN = "<eos>", "<unk>"

# First bytes of files that are not UTF-8 text, their kind, and the command that converts them. The
# marks of UTF-32 come first, because one of them begins with a mark of UTF-16.
_OTHER_FORMATS = (
    (codecs.BOM_UTF32_LE, "UTF-32 text", "iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF32_BE, "UTF-32 text", "iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (b"\x1f\x8b", "compressed by gzip", "gunzip"),
    (b"BZh91AY&SY", "compressed by bzip2", "bunzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unzstd"),
    (b"PK\x03\x04", "a zip archive", "unzip"),
)


class Text(NamedTuple):
    """Training, test and perhaps validation text as tokens: indices into the vocabulary."""

    name: str
    train: np.ndarray  # int32 (n,)
    test: np.ndarray  # int32 (m,)
    vocabulary: tuple[str, ...]  # Word of each token: <unk>, <eos>, then the most frequent first.
    fingerprint: str  # 16 hexadecimal digits, equal for equal tokens.
    description: str  # One line: the files and their sizes.
    valid: np.ndarray | None = None  # int32 (k,)


def load_text(
    train: str | os.PathLike,
    test: str | os.PathLike,
    vocabulary_size: int | None = None,
    *,
    valid: str | os.PathLike | None = None,
) -> Text:
    """Reads files of words.

    Every line, even an empty one, ends with the word `<eos>`. Words outside the vocabulary become
    `<unk>`.

    A line ends at a line feed, with or without a carriage return before it. In a file without line
    feeds, carriage returns end lines. Words end at ASCII blanks: space, tab, form feed, vertical
    tab, carriage return. Every other character is part of its word, including U+00A0 (no-break
    space), U+0085 and U+2028. A byte order mark at the start of a line is ignored.

    Args:
      train: Path of the training text, UTF-8, whose words form the vocabulary. `~` is expanded.
      test: Path of the text used for evaluation.
      vocabulary_size: Number of words to keep, the most frequent ones, including `<unk>` and
        `<eos>`. None keeps all.
      valid: Path of the validation text, on which a learning rate may be chosen. None if there is
        none.

    Returns:
      The `Text`.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file has no words or is not UTF-8 text, or the vocabulary is too small.
    """
    if vocabulary_size is not None:
        [vocabulary_size] = _validate.whole(0, vocabulary_size=vocabulary_size)
        if vocabulary_size < 3:
            raise ValueError(f"vocabulary_size={vocabulary_size} must leave a word: at least 3.")
    # pathlib's expanduser raises if there is no home directory, whereas this one keeps the name.
    given = {"train": train, "test": test}
    if valid is not None:
        given["valid"] = valid
    paths = {
        split: pathlib.Path(os.path.expanduser(os.fsdecode(path))) for split, path in given.items()
    }
    words = {split: _words(path) for split, path in paths.items()}
    vocabulary = _vocabulary(words["train"], vocabulary_size)
    token_of = {word: token for token, word in enumerate(vocabulary)}
    unknown = token_of[UNKNOWN]
    tokens = {
        split: np.array([token_of.get(word, unknown) for word in of_split], np.int32)
        for split, of_split in words.items()
    }
    description = (
        f"{paths['train'].name} ({len(tokens['train']):,} tokens, {len(vocabulary):,} words)"
    )
    for split, verb in (("test", "tested"), ("valid", "validated")):
        if split in tokens:
            description += f", {verb} on {paths[split].name} ({len(tokens[split]):,} tokens)"
    return _text(paths["train"].name, tokens, vocabulary, description)


def text_from_tokens(
    train: np.ndarray,
    test: np.ndarray,
    vocabulary: Sequence[str] | int,
    *,
    valid: np.ndarray | None = None,
    name: str = "tokens",
) -> Text:
    """Makes a text from a user's own tokens, as the tasks of language take it.

    Args:
      train: Tokens (n,) of the training text: whole numbers from 0 to the size of the vocabulary
        minus 1. They are copied.
      test: Tokens (m,) of the text used for evaluation.
      vocabulary: Word of each token, or their number.
      valid: Tokens (k,) of the validation text, on which a learning rate may be chosen.
      name: Name of the text, part of the name of its tasks.

    Returns:
      The `Text`, with the fingerprint that `load_text` gives to the same tokens.

    Raises:
      ValueError: If the name is no text, or tokens are not one-dimensional whole numbers of the
        vocabulary, or there are none.

    Examples:
      The tokens of this text are bytes:

      >>> import numpy as np
      >>> from noisegen import data
      >>> train, test = (np.frombuffer(raw, np.uint8) for raw in (b"the cat sat", b"the mat"))
      >>> data.text_from_tokens(train, test, 256, name="cats").description
      'cats (11 tokens of a vocabulary of 256), tested on 7 tokens'
    """
    _validate.text(name=name)
    words = _words_of_tokens(vocabulary)
    given = {"train": train, "test": test}
    if valid is not None:
        given["valid"] = valid
    tokens = {split: _tokens(split, array, len(words)) for split, array in given.items()}
    description = f"{name} ({len(tokens['train']):,} tokens of a vocabulary of {len(words):,})"
    for split, verb in (("test", "tested"), ("valid", "validated")):
        if split in tokens:
            description += f", {verb} on {len(tokens[split]):,} tokens"
    return _text(name, tokens, words, description)


def _text(
    name: str, tokens: Mapping[str, np.ndarray], vocabulary: tuple[str, ...], description: str
) -> Text:
    """Returns a text with its fingerprint, which follows from the tokens."""
    entry = cache.in_memory({**tokens, "size": np.int32([len(vocabulary)])})
    return Text(
        name=name,
        train=tokens["train"],
        test=tokens["test"],
        vocabulary=vocabulary,
        fingerprint=entry.fingerprint,
        description=description,
        valid=tokens.get("valid"),
    )


def _words_of_tokens(vocabulary: Sequence[str] | int) -> tuple[str, ...]:
    """Returns the word of each token; the words of a mere number of tokens are numbers."""
    if isinstance(vocabulary, Mapping):
        raise ValueError(
            "vocabulary must be a sequence of words, but it is a mapping; if it maps words to "
            "tokens 0, 1, 2, ..., write sorted(vocabulary, key=vocabulary.get)."
        )
    if isinstance(vocabulary, np.ndarray) and vocabulary.ndim:
        vocabulary = vocabulary.tolist()
    if not isinstance(vocabulary, Sequence):
        [size] = _validate.whole(1, vocabulary=vocabulary)
        return tuple(map(str, range(size)))
    # A string is a sequence of words, too, but more likely a mistake, such as the number in quotes.
    words = () if isinstance(vocabulary, str) else tuple(vocabulary)
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError("vocabulary must be words (str), one for each token, or their number.")
    return words


def _tokens(name: str, tokens: np.ndarray, size: int) -> np.ndarray:
    """Returns a copy of tokens as int32, after checking them."""
    try:
        tokens = np.asarray(tokens)
    except ValueError as error:  # Rows of unequal lengths.
        raise ValueError(f"{name} must be one array of tokens; concatenate its parts.") from error
    if tokens.ndim != 1 or not tokens.size or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"{name} must be whole numbers of the shape (n,), at least one, but it is "
            f"{tokens.dtype} of the shape {tokens.shape}."
        )
    if tokens.min() < 0 or tokens.max() >= size:
        raise ValueError(
            f"{name} has tokens from {tokens.min()} to {tokens.max()}, but those of a vocabulary "
            f"of {size} are from 0 to {size - 1}."
        )
    return tokens.astype(np.int32)


def _vocabulary(words: Sequence[str], size: int | None) -> tuple[str, ...]:
    """Returns `<unk>`, `<eos>` and the most frequent words, ties in alphabetical order."""
    counts = collections.Counter(words)
    ordinary = counts.keys() - {END, UNKNOWN}
    by_frequency = sorted(ordinary, key=lambda word: (-counts[word], word))
    if size is not None:
        by_frequency = by_frequency[: size - 2]  # The two special words count too.
    return (UNKNOWN, END, *by_frequency)


def _words(path: pathlib.Path) -> list[str]:
    """Returns the words of a file in order, with `<eos>` at the end of every line."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no text {path}; give a file of words separated by spaces, such as "
            "wiki.train.tokens or ptb.train.txt."
        )
    lines = _lines(_read(path))
    if not any(lines):
        raise ValueError(f"{path} has no words.")
    return [word for line in lines for word in (*line, END)]


def _read(path: pathlib.Path) -> bytes:
    """Reads a file of UTF-8 text as bytes; raises ValueError for any other content."""
    raw = path.read_bytes()
    for mark, kind, command in _OTHER_FORMATS:
        if raw.startswith(mark):
            raise ValueError(f"{path} is {kind}, not UTF-8 text: convert it with `{command}`.")
    offset = raw.find(b"\0")
    if offset >= 0:
        raise ValueError(
            f"{path} has a NUL byte at offset {offset}, so it is not UTF-8 text: give a text file, "
            "or convert this one with `iconv -t UTF-8 -f` and its encoding."
        )
    # Only to find bytes that are not UTF-8, where the message can name them.
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "convert it with `iconv -t UTF-8 -f` and its encoding, such as LATIN1."
        ) from None
    return raw


def _lines(raw: bytes) -> list[list[str]]:
    """Returns the words of every line.

    The text is split as bytes, at ASCII blanks only. str.split also splits at others.
    """
    if b"\n" not in raw:  # Classic Mac OS ended lines by carriage returns.
        raw = raw.replace(b"\r", b"\n")
    lines = [line.removeprefix(codecs.BOM_UTF8) for line in raw.split(b"\n")]
    if not lines[-1]:  # Nothing follows the end of the last line.
        lines.pop()
    return [[word.decode("utf-8") for word in line.split()] for line in lines]
