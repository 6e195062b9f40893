"""Standard streams that never fail a command, even if closed, broken or of a small encoding."""

import io
import os
import sys


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
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It is closed. The next file to be opened would take its number, and its output.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


def lost() -> OSError | None:
    """Returns the error that standard output was lost by, or None."""
    sys.stdout.flush()
    return getattr(sys.stdout, "error", None)


def _guarded(stream):
    """Returns a stream in the place of a standard stream, which is None if it is closed."""
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, as it stays open
    if isinstance(stream, Stream) or not hasattr(stream, "buffer"):  # pytest's has none
        return stream
    guarded = Stream(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",  # for a character that the encoding lacks
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    guarded.replaced = stream  # it would close the buffer when it is garbage collected
    return guarded
