"""How Ctrl-C and SIGTERM end a run: the first lets the videos that are running finish, the second stops at once."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Self, TypeVar

from distributed import Worker, WorkerPlugin, get_worker

from pipeline.errors import Interrupted
from pipeline.extraction import job
from pipeline.video.watchdog import READS, WRITES, longest_wait

SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNDER_WAY = "under_way"  # of a worker's metrics: `job.under_way`
Result = TypeVar("Result")


class Stopping:
    """Takes the two signals while it is entered; outside the main thread, and where a signal is ignored, it takes none.

    A signal raises Interrupted where it comes, except inside `deferred`: there it is put into `events` (its number),
    for the run to act on between two videos. `signals` are those that have come.
    """

    def __init__(self) -> None:
        # A SimpleQueue alone may be filled by a signal's handler while the same thread waits for it.
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.signals: list[int] = []
        self._raises = True
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A shell lets what it starts in the background ignore Ctrl-C, and nohup means it; that is kept.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number: int, _: FrameType | None) -> None:
        self.signals.append(number)
        if not self._raises:
            self.events.put(number)
        elif len(self.signals) == 1:  # what unwinds is not disturbed by more
            raise Interrupted(number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals do not raise in here, except inside `at_once`."""
        self._raises = False
        try:
            yield
        finally:
            self._raises = True

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside `deferred`, for a wait that may be long: a signal raises Interrupted, also one that came before."""
        self._raises = True
        try:
            if self.signals:
                raise Interrupted(self.signals[-1])
            yield
        finally:
            self._raises = False


# What follows is for worker processes.

_lock = threading.Lock()
_stopped: set[str] = set()
_running: dict[str, set[str]] = {}  # run -> video ids


def run_name(store: Path) -> str:
    """A new name for a run into that store."""
    return f"{uuid.uuid4().hex}@{store}"


def unless_stopped(run: str, video_id: str, work: Callable[..., Result], *arguments: Any) -> Result | None:
    """Call `work` as a part of that run, or give None where the run takes no more. The worker's heartbeats tell how
    long it waits, and how far its videos are."""
    with contextlib.suppress(ValueError):  # in no worker
        for kind in (READS, WRITES):
            get_worker().metrics[kind] = functools.partial(_longest_wait, kind)
        get_worker().metrics[UNDER_WAY] = _under_way
    with _lock:
        if run in _stopped:
            return None
        _running.setdefault(run, set()).add(video_id)
    try:
        return work(*arguments)
    finally:
        with _lock:
            _running[run].discard(video_id)


def _longest_wait(kind: str, _: Worker) -> float:
    return longest_wait(kind)


def _under_way(_: Worker) -> dict[str, tuple[int, int]]:
    return job.under_way.copy()


class TakeNoMore(WorkerPlugin):
    """From when a worker has it, `unless_stopped` begins nothing of that run."""

    def __init__(self, run: str) -> None:
        self.run = run

    def setup(self, worker: Worker) -> None:
        with _lock:
            _stopped.add(self.run)


def running_of(run: str) -> int:
    """How many videos of the run are running here."""
    with _lock:
        return len(_running.get(run, ()))


def left_running(store: str) -> list[str]:
    """Videos of any run into that store that are running here."""
    with _lock:
        return sorted(name for run, names in _running.items() for name in names if run.endswith(f"@{store}"))
