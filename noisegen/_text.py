"""Words for numbers in messages."""


def count(number: int, what: str) -> str:
    """Returns a number of things in words.

    Examples:
      >>> count(1, "run"), count(2000, "run")
      ('1 run', '2,000 runs')
    """
    return f"{number:,} {what if number == 1 else plural(what)}"


def plural(what: str) -> str:
    """Returns the plural of a word. A single "s" at its end is taken for one, as in "epochs".

    Examples:
      >>> plural("batch size"), plural("loss"), plural("number of epochs")
      ('batch sizes', 'losses', 'numbers of epochs')
    """
    first, of, rest = what.partition(" of ")
    if of:
        return f"{plural(first)}{of}{rest}"
    if what.endswith("ss"):
        return f"{what}es"
    return what if what.endswith("s") else f"{what}s"
