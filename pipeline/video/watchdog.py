"""A watchdog for calls that may never return, such as a decoder on a broken file."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from pipeline.errors import UsageError

LOOKS = 10  # in one time limit
_guards: set[_Guard] = set()  # of this process


@contextlib.contextmanager
def watching(seconds: float, act: Callable[[], None]) -> Iterator[AbstractContextManager[None]]:
    """A guard for calls, `with guard: call()`: `act` is called once, in another thread, when a call takes longer.

    It is up to a tenth of `seconds` late; 0 seconds never act. A call in a library must release the interpreter's lock
    for `act` to be reached; FFmpeg's do. Who looks from outside is told by `longest_wait`.
    """
    guard = _Guard()
    _guards.add(guard)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(seconds / LOOKS):
            if guard.waits() > seconds:
                return act()

    thread = threading.Thread(target=look, daemon=True)
    if seconds:
        thread.start()
    try:
        yield guard
    finally:
        _guards.discard(guard)
        ended.set()
        if seconds:
            thread.join()


def checked_limit(seconds: float) -> float:
    """A time limit as people give it. Raises UsageError."""
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise UsageError(f"time_limit {seconds} is not a number of seconds", remedy="0 waits for ever")
    return seconds


def longest_wait() -> float:
    """Seconds that a guarded call of this process has taken so far; 0 where there is none."""
    return max((guard.waits() for guard in _guards.copy()), default=0.0)


class _Guard(AbstractContextManager[None]):
    def __init__(self) -> None:
        self.began = math.inf

    def waits(self) -> float:
        return max(0.0, time.monotonic() - self.began)

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.began = math.inf
