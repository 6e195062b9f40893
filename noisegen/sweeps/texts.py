r"""Texts of the user's as each medium shows them: as they are, never as its instructions.

>>> shown("[noise] $x$"), shown(""), shown("a\nb")
('[noise] $x$', "''", "'a\\nb'")
>>> print(markdown("a|b_c"), latex("50%_α"), cell("=1+1"))
a\|b\_c 50\%\_$\alpha$ '=1+1
>>> for_encoding("0.5 ± 0.1", "ascii")
'0.5 +- 0.1'
"""

import re
import unicodedata


class Words(str):
    """The text of a cell that is the user's own: a 2^3 in it is no power."""

    __slots__ = ()


def shown(text: str) -> str:
    """Returns a label, a word or a name in one visible line; different ones stay different.

    Nearly all are returned as they are. Those that are blank, or hold control characters, invisible
    ones, or spaces that a reader would merge, are returned in quotes, with Python's escapes.
    """
    quoted = text[:1] in ("'", '"') and text[-1:] == text[:1]  # as if it came from here
    plain = text and text.isprintable() and text == " ".join(text.split()) and not quoted
    return text if plain else re.sub("(?<= ) ", r"\\x20", repr(text))


def printable(text: str) -> str:
    """Returns prose or a command, with its lines; what UTF-8 or HTML cannot hold is escaped."""
    text = text.replace("\r\n", "\n")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda at: code(at[0]), text)


def for_encoding(text: str, encoding: str | None) -> str:
    """Returns text in the characters of an encoding, such as a terminal's.

    A sign that the encoding lacks turns into one of ASCII's (+- for ±), any other character into
    Python's escape. The spaces before it shrink by as much, so that columns stay aligned.

    Args:
      text: Any text.
      encoding: Its name; None stands for one that has every character.
    """
    if encoding is None or _has(encoding, text):
        return text

    def fit(found):
        spaces, words = found.groups()
        fitted = "".join(each if _has(encoding, each) else code(each) for each in words)
        more = len(fitted) - width(words)
        return spaces[: max(1, len(spaces) - more)] + fitted

    return re.sub(r"( *)([^ \n]+(?: [^ \n]+)*)", fit, text)


def width(text: str) -> int:
    """Returns the columns of a terminal that a line takes: two for wide characters."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cell(text: str) -> str:
    """Returns a text cell of a CSV file; a spreadsheet shows it, and takes it for no formula.

    A ' goes before what a spreadsheet would compute, as OWASP advises. Numbers need none.
    """
    try:
        float(text)
    except ValueError:
        return f"'{text}" if re.match(r"'*[=+\-@\t\r\n＝＋－＠]", text) else text
    return text


def markdown(text: str) -> str:
    """Returns a line for GitHub's Markdown, within a table or without."""
    text = re.sub(r"([\\`*_|<>\[\]~&$])", r"\\\1", text)
    return re.sub(r":(?=[\w+\\-]+:)", "<span>:</span>", text)  # else :tada: is an emoji


def latex(text: str) -> str:
    r"""Returns a line for LaTeX; Greek letters and frequent signs are set as mathematics.

    Other scripts are left as they are. They need XeLaTeX or LuaLaTeX, and a font that has them.
    """
    return re.sub(
        r"""[\\{}$&%#_~^<>|"`]|([-',])(?=\1)|[^\x00-\x7f]""", lambda at: _latex(at[0]), text
    )


def code(char: str) -> str:
    r"""Returns a character written in ASCII, as an escape if there is no usual way to write it.

    >>> code("±"), code("·"), code("α")
    ('+-', '*', '\\u03b1')
    """
    return _SIGNS.get(char) or char.encode("unicode_escape").decode()


_SIGNS = {  # in ASCII
    **dict.fromkeys("–—−", "-"),
    **{"±": "+-", "×": "x", "·": "*", "…": "...", "→": "->"},
}
_LATEX = {
    **{each: f"\\{each}" for each in "{}$&%#_"},
    **{each: f"{each}{{}}" for each in "-',"},  # two of them would be set as one sign
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


def _latex(char):
    """Sets a special character of LaTeX, or one beyond ASCII; raised ones as Unicode has them."""
    kind, _, code = unicodedata.decomposition(char).partition(" ")
    if kind in ("<super>", "<sub>") and " " not in code:
        base = chr(int(code, 16)).replace("−", "-")
        return f"${'^' if kind == '<super>' else '_'}{{{base}}}$"
    return _LATEX.get(char, char)


def _width(char):
    """Counts the columns of one character; marks that join the one before take none."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _has(encoding, text):
    """Returns whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
