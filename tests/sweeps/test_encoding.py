"""Text in the characters of a terminal."""

import pytest

from noisegen.reports import markup
from noisegen.sweeps import encoding as encodings

TABLE = """\
  batch size  test accuracy (%)  difference
          64   91.00 ± 1.41 (2)        −0.6
         128         90–92 中文           -
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", None])
def test_a_terminal_shows_a_table_in_its_own_characters(encoding):
    text = encodings.for_encoding(TABLE, encoding)
    if encoding is None:
        assert text == TABLE
        return
    assert text.encode(encoding).decode(encoding) == text
    if encoding == "ascii":
        assert "91.00 +- 1.41 (2)" in text and "90-92 \\u4e2d\\u6587" in text and "-0.6" in text
    lines = text.splitlines()
    assert len({markup.width(line) for line in lines}) == 1


def test_halves_of_characters_are_escaped():
    assert encodings.for_encoding("a\udcff", "utf-8") == "a\\udcff"
