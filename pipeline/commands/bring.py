"""The command that brings data which others extracted into a store."""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from pipeline import importers
from pipeline.arguments import Bound, CountOrAll, Input, Name, Positive, Seconds, StorePlace
from pipeline.commands.following import after_store
from pipeline.commands.stores import QUARANTINE_EXIT_CODE, errors, print_notes, print_summary
from pipeline.errors import UsageError, counted
from pipeline.existing import Source, open_source
from pipeline.existing.bring import Brought, Existing, manifest_of
from pipeline.existing.bring import bring as run_bringing
from pipeline.manifest import Manifest
from pipeline.storage import location
from pipeline.store import open_store
from pipeline.terminal import marked
from pipeline.video import watchdog
from pipeline.video.decode import FrameRateIfKnown
from pipeline.video.watchdog import watching


def bring(
    frames: Input,
    store: StorePlace,
    flow: Input | None = None,
    dataset: Name = "folder",
    split: Positive | None = None,
    lists: Input | None = None,
    classes: Input | None = None,
    manifest: Input | None = None,
    alignment: Literal["auto", "first", "second"] = "auto",
    bound: Bound = 20.0,
    fps: FrameRateIfKnown = 0.0,
    workers: CountOrAll = 0,
    retry_quarantined: bool = False,
    overwrite: bool = False,
    time_limit: Seconds = 600.0,
) -> int:
    """Bring frames and flow that exist as JPEGs into a store. Safe to repeat: only what is missing is done.

    Takes LMDBs of CoCLR and ViCC, and folders as denseflow writes them (<class>/<video>/img_00001.jpg,
    flow_x_00001.jpg, flow_y_00001.jpg). Frames are stored byte for byte; only what is not a plain baseline colour JPEG
    of the video's size is encoded again, and that is told. Flow is encoded again, as one gray JPEG a pair at quality
    95. A video that is empty or damaged, or whose frames and flow do not fit, lands in quarantine; the exit code is
    then 3.

    Args:
        frames: LMDB of frames, or folder of frame folders.
        store: Folder of the store, or its URL; made if it is not there.
        flow: LMDB of flow, or folder of frame folders; without it the store has frames alone.
        dataset: Whose labels, recordings and splits the videos have: a name in data_manifests/, such as coclr for
            CoCLR's CSVs and video_source.json or ucf101 for the official lists, or the path of a file like those. By
            default labels are the folders, and splits folders train/, val/ or test/ above.
        split: Which of the official splits, for data sets that have several.
        lists: Folder of the lists; by default they are looked for in and beside `frames`.
        classes: Class list, one class a line, where its order is not official or not in the lists.
        manifest: Use this manifest instead (`manifest --frames` makes one); videos are found by their ids.
        alignment: Of as many flow pictures as frames. first: picture k leads from frame k to the next; second: it leads
            to frame k, as TSN's dense_flow has it; auto: what the pictures of some videos tell, or a refusal.
        bound: Pixels at which the flow was clipped when it was made.
        fps: Frame rate of the videos, where it is known.
        workers: Threads; 0 takes all cores.
        retry_quarantined: Try the videos again that earlier runs refused.
        overwrite: Redo stored videos whose pictures have changed since, and the whole store where it was made with
            other settings or by another major version of the software. Without it, that is refused and told.
        time_limit: Seconds to wait for a picture to be read or the store to take what is written, in case a disk
            hangs: then the run ends, and the video lands in quarantine whose picture it was. 0 waits for ever.
    """
    again = _command(locals())
    with contextlib.ExitStack() as stack:
        existing = _opened(stack, frames, flow, bound, fps, alignment, _guard(stack, frames, time_limit))
        said = importers.listed(dataset, existing.place, split=split, lists=lists, classes=classes, manifest=manifest)
        rows, count = manifest_of(existing, said), workers or len(os.sched_getaffinity(0))
        _tell_of_beginning(existing, rows)
        errors.print(f"bringing {counted(len(rows.rows), 'video')}, {counted(count, 'thread')}, into {store}")
        brought = run_bringing(rows, existing, location(store), count, again, retry_quarantined, overwrite, time_limit)
    _tell_of_end(brought, store)
    return QUARANTINE_EXIT_CODE if brought.summary.quarantined or brought.summary.in_quarantine else 0


