"""Arithmetic of integers."""


def ceil_div(dividend, divisor):
    """Returns the quotient rounded up, of integers or of arrays of integers.

    Examples:
      >>> ceil_div(7, 3), ceil_div(6, 3)
      (3, 2)
    """
    return -(-dividend // divisor)
