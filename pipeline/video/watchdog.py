"""A watchdog for calls that may never return, such as a decoder on a broken file."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

LOOKS = 10  # in one time limit


@contextlib.contextmanager
def watching(seconds: float, act: Callable[[], None]) -> Iterator[AbstractContextManager[None]]:
    """A guard for calls, `with guard: call()`: `act` is called once, in another thread, when a call takes longer.

    It is up to a tenth of `seconds` late; 0 seconds never act. A call in a library must release the interpreter's lock
    for `act` to be reached; FFmpeg's do.
    """
    if not seconds:
        yield contextlib.nullcontext()
        return
    guard = _Guard(seconds)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(seconds / LOOKS):
            if time.monotonic() > guard.deadline:
                return act()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield guard
    finally:
        ended.set()
        thread.join()


class _Guard(AbstractContextManager[None]):
    def __init__(self, seconds: float) -> None:
        self.seconds, self.deadline = seconds, math.inf

    def __enter__(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    def __exit__(self, *_: object) -> None:
        self.deadline = math.inf