def _opened(
    stack: contextlib.ExitStack,
    frames: Path,
    flow: Path | None,
    bound: float,
    fps: float,
    alignment: Literal["auto", "first", "second"],
    guard: AbstractContextManager[None],
) -> Existing:
    """The sources, until the stack closes them. Raises UsageError and Refusal."""
    with errors.status("checking what is there"):
        with guard:
            opened = stack.enter_context(open_source(frames))
            flows = stack.enter_context(_flow_source(flow, opened)) if flow else None
        existing = Existing(opened, flows, bound, fps, alignment, guard)
        _ = existing.aligned  # found or refused here, where it is told that something is going on
    return existing


def _guard(stack: contextlib.ExitStack, frames: Path, time_limit: float) -> AbstractContextManager[None]:
    """Of what is read before the first video is stored. A wait for a disk cannot be broken off."""

    def end() -> None:
        try:
            errors.print(
                f"pipeline bring: what is there could not be read within {time_limit:g} s\n  where: {frames}\n  to do:"
                " see whether its disk answers; `--time_limit 0` waits for ever"
            )
        finally:
            os._exit(1)

    note = marked("note", "yellow", f"{frames} has not been read after {watchdog.QUIET:g} s: its disk may hang")
    return stack.enter_context(watching(time_limit, end, tell=lambda: errors.print(note)))


def _tell_of_beginning(existing: Existing, rows: Manifest) -> None:
    for source in dict.fromkeys([existing.frames, existing.flow]):
        for note in source.notes if source else ():
            errors.print(marked("note", "yellow", note))
    if existing.alignment == "auto" and (aligned := existing.aligned):
        leads = {"first": "leads from its frame to the next", "second": "leads to its frame from the one before"}[
            aligned
        ]
        errors.print(
            marked("note", "yellow", f"as the pictures tell, each flow picture {leads} (--alignment {aligned})")
        )
    print_notes(rows)
    told = f"frames of {existing.frames.path}" + (f", flow of {existing.flow.path}" if existing.flow else "")
    errors.print(told)


def _tell_of_end(brought: Brought, store: str) -> None:
    for note, (number, first) in sorted(brought.noted.items()):
        errors.print(marked("note", "yellow", f"{note}: in {counted(number, 'video')}, the first is {first}"))
    print_summary(brought.summary, store)
    opened = open_store(store)
    said = opened.annotated
    for lack in filter(None, [said.without_split(), said.without_recordings()]):
        errors.print(marked("note", "bold yellow", lack))
    if len(opened.table):
        errors.print(after_store(opened))


def _flow_source(flow: Path, frames: Source) -> Source:
    """LMDB files open once in a process, and one that holds frames holds no flow; a folder may hold both."""
    if flow.exists() and flow.samefile(frames.path):
        if flow.is_file():
            raise UsageError("frames and flow are the same LMDB", where=str(flow), remedy="give that of the flow")
        return frames
    return open_source(flow)


def _command(given: dict[str, Any]) -> str:
    """The command that shows again what is in quarantine: with all options that say what to bring."""
    usual = {name: parameter.default for name, parameter in inspect.signature(bring).parameters.items()}
    said = {name: value for name, value in given.items() if value != usual[name]}
    options = [
        f"--{name}={shlex.quote(str(said[name]))}"
        for name in said.keys() - {"workers", "retry_quarantined", "overwrite", "time_limit"}
    ]
    return f"python -m pipeline bring {' '.join(sorted(options))} --retry_quarantined=true"
