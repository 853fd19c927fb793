"""What the JSON files of a store say: one model for each kind, which every reader of that kind checks it by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.manifest import SPLITS
from pipeline.store.shard import FRAMES_PER_SHARD
from pipeline.validation import Count, Digest, Facts, check, parse_json
from pipeline.views import VIEWS

__all__ = ["check", "parse_json"]

Frames = Annotated[int, Field(ge=0, lt=2**31)]
Shape = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=2, max_length=8)]
FASTEST = 2**31 - 1  # frames a second that a container can say
Rate = Annotated[float, Field(ge=0, le=FASTEST)]
Moment = Annotated[float, Field(ge=0, le=2**53)]  # seconds since 1970
Stamp = list[int]


class Root(Facts):
    """Of the store's own zarr.json."""

    version: int = Field(alias="schema", ge=1)
    settings: dict[str, dict[str, Any]]
    settings_hash: str
    software: dict[str, str]


class SourceFile(Facts):
    bytes: Count = 0
    sha256: str = ""


class Partial(Facts):
    reason: str
    readable: Count = 0


class CommitRecord(Facts):
    """Of a stored video. label, source and split are there in stores of schema 1; bound: shards carry `shard.mark`."""

    video_id: Annotated[str, Field(min_length=1)]
    length: Frames
    fps: Rate
    settings_hash: str
    shapes: Annotated[dict[str, Shape], Field(min_length=1)]
    files: dict[str, Digest]
    digest: Digest
    file: SourceFile = SourceFile()
    cuts: list[Frames] = []
    partial: Partial | None = None
    label: str = ""
    source: str = ""
    split: Literal[*SPLITS] = ""  # type: ignore[valid-type]
    bound: bool = False

    @model_validator(mode="after")
    def _can_be_shown(self) -> CommitRecord:
        if not self.shapes.keys() & VIEWS.keys():
            raise ValueError(f"it has none of the views {', '.join(VIEWS)}")
        for name, (_, *frame) in self.shapes.items():
            if name in VIEWS and (len(frame) != 3 or min(frame) < 1):
                raise ValueError(f"frames of {name} cannot be of the shape {frame}")
        if self.cuts != sorted(set(self.cuts)) or (self.cuts and self.cuts[-1] >= self.length):
            raise ValueError("its cuts are not places between frames, one after the other")
        return self


class Refused(Facts):
    """Of a video in quarantine."""

    video_id: Annotated[str, Field(min_length=1)]
    reason: str
    stage: str
    reproduce: str
    stamp: Stamp = []


class RunBegan(Facts):
    """The first line of a journal."""

    time: Moment
    videos: Count


class RunDid(Facts):
    """Any other line of a journal."""

    time: Moment
    video_id: str
    frames: Frames


class RunStored(Facts):
    """A line of a journal that tells of which bytes a record was made."""

    video_id: str
    record: str
    source: str


class FormFacts(Facts):
    """Of what many videos in a catalogue have in common."""

    settings_hash: str
    shapes: Annotated[dict[str, Annotated[list[int], Field(min_length=4, max_length=4)]], Field(min_length=1)]
    partial: str
    label: str | None
    split: Literal[*SPLITS] | None  # type: ignore[valid-type]
    bound: bool = False


class AnnotationsHead(Facts):
    """The first line of an annotation set."""

    classes: list[str]
    digest: Digest


class Inventory(Facts):
    """Of a store, see `inventory`. quarantine: quoted ids."""

    videos: Count = 0
    quarantine: list[str] = []
    in_hand: list[str] = []
    lost: list[str] = []


class AnnotationNames(Facts):
    """Of the annotation sets that were written."""

    names: list[str] = []


def contradictions(record: dict[str, Any]) -> Iterator[str]:
    """What a commit record says against itself."""
    shapes = record["shapes"]
    counts = {
        name: (shapes[name][0], view.stored_frames(record["length"])) for name, view in VIEWS.items() if name in shapes
    }
    if wrong := [f"{stored} of {name}, not {wanted}" for name, (stored, wanted) in counts.items() if stored != wanted]:
        yield f"{record['length']} frames were decoded, and it has {', '.join(wrong)}"
    for name, (stored, _) in counts.items():
        parts = sum(file.startswith(f"{name}/c/") for file in record["files"])
        if stored > parts * FRAMES_PER_SHARD:  # who plans clips of them would take memory for frames that are nowhere
            yield f"it has {stored} frames of {name}, and {parts} shards of {FRAMES_PER_SHARD} at most"
