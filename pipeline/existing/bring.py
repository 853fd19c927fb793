"""From a source of existing data into a store: plan what is missing, check every picture, encode only what must be.

Threads, not processes: reading, hashing, decoding and encoding all let other threads run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import Refusal, counted
from pipeline.existing import Jpeg, Source, alignment, jpegs
from pipeline.existing.alignment import Alignment
from pipeline.existing.views import BroughtFlow, BroughtFrames, Origin
from pipeline.extraction.job import RECORD_DIGITS, Outcome, attempt, give_up
from pipeline.extraction.journal import Summary, journal
from pipeline.extraction.opening import run_into
from pipeline.extraction.plan import Stored, changes
from pipeline.extraction.progress import ExtractionBar
from pipeline.extraction.run import noted
from pipeline.importers import folder
from pipeline.importers.inventory import Extracted
from pipeline.manifest import Manifest, Video
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.writing import VideoWriter
from pipeline.video import watchdog
from pipeline.video.decode import Undecodable
from pipeline.video.watchdog import WRITES, watching
from pipeline.views.flow import FLOW, IMPORTED, FlowSettings
from pipeline.views.rgb import RGB, ImportedRgbSettings

FRAMES_AT_ONCE = 64  # encoded and handed to the writer together
LAST_FLOW = "the flow of the last frame leads to no frame and is left out"
FIRST_FLOW = (
    "the flow of the first frame comes from no frame and is left out; all other flow leads to the frame of its number"
)
REENCODED = "frames that are no plain baseline colour JPEG of the video's size are encoded again"


@dataclass(frozen=True)
class Existing:
    """What to bring. fps: of the videos, for pictures know no time; 0 where it is not known. bound: see `settings`.

    alignment: of flow, where a video has as many flow pictures as frames; by default the pictures tell. guard: of what
    is read before the first video is stored, see `watchdog.watching`.
    """

    frames: Source
    flow: Source | None
    bound: float = 20.0
    fps: float = 0.0
    alignment: Alignment | Literal["auto"] = "auto"
    guard: AbstractContextManager[None] = field(default_factory=contextlib.nullcontext, compare=False)

    @functools.cached_property
    def aligned(self) -> Alignment | None:
        """The alignment that is taken; None where it makes no difference. Raises Refusal where it is not known."""
        if self.flow is None or self.alignment != "auto":
            return None if self.alignment == "auto" else self.alignment
        with self.guard:
            return alignment.find(self.frames, self.flow, list(self.videos), self.bound)

    @functools.cached_property
    def settings(self) -> ExtractionSettings:
        """Told apart from those of extraction by `imported` and by the estimator; short side 0, as sizes stay."""
        rgb = ImportedRgbSettings(short_side=0, quality=95, imported=self.frames.kind)
        if self.flow is None:
            return ExtractionSettings({RGB.name: rgb})
        # Nothing is said of the usual alignment, so that stores stay as they were.
        parameters = {"source": self.flow.kind} | ({"alignment": "second"} if self.aligned == "second" else {})
        flow = FlowSettings(IMPORTED, parameters, short_side=0, bound=self.bound, mapping="linear", quality=95)
        return ExtractionSettings({RGB.name: rgb, FLOW.name: flow})

    @functools.cached_property
    def videos(self) -> dict[str, None]:
        """Every video of frames or flow, in order: one that has only flow is to be told too."""
        return dict.fromkeys([*self.frames.videos, *(self.flow.videos if self.flow else ())])

    @property
    def place(self) -> Extracted:
        """For importers."""
        return Extracted(self.frames.path, list(self.videos))

    def has(self, video: Video) -> bool:
        return video.video_id in self.videos

    def stamp(self, video: Video) -> tuple[int, ...]:
        return tuple(source.stamp(video.video_id) for source in (self.frames, self.flow) if source)

    def differences(self, video: Video, stored: Stored) -> list[str]:
        if not self.has(video):
            return []
        try:
            with self.guard:
                pictures, pairs = _pictures(self, video.video_id, Counter())
                record = stored.record
                found = changes(record.get("file", {}), _identity([(picture,) for picture in pictures]))
                if self.flow is not None:
                    found += [f"flow {change}" for change in changes(record.get("flow_file", {}), _identity(pairs))]
        except Undecodable as error:
            return [error.reason]
        return found


@dataclass
class Brought:
    """What a run did. noted: what there is to know of videos that were stored -> how many, and the first of them."""

    summary: Summary
    noted: dict[str, tuple[int, str]] = field(default_factory=dict)


def manifest_of(existing: Existing, listed: Manifest | None = None) -> Manifest:
    """The rows of `listed`, found in the sources by their ids; without it every video, labelled with its folder.

    Rows come in the order in which videos are read fastest. One that the sources lack stays: it ends in quarantine.
    Videos that are not in `listed` are told in the notes. Raises Refusal when they have no video in common.
    """
    videos = existing.videos
    if listed is None:
        listed = folder.read(existing.place)
    if listed.rows and not {row.video_id for row in listed.rows} & set(videos):
        raise Refusal(
            f"no video of the manifest is here: it has {listed.rows[0].video_id!r} and so on,"
            f" here is {next(iter(videos))!r}",
            where=str(existing.frames.path),
            remedy="give the manifest of these videos, with ids like that",
        )
    known = {row.video_id for row in listed.rows}
    others = [video for video in videos if video not in known]
    told = f"left out, as the manifest lacks them: {counted(len(others), 'video')}" if others else ""
    notes = (f"{told}, the first is {others[0]}",) if told else ()
    order = {video: place for place, video in enumerate(videos)}
    rows = sorted(listed.rows, key=lambda row: order.get(row.video_id, len(order)))
    return Manifest(rows, listed.classes, (*listed.notes, *notes))


def bring(
    manifest: Manifest,
    existing: Existing,
    store: Path,
    workers: int,
    reproduce: str,
    retry_quarantined: bool = False,
    overwrite: bool = False,
    time_limit: float = 0.0,
) -> Brought:
    """Bring every video of the manifest into the store; do only what is missing; safe to repeat after any interruption.

    A video that is empty, or whose parts do not fit, lands in quarantine with its reason and with `reproduce`, the
    command that shows it again. overwrite: redo videos whose pictures have changed, and the whole store where it was
    made with other settings or other software; without it these are refused. time_limit: seconds that one picture may
    take to read, or the store to take what is written, until this process is ended: a disk that hangs cannot be broken
    off; 0 waits for ever. Raises Refusal when nothing can be done (what was just said) or nothing more.
    """
    began = time.perf_counter()
    with run_into(store, existing.settings, manifest, existing, retry_quarantined, overwrite) as found:
        todo, summary = found.todo, found.summary
        brought = Brought(summary)
        if todo:
            with (
                ExtractionBar(dict.fromkeys(todo, 1), summary.in_quarantine, "bring") as bar,
                journal(store, len(todo)) as kept,
                contextlib.closing(
                    _run(
                        functools.partial(_one, existing, store, reproduce, Patience(time_limit, bar.say)),
                        list(todo.values()),
                        workers,
                    )
                ) as outcomes,
            ):
                for outcome in noted(outcomes, store, kept, bar):
                    _count(brought, outcome)
    summary.wall = time.perf_counter() - began
    return brought


def _run(work: Callable[[Video], Outcome], todo: list[Video], workers: int) -> Generator[Outcome]:
    """Outcomes in the order of the rows, in which an LMDB lies on the disk. A run that stops early drops what is not
    begun."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(work, todo)
    finally:
        pool.shutdown(cancel_futures=True)


