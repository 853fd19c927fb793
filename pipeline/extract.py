"""Extraction on Dask: plan what is missing, one task per video, collect outcomes, quarantine, resume."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator
from pathlib import Path

from distributed import Client, Future, as_completed

from pipeline import catalogue, job
from pipeline.cluster import workers_for_extraction
from pipeline.errors import Refusal
from pipeline.gpus import gpu_workers
from pipeline.job import Outcome
from pipeline.journal import Summary, journal
from pipeline.manifest import Manifest, Video
from pipeline.opening import make_ready, opened_for_writing
from pipeline.plan import VideoFiles, plan
from pipeline.progress import ExtractionBar, preparing
from pipeline.settings import ExtractionSettings
from pipeline.writer import VideoWriter, writing_to

IN_FLIGHT_PER_THREAD = 3  # futures handed out ahead, so that a worker never waits for the scheduler
CANCEL_SECONDS = 10.0  # that a run which stops early waits for its cancelled videos


def extract(
    manifest: Manifest,
    root: Path,
    store: Path,
    settings: ExtractionSettings,
    workers: int,
    retry_quarantined: bool = False,
    time_limit: float = 0.0,
    overwrite: bool = False,
) -> Summary:
    """Bring every video of the manifest into the store; do only what is missing; safe to repeat after any interruption.

    root: folder that the manifest's paths are relative to. A broken video lands in quarantine and the run goes on.
    time_limit: seconds to wait for a frame of a video, see `job.extract_video`. overwrite: redo videos whose file, label,
    source or split has changed, and the whole store where it was made with other settings or other software; without it
    these are refused. Raises Refusal when nothing can be done (no such folder, what was just said) or nothing more (disk
    full).
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
    files = VideoFiles(root)
    with opened_for_writing(store, settings, manifest, files, overwrite) as opened:
        todo, summary = plan(manifest, opened, files, retry_quarantined, overwrite)
        make_ready(store, manifest, todo)
        if todo:
            with preparing():
                views = settings.create_views()
                for view in views:
                    view.prepare()
            start_workers = gpu_workers if any(view.on_gpu for view in views) else workers_for_extraction
            with (
                ExtractionBar(len(todo), len(summary.quarantined)) as bar,
                start_workers(min(workers, len(todo))) as client,
                journal(store, len(todo)) as kept,
                contextlib.closing(_run(client, list(todo.values()), root, store, settings, time_limit)) as outcomes,
            ):
                for outcome in outcomes:
                    if outcome.status == "failed":
                        raise cannot_go_on(outcome, store)
                    summary.count(outcome)
                    with writing_to(store):
                        kept.add(outcome)
                    bar.advance(outcome)
                    todo.pop(outcome.video_id)
            if todo:  # never end well with work undone
                raise RuntimeError(f"{len(todo)} videos were not processed, the first is {next(iter(todo))!r}")
        with writing_to(store):
            catalogue.save(store)
    summary.wall = time.perf_counter() - began
    return summary


def _run(
    client: Client, todo: list[Video], root: Path, store: Path, settings: ExtractionSettings, time_limit: float
) -> Generator[Outcome]:
    """Outcomes as they come, the largest files first: a long video that starts last would keep one worker busy alone.

    Dask cannot tell which of the videos that a dying worker held had killed it. All of them are done again when the
    others are through, each alone, so that only one that kills its worker once more is blamed and quarantined.
    """
    ordered = iter(sorted(todo, key=lambda row: (-_size(root / row.path), row.video_id)))
    videos: dict[Future, Video] = {}
    arguments = settings.as_dict(running=True)

    def start(row: Video) -> Future:
        return client.submit(job.extract_video, str(root), str(store), row, arguments, time_limit, pure=False)

    def submit(count: int) -> list[Future]:
        futures = []
        for row in itertools.islice(ordered, count):
            future = start(row)
            videos[future] = row
            futures.append(future)
        return futures

    ahead = IN_FLIGHT_PER_THREAD * max(1, sum(client.nthreads().values()))
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the worker will say what is wrong with it


def cannot_go_on(outcome: Outcome, store: Path) -> Refusal:
    """The refusal that ends a run whose videos cannot be written or worked on, whatever they are."""
    return Refusal(
        f"the run stopped at video {outcome.video_id!r}: {outcome.reason}",
        where=str(store),
        remedy="mend that (where a disk is full, make room) and run the same command again; what is committed stays and is"
        " not redone",
    )
