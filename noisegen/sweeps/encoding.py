"""Text in the characters of an encoding, such as a terminal's.

>>> for_encoding("0.5 ± 0.1", "ascii")
'0.5 +- 0.1'
"""

import re

from noisegen.reports import markup

_SIGNS = {
    **dict.fromkeys("–—−", "-"),
    **{"±": "+-", "×": "x", "·": "*", "…": "...", "→": "->"},
}


def for_encoding(text: str, encoding: str | None) -> str:
    """Returns text in the characters of an encoding.

    A sign that the encoding lacks turns into one of ASCII's (+- for ±), any other character into
    Python's escape. The spaces before it shrink by as much, so that columns stay aligned.

    Args:
      text: Any text.
      encoding: Name of the encoding; None stands for one that has every character.
    """
    if encoding is None or _is_encodable(text, encoding):
        return text

    def fit(match):
        spaces, words = match.groups()
        fitted = "".join(
            character if _is_encodable(character, encoding) else to_ascii(character)
            for character in words
        )
        growth = len(fitted) - markup.width(words)
        return spaces[: max(1, len(spaces) - growth)] + fitted

    # Words that one space parts belong to one column.
    return re.sub(r"( *)([^ \n]+(?: [^ \n]+)*)", fit, text)


def to_ascii(character: str) -> str:
    r"""Returns a character written in ASCII, as an escape if there is no usual way to write it.

    >>> to_ascii("±"), to_ascii("·"), to_ascii("α")
    ('+-', '*', '\\u03b1')
    """
    return _SIGNS.get(character) or character.encode("unicode_escape").decode()


def _is_encodable(text, encoding):
    """Returns whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
