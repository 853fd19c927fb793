"""Who may change what others see of a store: only processes of the run that holds its lock now.

A worker may stand still, as with a network disk that hangs, while its run is killed and another run begins. When it
goes on it must touch nothing: it compares the lock with what that was when its work began. A new run waits for whoever
is between that look and the end of the change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.storage import exclusive
from pipeline.store import layout

PATIENCE = 10.0  # seconds that a new run waits; what is waited for takes milliseconds


def holder(store: Path) -> str:
    """What the store's lock says: another text for each run."""
    return (storage.read_if_there(layout.lock_path(store), storage.LARGEST_RECORD) or b"").decode(errors="replace")


@contextlib.contextmanager
def inside(store: Path, run: str) -> Iterator[None]:
    """For changes that others see. run: what `holder` said when the work began; "" where this process holds the lock.

    Raises OSError, and nothing is changed, where another run has the lock since.
    """
    with _shared(store) if run and storage.is_local(store) else contextlib.nullcontext():
        if run and holder(store) != run:
            raise PermissionError(errno.EPERM, "another run has taken the store over since this work began", str(store))
        yield


@contextlib.contextmanager
def _shared(store: Path) -> Iterator[None]:
    with open(layout.fence_path(store), "ab", opener=storage.regular) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def closed(store: Path) -> Iterator[None]:
    """Of a local store: nobody is inside. Raises Refusal where a process of an earlier run stays there."""
    with open(layout.fence_path(store), "ab", opener=storage.regular) as file:
        patience = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > patience:
                    raise Refusal(
                        "a process of an earlier run stands still in the middle of storing a video",
                        where=str(layout.fence_path(store)),
                        remedy=f"wait until its disk answers again, or end it: {_ending(layout.fence_path(store))}",
                    ) from error
                time.sleep(0.05)
        yield


def _ending(path: Path) -> str:
    """How who is inside is ended."""
    processes = exclusive.holders(path)
    return f"`kill -KILL {' '.join(processes)}`" if processes else "it runs on another machine"
