"""Text of errors for messages of one line."""


def one_line(error: Exception) -> str:
    """Returns kind and message of an error in one line, a long one without its middle.

    Examples:
      >>> one_line(ValueError("no such\\nword"))
      'ValueError: no such word'
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if len(text) < 400:
        return text
    return f"{text[:200]} ... {text[-200:]}"
