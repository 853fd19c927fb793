"""Time on whatever device there is, so that every check runs on a CPU too, in tiny."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median seconds; the first time does not count."""
    seconds = []
    for _ in range(rounds + 1):
        synchronise()
        began = time.perf_counter()
        work()
        synchronise()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def new_stream() -> AbstractContextManager[Any]:
    """Entered, what is launched goes on a stream of its own."""
    return torch.cuda.stream(torch.cuda.Stream()) if DEVICE == "cuda" else nullcontext()


@contextmanager
def busy(size: int) -> Iterator[list[float]]:
    """Matrix products of `size` on the device, from a thread of their own, while this is entered; how many there were
    and in which time stands in the list afterwards."""
    stop, done = threading.Event(), [0.0, 0.0]
    left = torch.randn(size, size, device=DEVICE)

    def multiply() -> None:
        began = time.perf_counter()
        while not stop.is_set():
            torch.mm(left, left)
            done[0] += 1
            if done[0] % 8 == 0:  # no endless queue
                synchronise()
        done[1] = time.perf_counter() - began

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def bandwidth(count: int) -> float:
    """TB/s of copies of so many floats on the device, reading and writing."""
    source = torch.ones(count, device=DEVICE)
    target = torch.empty_like(source)
    return 8 * count / timed(lambda: target.copy_(source), 3) / 1e12
