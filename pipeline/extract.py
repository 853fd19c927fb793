"""Extraction on Dask: plan what is missing, one task per video, collect outcomes, quarantine, resume."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Workers that end with the run log lost connections as errors; read when distributed is imported, here and in them.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")

import dask
from distributed import Client, Future, LocalCluster, Worker, WorkerPlugin, as_completed

from pipeline import catalogue, job
from pipeline.errors import Refusal
from pipeline.job import Outcome
from pipeline.manifest import Manifest, Video
from pipeline.progress import ExtractionBar, preparing
from pipeline.settings import ExtractionSettings
from pipeline.store import VideoStore
from pipeline.writer import VideoWriter, add_classes, add_groups, create_store, writing_to

IN_FLIGHT_PER_WORKER = 3  # futures handed out ahead, so that a worker never waits for the scheduler
CANCEL_SECONDS = 10.0  # that a run which stops early waits for its cancelled videos
DASK_SETTINGS = {
    # A video that was with a worker when it died is not tried again among others: see `_run`.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # Tasks return next to nothing, so there is nothing to spill, and a worker that pauses for memory may pause for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.comm.timeouts.connect": "60s",
}


@dataclass
class Summary:
    """What a run did. `seconds` sums the workers' time by kind of work; `wall` is the run's own."""

    stored: int = 0
    skipped: int = 0
    frames: int = 0
    partial: dict[str, str] = field(default_factory=dict)  # of the stored ones: video id -> why its end is missing
    quarantined: dict[str, str] = field(default_factory=dict)
    in_quarantine: int = 0  # refused by earlier runs and left alone by this one
    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0

    def count(self, outcome: Outcome) -> None:
        if outcome.status == "stored":
            self.stored += 1
            self.frames += outcome.frames
            if outcome.reason:
                self.partial[outcome.video_id] = outcome.reason
            for kind, spent in outcome.seconds.items():
                self.seconds[kind] = self.seconds.get(kind, 0.0) + spent
        else:
            self.quarantined[outcome.video_id] = outcome.reason


def extract(
    manifest: Manifest,
    root: Path,
    store: Path,
    settings: ExtractionSettings,
    workers: int,
    retry_quarantined: bool = False,
    time_limit: float = 0.0,
) -> Summary:
    """Bring every video of the manifest into the store; do only what is missing; safe to repeat after any interruption.

    root: folder that the manifest's paths are relative to. A broken video lands in quarantine and the run goes on.
    time_limit: seconds to wait for a frame of a video, see `job.extract_video`.
    Raises Refusal when nothing can be done (no such folder, other settings or splits) or nothing more (disk full).
    """
    if not manifest.rows:
        raise Refusal(
            "the manifest lists no video", where=str(root), remedy="give a manifest with a row for each video"
        )
    if not root.is_dir():
        raise Refusal(
            "there is no such folder of videos", where=str(root), remedy="give the manifest's root as VIDEOS="
        )
    settings = settings.resolved()
    began = time.perf_counter()
    opened = create_store(store, settings)
    with only_writer(store):
        refuse_other_facts(manifest, opened)
        todo, summary = plan(manifest, opened, retry_quarantined)
        with writing_to(store):
            add_classes(store, manifest.classes)
            add_groups(store, todo)
        if todo:
            with preparing():
                for view in settings.create_views():
                    view.prepare()
            with (
                ExtractionBar(len(todo), len(summary.quarantined)) as bar,
                _cluster(min(workers, len(todo))) as client,
                contextlib.closing(_run(client, list(todo.values()), root, store, settings, time_limit)) as outcomes,
            ):
                for outcome in outcomes:
                    if outcome.status == "failed":
                        raise cannot_go_on(outcome, store)
                    summary.count(outcome)
                    with writing_to(store):
                        journal(store, outcome)
                    bar.advance(outcome)
                    todo.pop(outcome.video_id)
            if todo:  # never end well with work undone
                raise RuntimeError(f"{len(todo)} videos were not processed, the first is {next(iter(todo))!r}")
        with writing_to(store):
            catalogue.save(store)
    summary.wall = time.perf_counter() - began
    return summary


def refuse_other_facts(manifest: Manifest, store: VideoStore) -> None:
    """Raises Refusal where stored videos have another label, source or split: skipping them would keep the old ones."""
    other = []
    for row in manifest.rows:
        info = store.infos.get(row.video_id)
        wanted = (row.label, row.source or row.video_id, row.split)
        if info and (info.label, info.source, info.split) != wanted:
            other.append(f"{row.video_id}: stored {info.label, info.source, info.split}, the manifest has {wanted}")
    if other:
        raise Refusal(
            f"{len(other)} stored videos have another label, source or split than the manifest, the first is {other[0]}",
            where=str(store.root),
            remedy="a store holds one split of a data set: extract into another one, or give the manifest of this one",
        )


def plan(manifest: Manifest, store: VideoStore, retry_quarantined: bool) -> tuple[dict[str, Video], Summary]:
    """What is missing, by video id."""
    done, refused = set(store.videos), set() if retry_quarantined else set(store.quarantine)
    todo = {row.video_id: row for row in manifest.rows if row.video_id not in done and row.video_id not in refused}
    summary = Summary(
        skipped=sum(row.video_id in done for row in manifest.rows),
        in_quarantine=sum(row.video_id in refused for row in manifest.rows),
    )
    return todo, summary


def _run(
    client: Client, todo: list[Video], root: Path, store: Path, settings: ExtractionSettings, time_limit: float
) -> Generator[Outcome]:
    """Outcomes as they come, the largest files first: a long video that starts last would keep one worker busy alone.

    Dask cannot tell which of the videos that a dying worker held had killed it. All of them are done again when the
    others are through, each alone, so that only one that kills its worker once more is blamed and quarantined.
    """
    ordered = iter(sorted(todo, key=lambda row: (-_size(root / row.path), row.video_id)))
    videos: dict[Future, Video] = {}
    arguments = settings.as_dict()

    def start(row: Video) -> Future:
        return client.submit(job.extract_video, str(root), str(store), row, arguments, time_limit, pure=False)

    def submit(count: int) -> list[Future]:
        futures = []
        for row in itertools.islice(ordered, count):
            future = start(row)
            videos[future] = row
            futures.append(future)
        return futures

    ahead = IN_FLIGHT_PER_WORKER * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    suspects = []
    running = as_completed(with_results=True, raise_errors=False)
    try:
        running.update(submit(ahead))  # in here, as Ctrl-C may come at once
        for future, result in running:
            row = videos.pop(future)
            if isinstance(result, Outcome):
                yield result
            else:
                suspects.append(row)
            for following in submit(1):
                running.add(following)
    finally:
        # A run that stops early waits a little for what is on its way: Dask would print an error for each connection cut off.
        client.cancel(list(videos))
        patience = time.monotonic() + CANCEL_SECONDS
        while not running.is_empty() and time.monotonic() < patience:
            if not running.next_batch(block=False):
                time.sleep(0.02)
    for row in suspects:
        future = start(row)
        error = future.exception()
        yield _blame(store, root, row, error) if error else future.result()


def _blame(store: Path, root: Path, video: Video, error: BaseException) -> Outcome:
    reason = f"the worker process died, twice, while it worked on this video ({type(error).__name__})"
    with writing_to(store):
        VideoWriter(store, video.video_id).discard()
        if given_up := job.given_up(store, video):
            return given_up
        job.quarantine(store, root, video, reason, "worker", str(error))
    return Outcome(video.video_id, "quarantined", reason, "worker")


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    """One single-threaded process per worker: OpenCV and FFmpeg get one core each, and a crash costs one video."""
    with (
        dask.config.set(DASK_SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port, and for this machine's eyes only
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_LeaveInterruptsToTheRun())
        yield client


class _LeaveInterruptsToTheRun(WorkerPlugin):
    """Ctrl-C reaches every process of the terminal; the run alone acts on it, and ends its workers."""

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


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


def journal(store: Path, outcome: Outcome) -> None:
    """One line per video: the timings, which do not belong into records that are to be equal from run to run."""
    line = {"time": round(time.time(), 3), **vars(outcome)}
    with open(store / "journal.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the worker will say what is wrong with it


def cannot_go_on(outcome: Outcome, store: Path) -> Refusal:
    """The refusal that ends a run in which a video could not be written."""
    return Refusal(
        f"the run stopped at video {outcome.video_id!r}: {outcome.reason}",
        where=str(store),
        remedy="make room (or mend the disk) and run the same command again; what is committed stays and is not redone",
    )
