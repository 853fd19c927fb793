"""One writer per store."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.storage import exclusive
from pipeline.store import fence, layout
from pipeline.store.writing import writing_to

BEAT = 30.0  # seconds between two signs of life of the writer of a remote store
SILENCE = 5 * BEAT  # after which it is taken for dead
SETTLING = 3.0  # in which several that take its lock over at once have all written


@contextlib.contextmanager
def only_writer(store: Path) -> Iterator[None]:
    """Hold the store's lock. Raises Refusal, naming the holder, where another process has it.

    Of a local store the kernel drops it when this process ends, however it ends. Of a remote store it is an object with
    signs of life: one that has been silent for long is taken over.
    """
    with _local_lock(store) if storage.is_local(store) else _remote_lock(store):
        yield


@contextlib.contextmanager
def _local_lock(store: Path) -> Iterator[None]:
    def taken(holder: str) -> Refusal:
        return _held(store, holder, "wait for it, or stop it")

    with contextlib.ExitStack() as holding:
        with writing_to(store):
            holding.enter_context(exclusive.held(layout.lock_path(store), taken, _mine(), fence.closed(store)))
        yield


@contextlib.contextmanager
def _remote_lock(store: Path) -> Iterator[None]:
    path = layout.lock_path(store)
    mine = _mine().encode()
    with writing_to(store):
        _take(store, path, mine)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):  # it may come back; a lock that is lost for long shows below
                if storage.read_if_there(path, storage.LARGEST_RECORD) == mine:
                    storage.write(path, mine)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with writing_to(store):
            if storage.read_if_there(path, storage.LARGEST_RECORD) != mine:
                raise Refusal(
                    "another run took this store for abandoned and wrote to it at the same time",
                    where=str(store),
                    remedy=f"run the same command again when both have ended, then `{called.command('verify')}`",
                )
            storage.remove(path)


def _take(store: Path, path: Path, mine: bytes) -> None:
    while not storage.create_exclusively(path, mine):
        try:
            silent = (_now(path) - storage.changed(path)) / 1e9
        except FileNotFoundError:  # let go this moment
            continue
        if silent > SILENCE:
            # Of several that take it over at once the last to write has it, and the others see so in time.
            storage.write(path, mine)
            time.sleep(SETTLING)
        holder = storage.read_if_there(path, storage.LARGEST_RECORD)
        if holder == mine:
            return
        if holder is not None:
            remedy = f"wait for it, or stop it; if it was killed, try again in {SILENCE:.0f} s"
            raise _held(store, holder.decode(errors="replace"), remedy)


def _now(path: Path) -> int:
    """By the clock that tells when the lock at `path` was written: this machine's may be another. Raises OSError."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    storage.write(probe, b"")
    try:
        return storage.changed(probe)
    finally:
        storage.remove(probe)


def _mine() -> str:
    """No other run has the same."""
    return f"{exclusive.this_process()}\n{uuid.uuid4().hex}"


def _held(store: Path, holder: str, remedy: str) -> Refusal:
    process = holder.partition("\n")[0] or "unknown process"
    return Refusal(
        f"another extraction is writing to this store ({process})",
        where=str(store),
        remedy=f"{remedy}; two writers in one store would lose data",
    )
