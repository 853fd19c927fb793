"""A watchdog for calls that may never return, such as a decoder on a broken file."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

LOOKS = 10  # in one time limit
QUIET = 10.0  # seconds that a call takes until that is told
READS, WRITES = "reads", "writes"  # kinds of calls: for what is read, and for a store to take what is written
_guards: set[_Guard] = set()  # of this process


@contextlib.contextmanager
def watching(
    seconds: float, act: Callable[[], object], kind: str = READS, tell: Callable[[], object] | None = None
) -> Iterator[AbstractContextManager[None]]:
    """A guard for calls, `with guard: call()`: `act` is called once, in another thread, when a call takes longer.

    It is up to a tenth of `seconds` late; 0 seconds never act. tell: called once, after QUIET seconds. A call in a
    library must release the interpreter's lock for them to be reached; FFmpeg's do. A guarded call may make others: the
    outermost counts. Who looks from outside is told by `longest_wait`, by kind.
    """
    guard = _Guard(kind)
    _guards.add(guard)
    ended = threading.Event()
    watched = bool(seconds or tell)

    def look() -> None:
        told = tell is None
        while not ended.wait(min(seconds or math.inf, QUIET if tell else math.inf) / LOOKS):
            waits = guard.waits()
            if tell and not told and waits > QUIET:
                told = True
                tell()
            if seconds and waits > seconds:
                act()
                return

    thread = threading.Thread(target=look, daemon=True)
    if watched:
        thread.start()
    try:
        yield guard
    finally:
        _guards.discard(guard)
        ended.set()
        if watched:
            thread.join()


def longest_wait(kind: str = READS) -> float:
    """Seconds that a guarded call of this process has taken so far; 0 where there is none."""
    return max((guard.waits() for guard in _guards.copy() if guard.kind == kind), default=0.0)


class _Guard(AbstractContextManager[None]):
    def __init__(self, kind: str) -> None:
        self.kind, self.began, self.depth = kind, math.inf, 0

    def waits(self) -> float:
        return max(0.0, time.monotonic() - self.began)

    def __enter__(self) -> None:
        self.depth += 1
        if self.depth == 1:
            self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.began = math.inf