def _count(brought: Brought, outcome: Outcome) -> None:
    brought.summary.count(outcome)
    if outcome.note:
        number, first = brought.noted.get(outcome.note, (0, outcome.video_id))
        brought.noted[outcome.note] = number + 1, first


@dataclass(frozen=True)
class Patience:
    """With pictures that do not come and a store that takes nothing, as of a disk that hangs: both are told, and end
    this process after `time_limit` seconds; 0 waits for ever."""

    time_limit: float
    say: Callable[[str], None]

    def with_pictures(
        self, writer: VideoWriter, video: Video, stamp: tuple[int, ...], reproduce: str
    ) -> AbstractContextManager[AbstractContextManager[None]]:
        """The video then lands in quarantine, so that the next run goes on without it."""

        def end() -> None:
            reason = f"no further picture of it could be read for {self.time_limit:g} s"
            self.say(f"{video.video_id}: {reason}; this run ends, run the same command again to go on")
            give_up(writer, video, stamp, reproduce, reason)

        return watching(self.time_limit, end, tell=lambda: self._tell(f"{video.video_id}: no further picture was read"))

    def with_store(self, video: Video) -> AbstractContextManager[AbstractContextManager[None]]:
        def end() -> None:
            try:
                what = f"the store took nothing that was written for {self.time_limit:g} s"
                self.say(f"{video.video_id}: {what}; this run ends: mend its disk, and run the same command again")
            finally:
                os._exit(1)

        tell = functools.partial(self._tell, f"{video.video_id}: the store took nothing that was written")
        return watching(self.time_limit, end, WRITES, tell)

    def _tell(self, what: str) -> None:
        self.say(f"{what} for {watchdog.QUIET:g} s: its disk may hang")


