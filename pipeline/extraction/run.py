"""Extraction on Dask: plan what is missing, one task per video, collect outcomes, quarantine, resume."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from distributed import Client

from pipeline import called, storage
from pipeline.errors import Interrupted, Refusal
from pipeline.extraction import job
from pipeline.extraction.job import Outcome
from pipeline.extraction.journal import Journal, Summary, journal
from pipeline.extraction.opening import joined, run_into
from pipeline.extraction.plan import VideoFiles
from pipeline.extraction.progress import ExtractionBar, preparing
from pipeline.extraction.workers.admission import admit, try_out, wait_for_workers
from pipeline.extraction.workers.cluster import Kind, workers_for_extraction
from pipeline.extraction.workers.dispatch import Task, dispatch
from pipeline.extraction.workers.silence import Limits
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.extraction.workers.stopping import Stopping
from pipeline.manifest import Manifest, Video
from pipeline.store import fence
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import writing_to

TOGETHER = 1000  # missing files that are told at once


class Unfinished(Interrupted):
    """A run that a signal ended with videos left to do. `summary`: what it did until then."""

    def __init__(self, signal: int, summary: Summary, left: int) -> None:
        super().__init__(signal, f"interrupted: {summary.stored} stored, {left} left")
        self.summary, self.left = summary, left


def extract(
    manifest: Manifest,
    root: Path,
    store: Path,
    settings: ExtractionSettings,
    workers: int,
    retry_quarantined: bool = False,
    time_limit: float = 0.0,
    overwrite: bool = False,
    add_views: bool = False,
    scheduler: str = "",
    jobs: SlurmSettings = SlurmSettings(),  # noqa: B008  (frozen)
    limits: Limits = Limits(),  # noqa: B008
    gpu_processes: int = 1,
) -> Summary:
    """Bring every video of the manifest into the store; do only what is missing; safe to repeat after any interruption.

    root: folder that the manifest's paths are relative to. A broken video lands in quarantine and the run goes on.
    time_limit: seconds to wait for a frame of a video, see `job.extract_video`. overwrite: redo videos whose file has
    changed, and the whole store where it was made with other settings or other software; without it these are refused.
    add_views: a store that lacks some of the views gets them, of every video; what else it has stays as it is, byte
    for byte. Views that it has and `settings` does not name are made of new videos, too. workers, scheduler, jobs,
    gpu_processes: see `cluster.workers_for_extraction`; limits: of those that stand still. The first Ctrl-C or
    SIGTERM lets the running videos finish, the second does not. Raises Refusal when nothing can be done (no such
    folder, what was just said) or nothing more (disk full), and Unfinished when a signal ended it.
    """
    refuse_nothing(manifest, root)
    if storage.in_this_process_only(store):
        _refuse_other_processes(store, time_limit, scheduler)
    root, store, settings = root.absolute(), storage.absolute(store), settings.resolved()
    files = VideoFiles(root)
    began = time.perf_counter()
    with Stopping() as stop:
        if not scheduler:
            _ = settings.on_gpu  # refused before anything is written where it cannot be computed here
        settings = joined(store, settings, add_views, overwrite)
        with run_into(store, settings, manifest, files, retry_quarantined, overwrite, add_views) as found:
            todo, summary = found.todo, found.summary
            if todo:
                computed = found.views(settings)
                kind = "processes" if scheduler else _prepared(computed, store)
                run = fence.holder(store)
                task = Task(root, store, settings, computed, found.adding, time_limit, bool(scheduler), run, limits)
                chosen = workers_for_extraction(scheduler, min(workers, len(todo)), jobs, kind, gpu_processes)
                try:
                    _work_off(todo, summary, task, chosen, stop)
                except Interrupted as interrupt:
                    summary.wall = time.perf_counter() - began
                    raise Unfinished(interrupt.signal, summary, len(todo)) from interrupt
    summary.wall = time.perf_counter() - began
    if todo and stop.signals:
        raise Unfinished(stop.signals[-1], summary, len(todo))
    if todo:  # never end well with work undone
        raise RuntimeError(f"{len(todo)} videos were not processed, the first is {next(iter(todo))!r}")
    return summary


def _prepared(settings: ExtractionSettings, store: Path) -> Kind:
    """Do what the workers of this machine would all wait for; tells of which kind they are to be."""
    with preparing():
        settings.prepare()
    if storage.in_this_process_only(store):
        return "here"
    return "gpus" if settings.on_gpu else "processes"


def refuse_nothing(manifest: Manifest, root: Path) -> None:
    """Raises Refusal where there is no video, or no folder for them."""
    if not manifest.rows:
        raise Refusal(
            "the manifest lists no video", where=str(root), remedy="give a manifest with a row for each video"
        )
    if not root.is_dir():
        raise Refusal(
            "there is no such folder of videos",
            where=str(root),
            remedy=f"give the manifest's root as {called.option('videos')}",
        )


def _refuse_other_processes(store: Path, time_limit: float, scheduler: str) -> None:
    if time_limit or scheduler:
        raise Refusal(
            "a store in memory is written by a thread of this process,"
            " which neither a time limit nor a scheduler can have",
            where=str(store),
            remedy="leave them out, or take another place for the store",
        )


def _work_off(
    todo: dict[str, Video], summary: Summary, task: Task, chosen: AbstractContextManager[Client], stop: Stopping
) -> None:
    """Take out of `todo` what was brought into the store or into quarantine."""
    sizes = {row.video_id: size_of(task.root / row.path) for row in todo.values()}
    missing = [row for row in todo.values() if not sizes[row.video_id] and not os.path.exists(task.root / row.path)]
    bar = ExtractionBar(sizes, summary.in_quarantine)

    def settle(outcomes: Iterable[Outcome], kept: Journal) -> None:
        for outcome in noted(outcomes, task.store, kept, bar):
            summary.count(outcome)
            todo.pop(outcome.video_id)

    with stop.deferred(), journal(task.store, len(todo)) as kept:
        with stop.at_once(), bar:
            for first in range(0, len(missing), TOGETHER):
                settle(job.missing(task.store, task.root, missing[first : first + TOGETHER]), kept)
        if not todo:
            return
        # The largest first: a long video that starts last would keep one worker busy alone.
        ordered = sorted(todo.values(), key=lambda row: (-sizes[row.video_id], row.video_id))
        with chosen as client:
            if task.elsewhere:
                with stop.at_once():
                    wait_for_workers(client, bar.say)
                    admit(client, task.root, task.store, bar.say)
            with stop.at_once():
                try_out(client, task.computed.as_dict(running=True))
            bar.say(f"dashboard: {client.dashboard_link}")
            with bar, contextlib.closing(dispatch(client, ordered, task, stop, bar)) as outcomes:
                settle(outcomes, kept)


def size_of(path: Path) -> int:
    """Bytes of a video's file; 0 where it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the worker will say what is wrong with it


def noted(outcomes: Iterable[Outcome], store: Path, kept: Journal, bar: ExtractionBar) -> Iterator[Outcome]:
    """The outcomes as they come, each written to the journal and shown. Raises Refusal at one that ends the run."""
    for outcome in outcomes:
        if outcome.status == "failed":
            raise cannot_go_on(outcome, store)
        with writing_to(store):
            kept.add(outcome)
        bar.advance(outcome)
        yield outcome


def cannot_go_on(outcome: Outcome, store: Path) -> Refusal:
    """The refusal that ends a run whose videos cannot be written or worked on, whatever they are."""
    return Refusal(
        f"the run stopped at video {outcome.video_id!r}: {outcome.reason}",
        where=str(store),
        remedy="mend that (where a disk is full, make room) and run the same command again;"
        " what is committed stays and is not redone",
    )
