"""One writer per store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import layout
from pipeline.store.writing import writing_to

BEAT = 30.0  # seconds between two signs of life of the writer of a remote store
SILENCE = 5 * BEAT  # after which it is taken for dead
SETTLING = 3.0  # in which several that take its lock over at once have all written


@contextlib.contextmanager
def only_writer(store: Path) -> Iterator[None]:
    """Hold the store's lock. Raises Refusal, naming the holder, where another process has it.

    Of a local store the kernel drops it when this process ends, however it ends. Of a remote store it is an object with
    signs of life: that of a process of this host which is gone, or of one that has been silent for long, is taken over.
    """
    with _local_lock(store) if storage.is_local(store) else _remote_lock(store):
        yield


@contextlib.contextmanager
def _local_lock(store: Path) -> Iterator[None]:
    with writing_to(store):
        file = open(layout.lock_path(store), "a+")  # noqa: SIM115  (closed below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise _held(store, file.read().strip() or "unknown process") from error
        with writing_to(store):
            file.truncate(0)
            file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


@contextlib.contextmanager
def _remote_lock(store: Path) -> Iterator[None]:
    path = layout.lock_path(store)
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "token": uuid.uuid4().hex}
    with writing_to(store):
        _take(store, path, mine)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):  # it may come back; a lock that is lost for long shows below
                if _holder(path) == mine:
                    storage.write(path, json.dumps(mine).encode())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with writing_to(store):
            if _holder(path) != mine:
                raise Refusal(
                    "another run took this store for abandoned and wrote to it at the same time",
                    where=str(store),
                    remedy="run the same command again when both have ended, then `make verify`",
                )
            storage.remove(path)


def _take(store: Path, path: Path, mine: dict[str, Any]) -> None:
    while not storage.create_exclusively(path, json.dumps(mine).encode()):
        holder = _holder(path)
        if holder is None:
            continue
        if _is_stale(path, holder):
            # Of several that take it over at once the last to write has it, and the others see so in time.
            storage.write(path, json.dumps(mine).encode())
            time.sleep(SETTLING)
            holder = _holder(path)
        if holder != mine:
            raise _held(store, f"pid {holder['pid']} on {holder['host']}" if holder else "unknown process")
        return


def _holder(path: Path) -> dict[str, Any] | None:
    content = storage.read_if_there(path)
    return json.loads(content) if content else None


def _is_stale(path: Path, holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname() and not _lives(holder["pid"]):
        return True
    with contextlib.suppress(FileNotFoundError):
        return time.time() - storage.changed(path) / 1e9 > SILENCE
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


def _held(store: Path, holder: str) -> Refusal:
    return Refusal(
        f"another extraction is writing to this store ({holder})",
        where=str(store),
        remedy="wait for it, or stop it; two writers in one store would lose data",
    )
