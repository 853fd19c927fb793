"""One video, from file to commit record. Runs in a worker process; never raises for what is wrong with the video."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.manifest import Video
from pipeline.store import layout
from pipeline.store import quarantine as quarantine_files
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.writing import VideoWriter, writing_to
from pipeline.video import watchdog
from pipeline.video.decode import BLOCK_BYTES, MAX_BLOCK_FRAMES, OpenVideo, Undecodable
from pipeline.video.watchdog import WRITES, watching
from pipeline.views import Extractor
from pipeline.views.size import Block

TRACEBACK_LINES = 12
NO_FILE = "there is no such file"
TIME = "time"  # the stage of a video that was given up
# Videos that this process has begun -> frames that are through, and how many there seem to be (0: nobody knows).
under_way: dict[str, tuple[int, int]] = {}
RECORD_DIGITS = 32  # of a record's digest, as many as `VideoTable.digests` has


@dataclass(frozen=True)
class Outcome:
    """What became of a video. A small record: frames never travel between processes."""

    video_id: str
    status: str  # "stored" | "quarantined" | "failed" (the run cannot go on, e.g. the disk is full)
    reason: str = ""  # of a stored video: why only a part of it is
    stage: str = ""
    frames: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""  # of a stored video: what was done beyond the usual
    stamp: tuple[int, ...] = ()  # of a stored video: what its source's was, see `plan.Sources`
    record: str = ""  # of a stored video: its record's digest, as `VideoTable.digests` has it
    source: str = ""  # of a stored video: the digest of the bytes that it was made of


def extract_video(
    root: str,
    store: str,
    video: Video,
    settings: dict[str, Any],
    time_limit: float = 0.0,
    adding: bool = False,
    run: str = "",
) -> Outcome:
    """Decode, compute, encode and commit one video, or quarantine it with its reason.

    root: folder that the video's path is relative to. settings: as `ExtractionSettings.as_dict` gives them. A video
    that is done again stays as it was until the new one is whole. time_limit: seconds that one frame may take to decode
    before the video is quarantined and this process ends, for a call of FFmpeg cannot be broken off; 0 waits for ever.
    Who looks from outside is told how long the store takes to write (`watchdog.longest_wait`).
    adding: where the video is stored, only the views that it lacks are computed, and what it has stays as it is. run:
    see `fence.inside`. `seconds` of the outcome: decode, flow, encode, write, total.
    """
    cv2.setNumThreads(1)
    with watching(0, _nothing, WRITES) as writes:
        writer = VideoWriter(storage.location(store), video.video_id, adding, run, writes)
        try:
            return _extract(Path(root) / video.path, writer, video, ExtractionSettings.from_dict(settings), time_limit)
        finally:
            under_way.pop(video.video_id, None)


def _nothing() -> None: ...


def _extract(file: Path, writer: VideoWriter, video: Video, settled: ExtractionSettings, time_limit: float) -> Outcome:
    stamp = file_stamp(file)
    before = writer.record()
    lacking = settled.only(settled.views.keys() - before["shapes"].keys()) if before else settled
    if before and not lacking.views:  # a worker that died had done it
        return Outcome(video.video_id, "stored", frames=before["length"])
    try:
        views = lacking.extractors(video.video_id)
    except Refusal as refusal:  # not the video's fault: a GPU that is gone, a file of weights that was moved
        return Outcome(video.video_id, "failed", str(refusal), "prepare")

    def ended() -> None:
        give_up(writer, video, stamp, _probe_command(file), f"it gave no further frame for {time_limit:g} s")

    def store_video() -> Outcome:
        with watching(time_limit, ended) as guard:
            return _store(file, writer, video, settled, views, guard)

    return attempt(store_video, writer, video, stamp, _probe_command(file))


def give_up(writer: VideoWriter, video: Video, stamp: tuple[int, ...], reproduce: str, reason: str) -> NoReturn:
    """End this process, from a thread that does not wait, and leave the video in quarantine; not even that where the
    store does not take it."""
    late = threading.Timer(watchdog.QUIET, os._exit, (1,))
    late.daemon = True
    late.start()
    try:
        with writer.owned():
            _write_quarantine(writer.root, video, stamp, reproduce, reason, TIME)
    finally:
        os._exit(1)


def attempt(
    store_video: Callable[[], Outcome], writer: VideoWriter, video: Video, stamp: tuple[int, ...], reproduce: str
) -> Outcome:
    """Call `store_video`, which commits a video, and tell what became of it. stamp: of its source, see `plan.Sources`.

    Undecodable, or an error in our own code, puts the video in quarantine with `reproduce`, the command that shows it
    again.
    """
    began = time.perf_counter()
    try:
        # Before the commit, so that no kill leaves a video both stored and refused.
        with writer.owned():
            storage.remove(layout.quarantine_path(writer.root, video.video_id))
        stored = store_video()
    except Undecodable as error:
        return _quarantine(writer, video, stamp, reproduce, error.reason, error.stage)
    except OSError as error:
        # A full or vanished disk is not the video's fault: no record, no quarantine, and the run stops.
        with contextlib.suppress(OSError):  # what stays has no commit record, so it does not exist; a rerun sweeps it
            writer.abandon()
        return Outcome(video.video_id, "failed", f"{error.strerror or error}: {error.filename or writer.root}", "write")
    except Exception:  # noqa: BLE001  any estimator, codec or decoder bug blames this video and lets the run go on
        text = traceback.format_exc()
        return _quarantine(writer, video, stamp, reproduce, text.strip().splitlines()[-1], "extract", text)
    stored.seconds["total"] = time.perf_counter() - began
    return stored


def quarantine(store: Path, root: Path, video: Video, reason: str, stage: str, trace: str = "") -> None:
    """Write the quarantine file of a video: why, where it failed, and the command that shows it again."""
    file = root / video.path
    _write_quarantine(store, video, file_stamp(file), _probe_command(file), reason, stage, trace)


def _write_quarantine(
    store: Path, video: Video, stamp: tuple[int, ...], reproduce: str, reason: str, stage: str, trace: str = ""
) -> None:
    path = layout.quarantine_path(store, video.video_id)
    storage.make_folder(path.parent)
    storage.write_atomically(path, _quarantine_file(video, stamp, reproduce, reason, stage, trace))


def _quarantine_file(
    video: Video, stamp: tuple[int, ...], reproduce: str, reason: str, stage: str, trace: str = ""
) -> bytes:
    entry = {
        **asdict(video),
        "reason": reason,
        "stage": stage,
        "traceback": trace.strip().splitlines()[-TRACEBACK_LINES:],
        "reproduce": reproduce,
        "stamp": list(stamp),
    }
    return layout.quarantine_file(entry)


def missing(store: Path, root: Path, videos: Sequence[Video]) -> list[Outcome]:
    """Quarantine videos whose files are not there, for which no worker is needed."""
    files = {}
    for video in videos:
        file = root / video.path
        content = _quarantine_file(video, file_stamp(file), _probe_command(file), NO_FILE, "open")
        files[layout.quarantine_path(store, video.video_id)] = content
    with writing_to(store):
        storage.write_together(files)
    return [Outcome(video.video_id, "quarantined", NO_FILE, "open") for video in videos]


def _probe_command(file: Path) -> str:
    return f"python -m pipeline probe --file={shlex.quote(str(file))}"


def given_up(store: Path, video: Video) -> Outcome | None:
    """What a worker that ended itself over this video left to say, if it did."""
    entry = quarantine_files.read(store, layout.quarantine_path(store, video.video_id))
    if entry is None or entry["stage"] != TIME:
        return None
    return Outcome(video.video_id, "quarantined", entry["reason"], TIME)


def _store(
    file: Path,
    writer: VideoWriter,
    video: Video,
    settings: ExtractionSettings,
    views: list[Extractor],
    guard: AbstractContextManager[None],
) -> Outcome:
    seconds = {"decode": 0.0, "write": 0.0}
    mark = time.perf_counter()
    with guard:
        source = OpenVideo(file)
    began = _stamp(file)
    with source:
        mark = _lap(seconds, "decode", mark)
        writer.begin()
        mark = _lap(seconds, "write", mark)
        frames, partial = 0, _Partial()
        expected = round(source.header.duration * (settings.decode.fps or source.header.fps))
        expected = min(expected, settings.decode.max_frames or expected)
        for decoded in _decoded(source, settings, guard, partial):
            mark = _lap(seconds, "decode", mark)
            frames += len(decoded)
            block = Block(decoded)
            encoded = [(view, view.add(block)) for view in views]
            mark = time.perf_counter()
            for view, added in encoded:
                writer.add(view, added)
            mark = _lap(seconds, "write", mark)
            under_way[video.video_id] = frames, expected
        mark = _lap(seconds, "decode", mark)
        cut = bool(partial.reason) or settings.decode.max_frames is not None
        for view in views:
            writer.add(view, view.finish(cut))
        _lap(seconds, "write", mark)
    identity = _identity(file, began, guard)
    if before := writer.record():
        _refuse_another(before, frames, identity)
    facts = {
        "fps": settings.decode.fps or source.header.fps,
        "length": frames,
        "file": {"path": video.path, **identity},
        "settings_hash": settings_hash(settings.as_dict()),
    }
    if partial.reason:
        facts["partial"] = asdict(partial)
    for view in views:
        facts.update(view.facts)
    mark = time.perf_counter()
    record = writer.commit(views, facts)
    _lap(seconds, "write", mark)
    for view in views:
        for kind, spent in view.seconds.items():
            seconds[kind] = seconds.get(kind, 0.0) + spent
    told = Outcome(video.video_id, "stored", partial.reason, frames=frames, seconds=seconds)
    return replace(told, stamp=began, record=record["digest"][:RECORD_DIGITS], source=identity["sha256"])


def _refuse_another(before: dict[str, Any], frames: int, identity: dict[str, Any]) -> None:
    """Raises Undecodable where views would be added to a video that others were made of something else."""
    now = {"length": frames, **identity}
    stored = {"length": before["length"], **before.get("file", {})}
    differing = [f"{key} {stored.get(key)} then, {value} now" for key, value in now.items() if stored.get(key) != value]
    if differing:
        raise Undecodable(f"this is not what its other views were made of: {'; '.join(differing)}", "end")


@dataclass
class _Partial:
    """Why a file could not be read to its end, and how many frames of it (at its own rate) could; empty if it could."""

    reason: str = ""
    readable: int = 0


def _decoded(
    source: OpenVideo, settings: ExtractionSettings, guard: AbstractContextManager[None], partial: _Partial
) -> Iterator[np.ndarray]:
    """The video's blocks, shorter where views enlarge its frames. Where what is readable of a damaged video is wanted,
    they end at the damage, and `partial` says why."""
    stored = max((3 * height * width for height, width in settings.exact_sizes), default=1)
    try:
        yield from source.blocks(settings.decode, max(2, min(MAX_BLOCK_FRAMES, BLOCK_BYTES // stored)), guard)
    except Undecodable as error:
        if not (settings.decode.accept_partial and error.readable):
            raise
        partial.reason, partial.readable = error.reason, error.readable


def file_stamp(file: Path) -> tuple[int, ...]:
    """Size and time of change (nanoseconds since 1970) of a file; nothing where it cannot be told."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change. Raises Undecodable."""
    try:
        status = file.stat()
    except OSError as error:
        raise Undecodable(f"it could not be read to its end: {error.strerror}", "end") from error
    return status.st_size, status.st_mtime_ns


def _identity(file: Path, began: tuple[int, int], guard: AbstractContextManager[None]) -> dict[str, Any]:
    """What was decoded. began: its stamp before. Raises Undecodable."""
    try:
        identity = {"bytes": began[0], "sha256": storage.file_digest(file, guard)}
    except OSError as error:
        raise Undecodable(f"it could not be read to its end: {error.strerror}", "end") from error
    if _stamp(file) != began:
        raise Undecodable("the file was written to while it was read", "end")
    return identity


def _lap(seconds: dict[str, float], kind: str, since: float) -> float:
    now = time.perf_counter()
    seconds[kind] += now - since
    return now


def _quarantine(
    writer: VideoWriter,
    video: Video,
    stamp: tuple[int, ...],
    reproduce: str,
    reason: str,
    stage: str,
    trace: str = "",
) -> Outcome:
    try:
        with writer.owned():
            writer.discard()
            _write_quarantine(writer.root, video, stamp, reproduce, reason, stage, trace)
    except OSError as error:
        return Outcome(video.video_id, "failed", f"{error.strerror or error}: {error.filename}", "write")
    return Outcome(video.video_id, "quarantined", reason, stage)
