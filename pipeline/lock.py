"""One writer per store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import Refusal
from pipeline.writer import writing_to


@contextlib.contextmanager
def only_writer(store: Path) -> Iterator[None]:
    """Hold the store's lock; the kernel drops it when this process ends, however it ends."""
    with writing_to(store):
        file = open(store / ".lock", "a+")  # noqa: SIM115  (closed below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Refusal(
                f"another extraction is writing to this store ({file.read().strip() or 'unknown process'})",
                where=str(store),
                remedy="wait for it, or stop it; two writers in one store would lose data",
            ) from error
        with writing_to(store):
            file.truncate(0)
            file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
