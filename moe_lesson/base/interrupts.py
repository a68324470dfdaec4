"""Ctrl-C, and Jupyter's stop button, between two steps of some work and not within one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C: yields a function that tells whether it came, to ask between two steps.

    An interrupt in the middle of an optimizer step would leave some weights new and some old.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread is interrupted
        yield lambda: False
        return
    came = []
    previous = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, previous)
