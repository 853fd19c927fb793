"""What an annotation set says of a store's videos, in columns beside those of the table."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import called
from pipeline.errors import Refusal, UsageError, counted, refuse_unknown
from pipeline.manifest import SPLITS
from pipeline.store import annotation, classes, columns, inventory, layout
from pipeline.store.annotation import AnnotationSet, Said
from pipeline.store.table import VideoTable

NO_LABEL = -1
AT_ONCE = 65_536  # videos that a digest takes in together


@dataclass(frozen=True, eq=False)
class Annotated:
    """What a set says of the N videos of a table, in its rows.

    absent: how many videos the set has that the store lacks. left_out: the reverse: they have no label and no split.
    classes: names in the data set's official order. labels: places in it, int32 (N,), -1 without. splits: places in
    `pipeline.manifest.SPLITS`, int8 (N,). recordings: sorted names of those that are more than the one video that was
    cut from them. recorded: places in it, int32 (N,), -1 where the video is its own recording.
    """

    table: VideoTable
    name: str
    digest: str
    classes: list[str]
    labels: np.ndarray
    splits: np.ndarray
    recordings: list[str]
    recorded: np.ndarray
    absent: int = 0
    left_out: int = 0

    @cached_property
    def sources(self) -> np.ndarray:
        """Number of each video's recording, int32 (N,): equal ones are one; they rise with the recordings' names."""
        return numbered(self.table, self.recordings, self.recorded)

    def digest_of(self, rows: np.ndarray) -> str:
        """Of these videos, byte for byte, and all that the set says of them; rows int64 (M,)."""
        hashed = hashlib.sha256()
        classes, recordings = pa.array(["", *self.classes], pa.string()), pa.array(["", *self.recordings], pa.string())
        for first in range(0, len(rows), AT_ONCE):
            part = rows[first : first + AT_ONCE]
            said = {
                "video_id": self.table.ids.take(pa.array(part)).cast(pa.string()),
                "label": classes.take(pa.array(self.labels[part] + 1)),
                "source": recordings.take(pa.array(self.recorded[part] + 1)),
                "split": pa.array(self.splits[part]),
            }
            columns.digest_into(hashed, pa.RecordBatch.from_pydict(said))
            hashed.update(self.table.digests[part])
        return hashed.hexdigest()[:16]

    def count_splits(self) -> dict[str, int]:
        """How many videos each split has, for people."""
        numbers = np.bincount(self.splits, minlength=len(SPLITS)).tolist()
        return {name or "no split": number for name, number in zip(SPLITS, numbers, strict=True) if number}

    def as_set(self) -> AnnotationSet:
        """As it would be written, of the videos of the table."""
        recordings, classes = [*self.recordings, ""], [*self.classes, ""]
        rows = zip(self.labels.tolist(), self.recorded.tolist(), self.splits.tolist(), strict=True)
        said = (Said(classes[label], recordings[source], SPLITS[split]) for label, source, split in rows)
        return AnnotationSet(self.classes, dict(zip(self.table.ids.to_pylist(), said, strict=True)))

    def told(self) -> str:
        """Which videos only one of set and store has, in a sentence; empty where there are none."""
        absent, left_out = counted(self.absent, "video"), counted(self.left_out, "video")
        one = f"not in the store: {absent} of the annotation set {self.name!r}"
        other = f"without label and split, as the annotation set {self.name!r} lacks them: {left_out} of the store"
        return "; ".join(sentence for sentence, number in ((one, self.absent), (other, self.left_out)) if number)

    def without_split(self) -> str:
        """That there are labels and no split, which leaves no video for a test, in a sentence; or empty."""
        if not (self.labels != NO_LABEL).any() or (self.splits != SPLITS.index("")).any():
            return ""
        return (
            f"no video has a split, though there are labels: of {len(self.table)} none is kept for a test"
            " (`annotate` gives or makes a split)"
        )

    def without_recordings(self) -> str:
        """That each video is its own recording, in a sentence; or empty."""
        if self.recordings or not len(self.table):
            return ""
        return "each video is its own recording: where several were cut from one, they are taken for strangers"

    def label(self, row: int) -> str:
        return self.classes[self.labels[row]] if self.labels[row] != NO_LABEL else ""

    def source(self, row: int) -> str:
        return self.recordings[self.recorded[row]] if self.recorded[row] >= 0 else self.table.id(row)

    def split(self, row: int) -> str:
        return SPLITS[self.splits[row]]


def choose(root: Path, table: VideoTable, name: str = "") -> Annotated:
    """What the set of that name says; without a name that of extraction, or the only one there is.

    Raises UsageError where there is no such set, or several that could be meant, and Refusal where it is gone.
    """
    recorded = any(kind.label is not None for kind in table.kinds)
    written = layout.annotations_written(root)
    gone = set(inventory.annotation_sets(root)) - {*written, *([annotation.EXTRACTION] if recorded else [])}
    known = sorted({*written, *gone, *([annotation.EXTRACTION] if recorded else [])})
    if name and name not in known:
        refuse_unknown("annotation set", name, known, where=str(root))
    if not name and len(known) > 1 and annotation.EXTRACTION not in known:
        raise UsageError(
            f"the store has several annotation sets: {', '.join(known)}",
            where=str(root),
            remedy="say which of them is meant: --annotations NAME",
        )
    name = name or (annotation.EXTRACTION if annotation.EXTRACTION in known else "".join(known))
    if name in gone:
        raise Refusal(
            f"the annotation set {name!r} is gone",
            where=str(layout.annotations_path(root, name)),
            remedy="restore it from a copy; or write it again:"
            f" `{called.command('annotate', store='', manifest='', name='')}`",
        )
    if name in written:
        return _of_set(root, name, table)
    return _of_records(root, table) if recorded else _nothing(table)


def of_extraction(root: Path, table: VideoTable, listed: AnnotationSet) -> AnnotationSet:
    """The set that extraction keeps; empty where there is none yet.

    Of a store of schema 1 what its records say, and of videos that are not stored what is listed.
    """
    if annotation.EXTRACTION in layout.annotations_written(root):
        return annotation.load(root, annotation.EXTRACTION)
    if all(kind.label is None for kind in table.kinds):
        return AnnotationSet([], {})
    recorded = _of_records(root, table).as_set()
    return AnnotationSet(recorded.classes, listed.said | recorded.said)


def _of_set(root: Path, name: str, table: VideoTable) -> Annotated:
    said, opened = _nothing(table), annotation.OpenSet(root, name)
    classes = {label: place for place, label in enumerate(opened.classes)} | {"": NO_LABEL}
    splits = {split: place for place, split in enumerate(SPLITS)}
    recordings: dict[str, int] = {"": -1}
    recorded = said.recorded
    first = absent = known = 0
    for batch in opened.batches():
        rows, first = _rows(table, batch.column("video_id"), first)
        here = np.flatnonzero(rows >= 0)
        rows, known, absent = rows[here], known + len(here), absent + len(rows) - len(here)
        for source in batch.column("source").unique().to_pylist():
            recordings.setdefault(source, len(recordings) - 1)
        said.labels[rows] = _coded(batch.column("label"), classes)[here]
        said.splits[rows] = _coded(batch.column("split"), splits)[here]
        if len(recordings) > 1 and not recorded.flags.writeable:
            recorded = recorded.copy()  # most sets name none
        if recorded.flags.writeable:
            recorded[rows] = _coded(batch.column("source"), recordings)[here]
    del recordings[""]
    order = np.argsort(np.array(list(recordings), object), kind="stable")
    ranks = np.append(np.argsort(order), -1).astype(np.int32)  # the last one is that of -1
    return dataclasses.replace(
        said,
        name=name,
        digest=opened.digest,
        classes=opened.classes,
        recordings=sorted(recordings),
        recorded=ranks[recorded] if recordings else recorded,
        absent=absent,
        left_out=len(table) - known,
    )


def _rows(table: VideoTable, ids: pa.Array, first: int) -> tuple[np.ndarray, int]:
    """Rows of sorted ids, -1 for those that are not there, and of what comes after them; none is before row `first`."""
    last = bisect.bisect_right(range(len(table)), ids[-1].as_py(), lo=first, key=table.id)
    window, ids = table.ids[first:last], ids.cast(table.ids.type)
    if window.equals(ids):  # as most are: no search is needed
        return np.arange(first, last), last
    places = pc.index_in(ids, value_set=window)
    return pc.fill_null(pc.add(places, first), -1).to_numpy(), last


def _coded(column: pa.Array, codes: dict[str, int]) -> np.ndarray:
    """The code of every string."""
    encoded = column.dictionary_encode()
    return np.array([codes[text] for text in encoded.dictionary.to_pylist()])[encoded.indices.to_numpy()]


def _nothing(table: VideoTable) -> Annotated:
    """A store without annotations."""
    labels = np.full(len(table), NO_LABEL, np.int32)
    splits = np.full(len(table), SPLITS.index(""), np.int8)
    return Annotated(table, "", "", [], labels, splits, [], _none_recorded(table), left_out=len(table))


def _none_recorded(table: VideoTable) -> np.ndarray:
    """-1 for every video, which takes no memory."""
    return np.broadcast_to(np.int32(-1), len(table))


def _of_records(root: Path, table: VideoTable) -> Annotated:
    """The set that a store of schema 1 was extracted with: from its commit records and `classes.txt`."""
    named = sorted({kind.label for kind in table.kinds if kind.label})
    listed = classes.load(root)
    names = named if listed is None else listed
    labels = table.of_kinds([names.index(kind.label) if kind.label in names else NO_LABEL for kind in table.kinds])
    splits = table.of_kinds([SPLITS.index(kind.split or "") for kind in table.kinds], np.int8)
    recordings = [name for name in sorted(table.recorded_sources.unique().to_pylist()) if name]
    recorded = _none_recorded(table)
    if recordings:
        recorded = pc.index_in(table.recorded_sources, pa.array(recordings, pa.string())).fill_null(-1).to_numpy()
    said = Annotated(table, annotation.EXTRACTION, "", names, labels, splits, recordings, recorded)
    return dataclasses.replace(said, digest=said.digest_of(np.arange(len(table))))


def numbered(table: VideoTable, recordings: Sequence[str], recorded: np.ndarray) -> np.ndarray:
    """Numbers of recordings, int32 (N,), that rise with their names; of a video that stands alone that is its id.

    recordings: sorted. A video that is its own recording has the number of its row and of the named recordings that
    come before it; those are numbered in between.
    """
    alone = np.arange(len(table), dtype=np.int32)
    if not recordings:
        return alone
    rows = [table.row(name) for name in recordings]
    others = [name for name, row in zip(recordings, rows, strict=True) if row < 0]  # no video has such an id
    before = np.array([bisect.bisect_left(range(len(table)), name, key=table.id) for name in others], np.int32)
    alone += np.searchsorted(before, alone, side="right").astype(np.int32)
    between = iter(before + np.arange(len(before), dtype=np.int32))
    numbers = np.array([next(between) if row < 0 else alone[row] for row in rows], np.int32)
    return np.where(recorded >= 0, numbers[recorded], alone)
