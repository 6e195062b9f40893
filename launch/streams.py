"""Standard streams that never fail a command, even if closed, broken or of a small encoding."""

import codecs
import io
import os
import sys

from noisegen.sweeps import encoding

_ERRORS = "noisegen.launch.streams"  # name of our handler of encoding errors


class Stream(io.TextIOWrapper):
    """A stream that discards its output after the first failed write.

    Attributes:
      error: The error of that write, or None.
    """

    error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error):
        self.error = self.error or error
        # Python flushes its buffer once more at exit, which must not fail either.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def guard() -> None:
    """Replaces standard output and error by streams to which writing cannot fail."""
    codecs.register_error(_ERRORS, _replace)
    for number in range(3):
        # The next file to be opened would take the number of a closed stream, and its output.
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


def lost() -> OSError | None:
    """Returns the error that standard output was lost by, or None."""
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
    guarded.replaced = stream  # it would close the buffer when it is garbage collected
    return guarded


def _is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _replace(error):
    """Replaces a character that the encoding lacks. An undecodable byte becomes itself again."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return encoding.to_ascii(character), error.start + 1
