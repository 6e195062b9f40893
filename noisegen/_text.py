"""Words for numbers in messages."""


def count(number: int, what: str) -> str:
    """Returns a number of things in words.

    Examples:
      >>> count(1, "run"), count(2000, "run")
      ('1 run', '2,000 runs')
    """
    return f"{number:,} {what if number == 1 else plural(what)}"


def plural(what: str) -> str:
    """Returns the plural of a word. A single "s" at its end is taken for one, as in num_epochs.

    Examples:
      >>> plural("batch size"), plural("loss"), plural("num epochs")
      ('batch sizes', 'losses', 'num epochs')
    """
    if what.endswith("ss"):
        return f"{what}es"
    return what if what.endswith("s") else f"{what}s"
