"""A file that one process at a time holds; the kernel lets go of it when that process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.errors import Refusal
from pipeline.storage.disk import open_own

NOTHING_ELSE: AbstractContextManager[None] = contextlib.nullcontext()


@contextlib.contextmanager
def held(
    path: Path,
    taken: Callable[[str], Refusal],
    name: str = "",
    taking: AbstractContextManager[None] = NOTHING_ELSE,
) -> Iterator[None]:
    """Hold the file, which is made where there is none. Raises what `taken` makes of the holder's name, and OSError.

    name: what the file says of the holder; by default `this_process`. taking: entered while it is written.
    """
    with open(path, "a+", opener=open_own) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise taken(file.read().partition("\n")[0] or "unknown process") from error
        with taking:
            file.truncate(0)
            file.write(name or this_process())
            file.flush()
        yield


@contextlib.contextmanager
def in_turn(path: Path, waiting: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Hold the file, which is made where there is none, for a moment, as soon as nobody else does. Raises OSError.

    waiting: makes what is entered while somebody else does.
    """
    with open(path, "a", opener=open_own) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with waiting():
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def this_process() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"


def holders(path: Path) -> list[str]:
    """Ids of the processes of this machine that hold the file, alone or together."""
    facts = path.stat()
    file = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks") as listed:
        locks = [line.split() for line in listed]  # proc_locks(5)
        return [lock[4] for lock in locks if lock[1] == "FLOCK" and lock[5] == file]
    return []
