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

import collections
import os
import pathlib
from typing import NamedTuple

import numpy as np

from noisegen.data import cache

END, UNKNOWN = "<eos>", "<unk>"


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

    Args:
      train: the training text, whose words make the vocabulary.
      test: the text to evaluate on.
      vocabulary_size: keeps only the most frequent words, `<unk>` and `<eos>` counted; by default
        all.

    Returns:
      The `Text`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file has no words, or the vocabulary is too small.
    """
    words = [_words(pathlib.Path(path)) for path in (train, test)]
    if vocabulary_size is not None and vocabulary_size < 3:
        raise ValueError(f"vocabulary_size={vocabulary_size} must leave a word: at least 3.")
    counts = collections.Counter(words[0])
    kept = sorted(counts.keys() - {END, UNKNOWN}, key=lambda word: (-counts[word], word))
    kept = kept[: None if vocabulary_size is None else vocabulary_size - 2]
    vocabulary = (UNKNOWN, END, *kept)
    token = {word: index for index, word in enumerate(vocabulary)}
    tokens = [np.array([token.get(word, 0) for word in each], np.int32) for each in words]
    names = [pathlib.Path(path).name for path in (train, test)]
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
    lines = path.read_text(encoding="utf-8").splitlines()
    words = [word for line in lines for word in (*line.split(), END)]
    if len(words) == len(lines):
        raise ValueError(f"{path} has no words.")
    return words
