"""What each run did, video by video: times do not belong into records that are to be equal from run to run."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.extraction.job import Outcome
from pipeline.store.records import RunBegan, RunDid, RunStored
from pipeline.store.table import VideoTable
from pipeline.store.writing import writing_to
from pipeline.validation import check, parse_json

SECONDS_A_PART = 30.0


@dataclass
class Summary:
    """What a run did. `seconds` sums the workers' time by kind of work; `wall` is the run's own."""

    stored: int = 0
    skipped: int = 0
    frames: int = 0
    partial: dict[str, str] = field(default_factory=dict)  # of the stored ones: video id -> why its end is missing
    quarantined: dict[str, str] = field(default_factory=dict)
    annotated: int = 0  # of how many videos the manifest says something else than before
    in_quarantine: int = 0  # refused by earlier runs and left alone by this one
    lost: tuple[str, ...] = ()  # gone, and not brought back by this run
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


class Journal:
    """The journal of one run into a store: `STORE/journal/TIME-HOST-PID-PART.jsonl`, begun with the first video.

    The first line tells of the run, each other one of a video. A local file gets every line at once. An object cannot
    be appended to: there, lines are kept and written as another part every half a minute.
    """

    def __init__(self, store: Path, videos: int) -> None:
        began = time.time()
        self.run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(began))}-{socket.gethostname()}-{os.getpid()}"
        self.folder = _folder(store)
        self.part = 0
        self.lines = [{"run": self.run, "time": round(began, 3), "videos": videos}]
        self.written = began

    def add(self, outcome: Outcome) -> None:
        """Add a line for one video. Raises OSError."""
        self.lines.append({"time": round(time.time(), 3), **vars(outcome)})
        if storage.is_local(self.folder) or time.time() - self.written > SECONDS_A_PART:
            self.write()

    def write(self) -> None:
        """Write what is kept, if it tells of a video. Raises OSError."""
        if not any("video_id" in line for line in self.lines):
            return
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)
        path = self.folder / f"{self.run}-{self.part:05d}.jsonl"
        if storage.is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8", opener=storage.open_own) as file:
                file.write(text)
        else:
            storage.write(path, text.encode())
            self.part += 1
        self.lines, self.written = [], time.time()


@contextlib.contextmanager
def journal(store: Path, videos: int) -> Iterator[Journal]:
    """The journal of a run with so many videos to do; whole when the block ends. Raises Refusal where it cannot be."""
    kept = Journal(store, videos)
    try:
        yield kept
    except BaseException:
        with contextlib.suppress(OSError):  # what ended the run, a full disk perhaps, is what is to be told
            kept.write()
        raise
    with writing_to(store):
        kept.write()


@dataclass(frozen=True)
class Run:
    """What a run's journal tells. began: seconds since 1970. todo: videos that it set out to do."""

    began: float
    todo: int
    videos: int
    frames: int
    seconds: float


def journals(store: Path) -> list[tuple[str, int]]:
    """Names and sizes of the journals of all runs, in their order."""
    return sorted((file.path.name, file.size) for file in storage.files_below(_folder(store)))


def last_run(store: Path) -> Run | None:
    """The run that wrote into the store last; None where no journal is. Raises Refusal for one that cannot be read."""
    files = sorted((file.path for file in storage.files_below(_folder(store))), key=lambda path: path.name)
    if not files:
        return None
    name = files[-1].name.rpartition("-")[0]
    parts = [path for path in files if path.name.rpartition("-")[0] == name]
    try:
        text = "".join(storage.read(path).decode() for path in parts)
        # A line that a kill cut off ends the journal.
        head, *lines = [parse_json(line) for line in text.split("\n")[:-1]]
        check(RunBegan, head)
        for line in lines:
            check(RunDid, line)
        return Run(
            began=head["time"],
            todo=head["videos"],
            videos=len(lines),
            frames=sum(line["frames"] for line in lines),
            seconds=max((line["time"] for line in lines), default=head["time"]) - head["time"],
        )
    except (OSError, ValueError) as error:
        raise Refusal(
            "the journal of the last run cannot be read",
            where=str(parts[0]),
            remedy="it may be deleted; it only tells how fast the run was",
        ) from error


def origins(store: Path) -> dict[tuple[str, str], tuple[int, ...]]:
    """(Video id, digest of its record) -> stamp of the source that it was made of, as the journals tell.

    A line that cannot be read tells nothing, and what a run did that left no journal is not known.
    """
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for told in _lines(store):
        with contextlib.suppress(LookupError, TypeError):
            found[told["video_id"], told["record"]] = tuple(told["stamp"])
    return found


def same_bytes(store: Path, table: VideoTable) -> list[list[str]]:
    """The ids of stored videos that were made of equal bytes, group by group, as far as the journals tell."""
    made: dict[str, tuple[str, str]] = {}  # video id -> digests of its record and its source, of the last run
    for told in _lines(store):
        with contextlib.suppress(ValueError):
            check(RunStored, told)
            made[told["video_id"]] = told["record"], told["source"]
    of_source = defaultdict(list)
    for video_id, (record, source) in made.items():
        if source:
            of_source[source].append((video_id, record))
    groups = []
    for videos in of_source.values():
        if len(videos) > 1:
            there = [
                video_id
                for video_id, record in videos
                if (row := table.row(video_id)) >= 0 and table.digests[row].tobytes().hex() == record
            ]
            groups += [sorted(there)] if len(there) > 1 else []
    return sorted(groups)


def _lines(store: Path) -> Iterator[Any]:
    """Every line of every journal, in the order of the runs, that can be read."""
    for file in sorted(storage.files_below(_folder(store)), key=lambda file: file.path.name):
        content = b""
        with contextlib.suppress(OSError):  # what is no file tells nothing
            content = storage.read_if_there(file.path) or b""
        for line in content.splitlines():
            with contextlib.suppress(ValueError):
                yield parse_json(line)


def _folder(store: Path) -> Path:
    return store / "journal"
