"""Extraction on Dask: plan what is missing, one task per video, collect outcomes, quarantine, resume."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from pathlib import Path

from distributed import Client

from pipeline import catalogue
from pipeline.admission import admit, wait_for_workers
from pipeline.cluster import workers_for_extraction
from pipeline.dispatch import Task, dispatch
from pipeline.errors import Interrupted, Refusal
from pipeline.job import Outcome
from pipeline.journal import Summary, journal
from pipeline.lock import only_writer
from pipeline.manifest import Manifest, Video
from pipeline.plan import plan, refuse_other_facts
from pipeline.progress import ExtractionBar, preparing
from pipeline.settings import ExtractionSettings
from pipeline.slurm import SlurmSettings
from pipeline.stopping import Stopping
from pipeline.writer import add_classes, add_groups, create_store, writing_to


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
    scheduler: str = "",
    jobs: SlurmSettings = SlurmSettings(),  # noqa: B008  (frozen)
) -> Summary:
    """Bring every video of the manifest into the store; do only what is missing; safe to repeat after any interruption.

    root: folder that the manifest's paths are relative to. A broken video lands in quarantine and the run goes on.
    time_limit: seconds to wait for a frame of a video, see `job.extract_video`. workers, scheduler, jobs: see
    `cluster.workers_for_extraction`. The first Ctrl-C or SIGTERM lets the running videos finish, the second does not.
    Raises Refusal when nothing can be done (no such folder, other settings or splits) or nothing more (disk full), and
    Unfinished when a signal ended it.
    """
    refuse_nothing(manifest, root)
    root, store, settings = root.absolute(), store.absolute(), settings.resolved()
    began = time.perf_counter()
    with Stopping() as stop:
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
                task = Task(root, store, settings, time_limit, elsewhere=bool(scheduler))
                chosen = workers_for_extraction(scheduler, min(workers, len(todo)), jobs)
                try:
                    _work_off(todo, summary, task, chosen, stop)
                except Interrupted as interrupt:
                    summary.wall = time.perf_counter() - began
                    raise Unfinished(interrupt.signal, summary, len(todo)) from interrupt
            with writing_to(store):
                catalogue.save(store)
    summary.wall = time.perf_counter() - began
    if todo and stop.signals:
        raise Unfinished(stop.signals[-1], summary, len(todo))
    if todo:  # never end well with work undone
        raise RuntimeError(f"{len(todo)} videos were not processed, the first is {next(iter(todo))!r}")
    return summary


def refuse_nothing(manifest: Manifest, root: Path) -> None:
    """Raises Refusal where there is no video, or no folder for them."""
    if not manifest.rows:
        raise Refusal(
            "the manifest lists no video", where=str(root), remedy="give a manifest with a row for each video"
        )
    if not root.is_dir():
        raise Refusal(
            "there is no such folder of videos", where=str(root), remedy="give the manifest's root as VIDEOS="
        )


def _work_off(
    todo: dict[str, Video], summary: Summary, task: Task, chosen: AbstractContextManager[Client], stop: Stopping
) -> None:
    """Take out of `todo` what was brought into the store or into quarantine."""
    sizes = {row.video_id: size_of(task.root / row.path) for row in todo.values()}
    # The largest first: a long video that starts last would keep one worker busy alone.
    ordered = sorted(todo.values(), key=lambda row: (-sizes[row.video_id], row.video_id))
    bar = ExtractionBar(sizes, summary.in_quarantine, pairs="flow" in task.settings.views)
    with stop.deferred(), chosen as client:
        if task.elsewhere:
            with stop.at_once():
                wait_for_workers(client, bar.say)
                admit(client, task.root, task.store, bar.say)
        bar.say(f"dashboard: {client.dashboard_link}")
        with bar, contextlib.closing(dispatch(client, ordered, task, stop, bar.say)) as outcomes:
            for outcome in outcomes:
                if outcome.status == "failed":
                    raise cannot_go_on(outcome, task.store)
                summary.count(outcome)
                with writing_to(task.store):
                    journal(task.store, outcome)
                bar.advance(outcome)
                todo.pop(outcome.video_id)


def size_of(path: Path) -> int:
    """Bytes of a video's file; 0 where it is not there."""
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
