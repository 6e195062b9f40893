"""Words for numbers in messages."""


def count(number: int, what: str) -> str:
    """Returns a number of things in words.

    Examples:
      >>> count(1, "run"), count(2000, "run")
      ('1 run', '2,000 runs')
    """
    return f"{number:,} {what}" + "s" * (number != 1)
