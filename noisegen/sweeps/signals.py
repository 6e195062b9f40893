"""Signals with which people, Slurm and the operating system stop a process."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # Slurm sends the last one


@contextlib.contextmanager
def on_stop(stop: Callable[[int], None]) -> Iterator[None]:
    """Calls `stop` with the number of each signal that asks this process to stop.

    Outside of the main thread, where Python handles no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: stop(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int) -> None:
    """Raises KeyboardInterrupt, as Ctrl-C does; for `on_stop`."""
    raise KeyboardInterrupt
