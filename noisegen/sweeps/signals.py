"""Handles the signals with which users, Slurm and the operating system stop a process."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # Slurm sends SIGUSR2.


@contextlib.contextmanager
def on_stop(stop: Callable[[int], None]) -> Iterator[None]:
    """Calls `stop` at each signal that asks this process to stop, within this context.

    Does nothing outside of the main thread, since Python handles signals only there.

    Args:
      stop: A function of the signal's number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # The parent process wants it ignored, as nohup does.
            signal.signal(number, lambda number, _: stop(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int) -> None:
    """Raises KeyboardInterrupt, as Ctrl-C does, for use with `on_stop`."""
    raise KeyboardInterrupt