def _one(existing: Existing, store: Path, reproduce: str, patience: Patience, video: Video) -> Outcome:
    notes: Counter[str] = Counter()
    stamp = existing.stamp(video)
    with patience.with_store(video) as writes:
        writer = VideoWriter(store, video.video_id, guard=writes)
        with patience.with_pictures(writer, video, stamp, reproduce) as reads:
            outcome = attempt(lambda: _store(existing, writer, video, notes, reads), writer, video, stamp, reproduce)
    if outcome.status == "stored":
        return dataclasses.replace(outcome, stamp=stamp, note="; ".join(sorted(notes)))
    return outcome


def _store(
    existing: Existing, writer: VideoWriter, video: Video, notes: Counter[str], reads: AbstractContextManager[None]
) -> Outcome:
    """Store one video whole, and count in `notes` what was done to its pictures beyond the usual. reads: guards what is
    read of it."""
    with reads:
        pictures, pairs = _pictures(existing, video.video_id, notes)
    views = existing.settings.views
    frames = BroughtFrames(views[RGB.name].frame_codec, find_cuts=existing.flow is not None)
    writer.begin()
    _add(writer, frames, [(picture,) for picture in pictures], reads)
    if frames.reencoded:
        notes[REENCODED] = frames.reencoded
    facts: dict[str, Any] = {
        "fps": existing.fps,
        "length": len(pictures),
        "file": {"path": existing.frames.place(video.video_id), **frames.identity},
        "settings_hash": settings_hash(existing.settings.as_dict()),
    }
    stored: list[BroughtFrames | BroughtFlow] = [frames]
    if existing.flow is not None and isinstance(settings := views[FLOW.name], FlowSettings):
        flow = BroughtFlow(settings, frames.frame_shape[:2])
        _add(writer, flow, pairs, reads)
        facts["flow_file"] = {"path": existing.flow.place(video.video_id), **flow.identity}
        facts["cuts"] = frames.cuts.found()
        stored.append(flow)
    facts["notes"] = dict(sorted(notes.items()))
    record = writer.commit(stored, facts)
    digest, source = record["digest"][:RECORD_DIGITS], frames.identity["sha256"]
    return Outcome(video.video_id, "stored", frames=len(pictures), record=digest, source=source)


def _pictures(existing: Existing, video: str, notes: Counter[str]) -> tuple[list[Jpeg], list[tuple[Jpeg, ...]]]:
    """The frames and the flow of each pair of them. Raises Undecodable where their numbers do not fit."""
    frames = list(existing.frames.frames(video))
    pairs = list(existing.flow.flow(video)) if existing.flow else []
    if not frames:
        flow = f", and flow of {len(pairs)} pairs" if pairs else ""
        raise Undecodable(f"it is empty: {existing.frames.path.name} has no frame of it{flow}", "open")
    if existing.flow is None:
        return frames, []
    if len(pairs) == len(frames):
        if existing.aligned is None and len(frames) > 1:
            raise Undecodable(
                f"it has {len(frames)} frames and as many flow pictures, other videos one less: say which pair of"
                " frames each picture is of, with `--alignment` and `--retry_quarantined true`",
                "open",
            )
        second = existing.aligned == "second"
        notes[FIRST_FLOW if second else LAST_FLOW] += 1
        del pairs[0 if second else -1]
    if len(pairs) != len(frames) - 1:
        raise Undecodable(
            f"{len(pairs)} flow pictures do not fit {len(frames)} frames: one less is right, and as many will do",
            "open",
        )
    return frames, pairs


def _add(
    writer: VideoWriter,
    view: BroughtFrames | BroughtFlow,
    pictures: Iterable[tuple[Jpeg, ...]],
    reads: AbstractContextManager[None],
) -> None:
    encoded = []
    for picture in pictures:
        with reads:
            loaded = tuple(jpegs.load(jpeg) for jpeg in picture)
        encoded.append(view.add(loaded))
        if len(encoded) == FRAMES_AT_ONCE:
            writer.add(view, encoded)
            encoded = []
    writer.add(view, encoded)


def _identity(pictures: Iterable[tuple[Jpeg, ...]]) -> dict[str, Any]:
    """Size and digest of pictures as the record has them."""
    origin = Origin()
    for picture in pictures:
        for jpeg in picture:
            origin.add(jpegs.load(jpeg))
    return origin.facts
