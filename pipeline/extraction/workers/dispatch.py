"""Videos on their way through Dask's workers: handed out, collected, redone where a worker died, ended by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from distributed import Client, Future, KilledWorker

from pipeline.errors import Interrupted, Refusal
from pipeline.extraction import job
from pipeline.extraction.job import Outcome
from pipeline.extraction.progress import ExtractionBar
from pipeline.extraction.workers.admission import Requirements, requirements, when_fit
from pipeline.extraction.workers.cluster import address_of
from pipeline.extraction.workers.silence import Limits, Silence
from pipeline.extraction.workers.stopping import (
    UNDER_WAY,
    Stopping,
    TakeNoMore,
    run_name,
    running_of,
    unless_stopped,
)
from pipeline.manifest import Video
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import VideoWriter, writing_to

IN_FLIGHT_PER_THREAD = 3  # futures handed out ahead, so that none waits for the scheduler
LOOK_SECONDS = 2.0  # between two looks at how many workers there are, and how far
FRUITLESS = 4  # workers that may die with nothing stored, beside two for each of them
NEWS_SECONDS = 30.0  # without any until a look at whether there are workers at all
ENDING_SECONDS = 30.0  # that a worker may take to end before the scheduler does without it


@dataclass(frozen=True)
class Task:
    """What is to be done with each video. computed: of the settings, those of the views that a video may lack. adding:
    see `plan.Plan`. elsewhere: by workers that others started, who are to show that they can. run: see `fence.inside`.
    limits: of workers that stand still.
    """

    root: Path
    store: Path
    settings: ExtractionSettings
    computed: ExtractionSettings
    adding: Mapping[str, tuple[str, ...]]
    time_limit: float
    elsewhere: bool
    run: str
    limits: Limits = Limits()

    def submit(self, client: Client, run: str, video: Video) -> Future:
        """Has as its result the Outcome of the video, or None if the run was stopped before it began."""
        needs, settings, able = self._constant
        adding = video.video_id in self.adding
        arguments = (str(self.root), str(self.store), video, settings, self.time_limit, adding, self.run)
        work: tuple[Any, ...] = (unless_stopped, run, video.video_id, job.extract_video, *arguments)
        if self.elsewhere:
            work = (when_fit, needs, able, *work)
        return client.submit(*work, key=f"extract_video-{uuid.uuid4()}")  # by which the dashboard names it

    @functools.cached_property
    def _constant(self) -> tuple[Requirements, dict[str, Any], str]:
        able = json.dumps(self.computed.as_dict(running=True))
        return requirements(self.root, self.store), self.settings.as_dict(running=True), able

    def blame(self, video: Video, error: BaseException) -> Outcome:
        """Quarantine a video whose worker died twice."""
        reason = f"the worker process died, twice, while it worked on this video ({type(error).__name__})"
        with writing_to(self.store):
            VideoWriter(self.store, video.video_id, video.video_id in self.adding).discard()
            if given_up := job.given_up(self.store, video):
                return given_up
            job.quarantine(self.store, self.root, video, reason, "worker", str(error))
        return Outcome(video.video_id, "quarantined", reason, "worker")


def dispatch(
    client: Client, videos: Iterable[Video], task: Task, stop: Stopping, bar: ExtractionBar
) -> Generator[Outcome]:
    """Outcomes as they come, the videos begun in the order given; the bar is told how far those are that run.

    Dask cannot tell which of the videos that a dying worker held had killed it. Unless one of them said so (a file that
    hangs the decoder), all are done again when the others are through, each alone, so that only one that kills its
    worker once more is blamed and quarantined.

    The first signal of `stop` lets the running videos finish, and then this ends; the second raises Interrupted.
    Raises Refusal where the scheduler is lost, a worker that came later cannot do the work, or worker after worker died
    and no video was stored.
    """
    waiting = deque(videos)
    suspects: list[Video] = []
    deadly: list[tuple[Video, KilledWorker]] = []  # not blamed before it is seen that it is no fault of the workers
    flight = _Flight(client, task, stop, bar)
    deaths = _Deaths(address_of(client))

    def fill() -> None:
        while waiting and flight.has_room():
            flight.launch(waiting.popleft())

    def blamed() -> Iterator[Outcome]:
        while deadly:
            yield flight.blame(*deadly.pop())

    try:
        fill()
        for video, result in flight.landings():
            deaths.count(result, flight.workers)
            if isinstance(result, Outcome):
                yield result
            elif given_up := job.given_up(task.store, video):
                yield given_up
            else:
                suspects.append(video)
            fill()
        for video in suspects:
            if flight.has_room():
                flight.launch(video)
            for _, result in flight.landings():
                deaths.count(result, flight.workers)
                if isinstance(result, Outcome):
                    yield result
                else:
                    deadly.append((video, result))
            if deaths.stored or flight.writing:
                yield from blamed()
        yield from blamed()
    finally:
        flight.end()


class _Deaths:
    """Notices that it is not videos that kill the workers: all die, and nothing is stored."""

    def __init__(self, where: str) -> None:
        self.where, self.stored, self.died = where, False, set[str]()

    def count(self, result: Outcome | KilledWorker, workers: int) -> None:
        """Raises Refusal. workers: how many there are."""
        if isinstance(result, Outcome):
            self.stored |= result.status == "stored"
            return
        self.died.add(result.last_worker.address)  # the process that takes its place has another
        if not self.stored and len(self.died) > FRUITLESS + 2 * workers:
            raise Refusal(
                f"{len(self.died)} worker processes died one after the other, and no video was stored",
                where=self.where,
                remedy="see what the workers printed, and what `dmesg` says of memory; no video is blamed for it."
                " If it is the videos, leave them out of the manifest, and run the same command again",
            )


@dataclass(frozen=True)
class _Landed:
    """An event: a future is done. error: in place of a result."""

    key: str
    result: Outcome | None
    error: BaseException | None


@dataclass(frozen=True)
class _Told:
    """An event: the workers know that the run takes no more, and so many videos are running."""

    running: int


class _Flight:
    """The videos that were submitted and have not come back."""

    def __init__(self, client: Client, task: Task, stop: Stopping, bar: ExtractionBar) -> None:
        self.client, self.task, self.stop, self.bar, self.say = client, task, stop, bar, bar.say
        self.run = run_name(task.store)
        self.videos: dict[str, tuple[Future, Video]] = {}
        self.signals = 0  # acted on
        self.teller: threading.Thread | None = None
        self.threads, self.workers, self.looked = 0, 0, -LOOK_SECONDS
        self.silence, self.listened = Silence(task.limits, task.time_limit), time.monotonic()
        self.writing: dict[str, float] = {}  # address of a worker that was ended -> seconds that a write took

    def has_room(self) -> bool:
        """Whether another video may be launched: none after a signal."""
        if self.stop.signals:
            return False
        if time.monotonic() - self.looked >= LOOK_SECONDS:  # workers come and go
            threads = self.client.nthreads()
            self.threads, self.workers = sum(threads.values()), max(self.workers, len(threads))
            self.looked = time.monotonic()
        return len(self.videos) < IN_FLIGHT_PER_THREAD * max(1, self.threads)

    def launch(self, video: Video) -> None:
        future = self.task.submit(self.client, self.run, video)
        self.videos[str(future.key)] = (future, video)
        future.add_done_callback(self._landed)

    def _landed(self, future: Future) -> None:
        """In a thread of Dask's."""
        try:
            event = _Landed(str(future.key), future.result(), None)
        except BaseException as error:  # noqa: BLE001  (told by `landings`, in the run's own thread)
            event = _Landed(str(future.key), None, error)
        self.stop.events.put(event)

    def landings(self) -> Generator[tuple[Video, Outcome | KilledWorker]]:
        """Every video in flight as it comes back, those that are launched meanwhile too, except those not begun."""
        while self.videos:
            event = self._next_event()
            if isinstance(event, _Told):
                again = "press Ctrl-C" if self.stop.signals[-1] == signal.SIGINT else "send SIGTERM"
                self.say(f"finishing {event.running} running videos; {again} again to stop at once")
            elif isinstance(event, _Landed):
                _, video = self.videos.pop(event.key)
                if isinstance(event.error, KilledWorker):
                    yield video, event.error
                elif event.error is not None:
                    raise _cannot_work(event.error, address_of(self.client)) from event.error
                elif event.result is not None:
                    yield video, event.result
            else:
                self._act_on_signal(event)

    def blame(self, video: Video, error: KilledWorker) -> Outcome:
        """What becomes of a video whose worker died twice: it is quarantined. Where the worker was ended because the
        store took nothing, the run cannot go on instead."""
        seconds = self.writing.get(getattr(error.last_worker, "address", ""))
        if seconds is None:
            return self.task.blame(video, error)
        return Outcome(
            video.video_id, "failed", f"the store took nothing that was written for {seconds:.0f} s", "write"
        )

    def _next_event(self) -> _Landed | _Told | int:
        alone, look = time.monotonic() + NEWS_SECONDS, min(LOOK_SECONDS, self.task.limits.told / 2)
        while True:
            event = None
            with contextlib.suppress(Empty):
                event = self.stop.events.get(timeout=look)
            if time.monotonic() - self.listened >= look:
                self.listened = time.monotonic()
                workers = self.client.scheduler_info(n_workers=-1)["workers"]
                self.bar.see(self._under_way(workers))
                for found in self.silence.of(workers):
                    self.say(found.says)
                    if found.ends and found.writes > self.task.limits.told:
                        self.writing[found.address] = found.writes
                    if found.ends:  # in a thread, as it does not answer
                        threading.Thread(target=self._end_worker, args=(found.address,), daemon=True).start()
                if not workers and event is None and time.monotonic() > alone:
                    alone = math.inf
                    self.say(f"no worker is left at {address_of(self.client)}; waiting for new ones (Ctrl-C ends it)")
            if event is not None:
                return event

    def _under_way(self, workers: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
        """As `ExtractionBar.see` is told; what a worker last said may be of a video that has come back since."""
        flying = {video.video_id for _, video in self.videos.values()}
        said = [worker.get("metrics", {}).get(UNDER_WAY, {}) for worker in workers.values()]
        return {name: found for of_worker in said for name, found in of_worker.items() if name in flying}

    def _end_worker(self, address: str) -> None:
        async def end() -> None:
            # The scheduler's method: the client's own knows no workers without a nanny, which are to go too.
            await self.client.scheduler.restart_workers(  # type: ignore[union-attr]
                workers=[address],
                timeout=ENDING_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"silent-{uuid.uuid4()}",
            )

        with contextlib.suppress(OSError, RuntimeError, CancelledError, asyncio.CancelledError):
            self.client.sync(end)

    def _act_on_signal(self, number: int) -> None:
        self.signals += 1
        if self.signals > 1:
            raise Interrupted(number)
        # In a thread, as a worker that hangs does not answer, and then a second signal must still be heard.
        self.teller = threading.Thread(target=self._tell_workers, name="tell workers to stop", daemon=True)
        self.teller.start()

    def _tell_workers(self) -> None:
        # A scheduler that is lost is told by every future; and the second signal may have closed the client meanwhile.
        with contextlib.suppress(OSError, RuntimeError, CancelledError, asyncio.CancelledError):
            # As a plugin it also reaches a worker that is restarted meanwhile.
            self.client.register_plugin(TakeNoMore(self.run), name=self.run)
            running = self.client.run(running_of, self.run, on_error="ignore")
            self.stop.events.put(_Told(sum(running.values())))

    def end(self) -> None:
        """Leave nothing with the workers, except what is running: that cannot be taken from them."""
        if self.teller and not self.videos:
            self.teller.join()  # does not hang where every worker has answered
        self.client.cancel([future for future, _ in self.videos.values()])
        if self.signals and self.task.elsewhere:
            with contextlib.suppress(OSError, ValueError):  # the scheduler is lost, or has not been told
                self.client.unregister_worker_plugin(self.run)


def _cannot_work(error: BaseException, address: str) -> Refusal:
    if isinstance(error, Refusal):
        return Refusal(f"worker {error.where} {error.what}", where=address, remedy=error.remedy)
    if isinstance(error, CancelledError):
        return Refusal(
            "the Dask scheduler was lost",
            where=address,
            remedy="start it again, if it was yours, and run the same command again;"
            " what is committed stays and is not redone",
        )
    return Refusal(
        f"a worker cannot run extraction: {type(error).__name__}: {error}",
        where=address,
        remedy="give its machine this environment, and run the same command again",
    )
