r"""Ways to write a table: plain text, Markdown, LaTeX and HTML.

Series labels, words and names are the user's own and may hold any characters. Each markup escapes
them, so that they appear as they are and never act as instructions.

>>> print(MARKDOWN.escape("a|b_c"), LATEX.escape("50%_α"), HTML.escape("<b>"))
a\|b\_c 50\%\_$\alpha$ &lt;b&gt;
>>> TEXT.power(-3), MARKDOWN.power(-3), LATEX.power(-3), UNICODE.power(-3)
('2^-3', '2<sup>-3</sup>', '$2^{-3}$', '2⁻³')
"""

import dataclasses
import re
import unicodedata
from collections.abc import Callable

import markupsafe


@dataclasses.dataclass(frozen=True)
class Language:
    """Writes the texts and the numbers of a table in one markup language.

    Attributes:
      escape: Makes a text appear as it is.
      power: Writes two to the power of an integer.
      mark: Writes the marks that point to the notes under a table, such as "a,b".
    """

    escape: Callable[[str], str]
    power: Callable[[int], str]
    mark: Callable[[str], str]


# Text


def visible(text: str) -> str:
    r"""Returns a label, a word or a name in one visible line; different ones stay different.

    Nearly all are returned as they are. A text is quoted, with Python's escapes, if it is blank or
    holds control characters, invisible ones, or spaces that a reader would merge.

    >>> visible("[noise] $x$"), visible(""), visible("a\nb")
    ('[noise] $x$', "''", "'a\\nb'")
    """
    # A text in quotes of its own is quoted once more, or it would look like one quoted here.
    in_quotes = text[:1] in ("'", '"') and text[-1:] == text[:1]
    is_plain = text and text.isprintable() and text == " ".join(text.split()) and not in_quotes
    return text if is_plain else re.sub("(?<= ) ", r"\\x20", repr(text))


def printable(text: str) -> str:
    """Returns prose or a command, with its lines; escapes characters that UTF-8 or HTML lack."""
    text = text.replace("\r\n", "\n")
    unprintable = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
    return re.sub(unprintable, lambda match: match[0].encode("unicode_escape").decode(), text)


def width(text: str) -> int:
    """Returns the columns of a terminal that a line takes: two for wide characters."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character):
    """Returns the columns of one character; marks that join the one before take none."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _bracket(marks):
    return f"[{marks}]"


TEXT = Language(escape=str, power="2^{}".format, mark=_bracket)


# Text with raised digits, for figures

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _unicode_power(exponent):
    return "2" + str(exponent).translate(_SUPERSCRIPTS)


UNICODE = Language(escape=str, power=_unicode_power, mark=_bracket)


# CSV


def spreadsheet_text(text: str) -> str:
    """Returns a text cell of a CSV file that a spreadsheet shows and never computes.

    A ' precedes a text that a spreadsheet would take for a formula, as OWASP advises. A text that
    is a number needs none.

    >>> spreadsheet_text("=1+1"), spreadsheet_text("-0.5"), spreadsheet_text("noise")
    ("'=1+1", '-0.5', 'noise')
    """
    try:
        float(text)
    except ValueError:
        return f"'{text}" if re.match(r"'*[=+\-@\t\r\n＝＋－＠]", text) else text
    return text


# HTML


def _html_escape(text):
    return str(markupsafe.escape(text))


def _html_power(exponent):
    return f"2<sup>{exponent}</sup>".replace("-", "−")


def _html_mark(marks):
    return f"<small>[{marks}]</small>"


HTML = Language(escape=_html_escape, power=_html_power, mark=_html_mark)


# Markdown


def _markdown_escape(text):
    """Escapes a line for GitHub's Markdown, within a table or without."""
    text = re.sub(r"([\\`*_|<>\[\]~&$])", r"\\\1", text)
    return re.sub(r":(?=[\w+\\-]+:)", "<span>:</span>", text)  # else :tada: would be an emoji


MARKDOWN = Language(
    escape=_markdown_escape,
    power="2<sup>{}</sup>".format,
    mark=lambda marks: _markdown_escape(_bracket(marks)),
)


# LaTeX

_LATEX = {
    **{character: f"\\{character}" for character in "{}$&%#_"},
    **{character: f"{character}{{}}" for character in "-',"},  # two of them would be one sign
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{'"': r"\symbol{34}", "`": r"\textasciigrave{}"},
    **{"–": "--", "—": "---", "…": r"\ldots{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$"},
    **{"·": r"$\cdot$", "°": r"$^\circ$", "≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\ne$"},
    **{"≈": r"$\approx$", "∞": r"$\infty$", "→": r"$\to$", "∂": r"$\partial$", "∇": r"$\nabla$"},
}
_GREEK = (
    "α alpha β beta γ gamma δ delta ε varepsilon ϵ epsilon ζ zeta η eta θ theta ϑ vartheta ι iota"
    " κ kappa λ lambda μ mu µ mu ν nu ξ xi π pi ρ rho σ sigma ς varsigma τ tau υ upsilon φ varphi"
    " ϕ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ Upsilon Φ Phi"
    " Ψ Psi Ω Omega"
)
_LATEX |= {letter: f"$\\{name}$" for letter, name in re.findall(r"(\S) (\w+)", _GREEK)}
_LATIN = zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True)  # LaTeX has no names for these
_LATEX |= {letter: f"$\\mathrm{{{latin}}}$" for letter, latin in _LATIN}


def _latex_escape(text):
    r"""Escapes a line for LaTeX; sets Greek letters and frequent signs as mathematics.

    Leaves other scripts as they are. They need XeLaTeX or LuaLaTeX, and a font that has them.
    """
    special = r"""[\\{}$&%#_~^<>|"`]|([-',])(?=\1)|[^\x00-\x7f]"""
    escaped = re.sub(special, lambda match: _latex_character(match[0]), text)
    # The end of a row, \\, would take a bracket or a star that follows for its own argument.
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped


def _latex_character(character):
    """Sets a special character of LaTeX, or one beyond ASCII; raised ones as Unicode has them."""
    kind, _, code = unicodedata.decomposition(character).partition(" ")
    if kind in ("<super>", "<sub>") and " " not in code:
        base = chr(int(code, 16)).replace("−", "-")
        sign = "^" if kind == "<super>" else "_"
        return f"${sign}{{{base}}}$"
    return _LATEX.get(character, character)


LATEX = Language(escape=_latex_escape, power="$2^{{{}}}$".format, mark=_bracket)
