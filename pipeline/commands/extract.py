"""The command `extract`: what it asks for, what it tells before and after."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import decimal
from rich.table import Table

from pipeline import importers
from pipeline.arguments import CountOrAll, Input, Name, Positive, Seconds, StorePlace, Text
from pipeline.commands import console as console_main
from pipeline.commands.following import after_store
from pipeline.commands.stores import QUARANTINE_EXIT_CODE, console, errors, print_notes, print_summary
from pipeline.errors import counted, named, refuse_unknown
from pipeline.extraction.estimate import Amount, Estimate, estimate
from pipeline.extraction.plan import as_stored
from pipeline.extraction.progress import PREPARING, counting_bar
from pipeline.extraction.run import Unfinished
from pipeline.extraction.run import extract as run_extraction
from pipeline.extraction.workers.cluster import check_scheduler
from pipeline.extraction.workers.gpus import threads_each
from pipeline.extraction.workers.slurm import SlurmSettings, job_script
from pipeline.manifest import Manifest
from pipeline.storage import location
from pipeline.store import open_store, removal, there_is_a_store
from pipeline.store.settings import ExtractionSettings
from pipeline.terminal import marked
from pipeline.video.decode import DecodeSettings
from pipeline.views import VIEWS, ViewSettings
from pipeline.views.flow import FLOW
from pipeline.views.rgb import RGB

SHOWN = 5  # removed videos that are named
DEFAULT_VIEWS = (RGB.name, FLOW.name)


def with_view_options(command: Callable[..., int]) -> Callable[..., int]:
    """The command, with the settings of each view as options of its own in place of its `**settings`."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [
        one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD and one.name != "given"
    ]
    described = (command.__doc__ or "").rstrip()
    for view in VIEWS.values():
        kind, default = view.Settings, view.Settings()
        parameters.append(
            inspect.Parameter(view.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        )
        described += f"\n        {view.name}: How the view {view.name}, {view.title}, is made and stored."

    def run(**options: Any) -> int:
        return command(**options)

    vars(run)[console_main.TOLD_GIVEN] = True
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {given.name: given.annotation for given in parameters} | {"return": int}
    run.__doc__ = described
    return run


def extract(
    videos: Input,
    store: StorePlace,
    dataset: Name = "folder",
    split: Positive | None = None,
    lists: Input | None = None,
    classes: Input | None = None,
    manifest: Input | None = None,
    views: Text = "",
    decode: DecodeSettings = DecodeSettings(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
    scheduler: Text = "",
    slurm: SlurmSettings = SlurmSettings(),  # noqa: B008
    workers: CountOrAll = 0,
    gpu_processes: Positive = 1,
    dry_run: bool = False,
    time_limit: Seconds = 600.0,
    retry_quarantined: bool = False,
    overwrite: bool = False,
    prune: bool = False,
    given: Collection[str] | None = None,
    **settings: ViewSettings,
) -> int:
    """Decode videos and compute their views, as flow, into a store. Safe to repeat: only what is missing is done.

    A broken video lands in quarantine with its reason and the run goes on; the exit code is then 3. Ctrl-C lets the
    videos that are running finish (exit code 130), SIGTERM too (143); a second one stops at once. The first line of a
    run links to Dask's dashboard. Workers on other machines need this environment and the same paths, and one thread
    each: `dask worker --scheduler-file FILE --nthreads 1 --nworkers CORES`; their scheduler needs `dask scheduler
    --scheduler-file FILE` and DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0, or it hands a video that kills a worker
    to several more.

    Args:
        videos: Folder that holds the videos.
        store: Folder of the store, or its URL, as s3://bucket/store; made if it is not there.
        dataset: How the folder is read: a name in data_manifests/, or the path of a file like those.
        split: Which of the official splits, for data sets that have several.
        lists: Folder of the official lists; by default they are looked for in and beside `videos`.
        classes: Class list, one class a line, where its order is not official or not in the lists.
        manifest: Use this manifest instead; its paths are relative to `videos`.
        views: What to store, as rgb,flow or rgb alone; by default rgb and flow. A store that lacks a view that is named
            here gets it, of all its videos; what it has already stays as it is, and new videos get all of its views.
            The options of views that are not named here say nothing.
        decode: Which frames of a video are taken.
        scheduler: Where the workers are: empty on this machine; a running Dask scheduler's address (tcp://host:port,
            tls://...) or scheduler file; slurm for jobs as --slurm.* describe them.
        slurm: Jobs of `--scheduler slurm`.
        workers: Videos in work at once, a process each (for flow on GPUs, a thread each); 0 takes all cores, with slurm
            one job; a running scheduler has its own.
        gpu_processes: Processes on each GPU that flow is computed on, on this machine; the videos in work are shared
            out among them.
        dry_run: `--dry_run true` writes nothing; it tells what is to do, how long it would take and how large the store
            would grow, from a sample of 8 videos, and prints the job of slurm.
        time_limit: Seconds to wait for one frame of a video, in case its file hangs the decoder: then the video lands
            in quarantine; 0 waits for ever.
        retry_quarantined: Try the videos again that earlier runs refused.
        overwrite: Redo stored videos whose file has changed since, and the whole store where it was
            made with other settings or by another major version of the software. Without it, that is refused and told.
        prune: When all else is done, remove the stored and quarantined videos that the manifest (or the folder) does
            not list.
    """
    listed = importers.listed(dataset, videos, split=split, lists=lists, classes=classes, manifest=manifest)
    print_notes(listed)
    like = None if overwrite else _settings_of(store)
    asked, count = _asked(views, decode, settings, like, given), _workers(scheduler, workers, slurm)
    work = _Work(
        listed, videos, location(store), asked, retry_quarantined, time_limit, overwrite, bool(views), gpu_processes
    )
    code = (_estimate if dry_run else _extract)(work, count, scheduler, slurm)
    if prune:
        _prune(work, dry_run)
    return code


class _Work(NamedTuple):
    """What is to be done, whoever does it."""

    manifest: Manifest
    root: Path
    store: Path
    settings: ExtractionSettings
    retry_quarantined: bool
    time_limit: float
    overwrite: bool
    add_views: bool
    gpu_processes: int


def _settings_of(store: str) -> dict[str, Any] | None:
    """Those of a store that is there."""
    place = location(store)
    return open_store(place).settings if there_is_a_store(place) else None


def _asked(
    views: str,
    decode: DecodeSettings,
    settings: dict[str, ViewSettings],
    stored: dict[str, Any] | None,
    given: Collection[str] | None,
) -> ExtractionSettings:
    """stored: of the store that is continued; given: names of the options that stand in the command, None where that is
    not known: then every setting is meant as it is."""
    names = views.split(",") if views else DEFAULT_VIEWS
    for name in names:
        if name not in VIEWS:
            refuse_unknown("view", name, VIEWS)
    asked = ExtractionSettings({name: settings[name] for name in VIEWS if name in names}, decode)
    if stored is not None and given is not None:
        asked = asked.continuing(stored, given)
    return asked.resolved()


def _workers(scheduler: str, workers: int, slurm: SlurmSettings) -> int:
    """How many, where it is for the run to say."""
    check_scheduler(scheduler, workers)
    return workers or (slurm.cores if scheduler == "slurm" else len(os.sched_getaffinity(0)))


def _extract(work: _Work, workers: int, scheduler: str, slurm: SlurmSettings) -> int:
    settings, store = work.settings.as_dict(), str(work.store)
    views = " and ".join(VIEWS[name].described(settings[name]) for name in work.settings.views)
    hands = counted(workers, "worker")
    where = {"": hands, "slurm": f"{hands} in jobs of slurm"}.get(scheduler, scheduler)
    count = counted(len(work.manifest.rows), "video")
    errors.print(f"extracting {count}: {views}, {where}, into {store}")
    try:
        summary = run_extraction(**work._asdict(), workers=workers, scheduler=scheduler, jobs=slurm)
    except Unfinished as stopped:
        print_summary(stopped.summary, store)
        raise
    print_summary(summary, store)
    if summary.stored:
        errors.print(after_store(open_store(work.store)))
    return QUARANTINE_EXIT_CODE if summary.quarantined or summary.in_quarantine else 0


def _prune(work: _Work, dry_run: bool) -> None:
    if dry_run and not there_is_a_store(work.store):
        return
    store = open_store(work.store)
    unlisted = sorted(removal.known(store) - {row.video_id for row in as_stored(work.manifest, store).rows})
    if unlisted and not dry_run:
        removal.remove(work.store, unlisted)
    shown = f": {named([repr(name) for name in unlisted], SHOWN)}" if unlisted else ""
    found = counted(len(unlisted), "unlisted video")
    console.print(f"{'would remove' if dry_run else 'removed'} {found}{shown}")


def _estimate(work: _Work, workers: int, scheduler: str, slurm: SlurmSettings) -> int:
    job = job_script(slurm, workers) if scheduler == "slurm" else ""  # first, as its settings may be wrong
    with counting_bar("videos", errors) as bar:
        task = bar.add_task(PREPARING, total=None, rate="")

        def progress(done: int, total: int) -> None:
            bar.update(task, description="sample", completed=done, total=total)

        plan = estimate(**work._asdict(), progress=progress)
    print_estimate(plan, 0 if scheduler not in ("", "slurm") else workers)
    if job:
        console.print(f"\n{job}")
    console.print(f"nothing was written; without --dry_run the run begins: {work.store}")
    return 0


def print_estimate(plan: Estimate, workers: int) -> None:
    """What is to do and what it costs. workers: 0 where they are not known."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    there = f"{plan.summary.skipped} are there already, {plan.summary.in_quarantine} in quarantine"
    table.add_row("to do", f"{counted(plan.todo, 'video')} ({decimal(plan.size)}); {there}")
    if plan.frames and plan.seconds and plan.stored:
        seconds = plan.seconds.value
        table.add_row("frames", f"{plan.frames.value:,.0f}{_uncertainty(plan.frames)}")
        table.add_row("work", f"{_time(seconds)} of one core{_uncertainty(plan.seconds)}")
        if workers:
            table.add_row("time", _with_workers(plan, workers))
        table.add_row("store", f"{decimal(round(plan.stored.value))} more{_uncertainty(plan.stored)}")
        milliseconds = sorted(1e3 * one.seconds for one in plan.sample if not one.refused)
        spread = f"a frame took {_figure(milliseconds[0])} to {_figure(milliseconds[-1])} ms"
        sample = counted(len(plan.sample), "video")
        table.add_row("sample", f"the beginning of {sample}, from the smallest file to the largest; {spread}")
    console.print(table)
    for refused in (one.refused for one in plan.sample if one.refused):
        console.print(marked("would land in quarantine", "yellow", refused))
    if plan.sample and not plan.frames:
        console.print("no video of the sample can be decoded, so there is nothing to estimate from")


def _with_workers(plan: Estimate, workers: int) -> str:
    """How long it takes. On GPUs between what the threads take if they never wait, and what GPUs take with small
    batches: the sample's videos were alone, while in a run pairs of several share a batch."""
    assert plan.seconds
    if not plan.gpus:
        return f"{_time(plan.seconds.value / workers)} with {counted(workers, 'worker')} on cores like this machine's"
    assert plan.on_gpus
    gpus, processes = min(plan.gpus, workers), min(plan.gpus * plan.gpu_processes, workers)
    threads = processes * threads_each(workers, processes)
    least = plan.seconds.value / threads
    most = max(least, plan.on_gpus.value / gpus)
    where = f"{counted(threads, 'video')} at once on {counted(gpus, 'GPU')} like this machine's"
    return f"{_time(least)} to {_time(most)} with {where}; the less, the fuller their batches"


def _time(seconds: float) -> str:
    return f"{_figure(seconds / 3600)} hours" if seconds >= 3600 else f"{_figure(seconds / 60)} minutes"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _uncertainty(amount: Amount) -> str:
    """One standard error."""
    return " (from one video)" if amount.error is None else f" ± {100 * amount.error / amount.value:.0f} %"
