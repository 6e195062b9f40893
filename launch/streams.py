"""Standard streams to which printing cannot fail: closed, broken or of few letters."""

import codecs
import io
import os
import sys

from launch import encoding

_ERRORS = "launch.streams"


class Stream(io.TextIOWrapper):
    """A stream that leads nowhere once it could not be written to.

    Attributes:
      error: Why it could not, or None.
    """

    error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._lead_nowhere(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lead_nowhere(error)

    def _lead_nowhere(self, error):
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # for what is still buffered, too
        os.close(nowhere)


def guard() -> bool:
    """Has standard output and error be such streams, and no file take the place of a closed one.

    Returns:
      True if standard input was open.
    """
    codecs.register_error(_ERRORS, _replace)
    had_input = sys.stdin is not None
    for number in range(3):
        if not _is_open(number):  # else the next file that is opened has this number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)
    return had_input


def lost() -> OSError | None:
    """Returns why standard output could not be written to, or None if it could."""
    sys.stdout.flush()
    return getattr(sys.stdout, "error", None)


def _guarded(stream):
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, as it stays open
    if isinstance(stream, Stream) or not hasattr(stream, "buffer"):
        return stream
    guarded = Stream(
        stream.buffer,
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    guarded.within = stream  # which would close the buffer if it were collected
    return guarded


def _is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _replace(error):
    """Replaces a letter that a stream's encoding lacks; an undecodable byte is itself again."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if 0xDC80 <= ord(letter) <= 0xDCFF:
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return encoding.to_ascii(letter), error.start + 1
