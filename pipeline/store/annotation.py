"""What people say of a store's videos: class, recording and split, apart from what extraction stored.

Stores of schema 1 keep them in the commit records, and their classes in `classes.txt`.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.manifest import SPLITS
from pipeline.store import classes, columns
from pipeline.store.table import VideoTable

NO_LABEL = -1
AT_ONCE = 65_536  # videos that a digest takes in together


@dataclass(frozen=True, eq=False)
class Annotated:
    """What a set says of the N videos of a table, in its rows.

    classes: names in the data set's official order. labels: places in it, int32 (N,), -1 without. splits: places in
    `pipeline.manifest.SPLITS`, int8 (N,). recordings: sorted names of those that are more than the one video that was cut from
    them. recorded: places in it, int32 (N,), -1 where the video is its own recording.
    """

    table: VideoTable
    classes: list[str]
    labels: np.ndarray
    splits: np.ndarray
    recordings: list[str]
    recorded: np.ndarray

    @cached_property
    def sources(self) -> np.ndarray:
        """Number of each video's recording, int32 (N,): equal ones are one, and they rise with the recordings' names."""
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

    def label(self, row: int) -> str:
        return self.classes[self.labels[row]] if self.labels[row] != NO_LABEL else ""

    def source(self, row: int) -> str:
        return self.recordings[self.recorded[row]] if self.recorded[row] >= 0 else self.table.id(row)

    def split(self, row: int) -> str:
        return SPLITS[self.splits[row]]


def of_records(root: Path, table: VideoTable) -> Annotated:
    """The set that a store of schema 1 was extracted with."""
    named = sorted({kind.label for kind in table.kinds if kind.label})
    listed = classes.load(root)
    names = named if listed is None else listed
    labels = table.of_kinds([names.index(kind.label) if kind.label in names else NO_LABEL for kind in table.kinds])
    splits = table.of_kinds([SPLITS.index(kind.split or "") for kind in table.kinds], np.int8)
    recordings = [name for name in sorted(table.recorded_sources.unique().to_pylist()) if name]
    recorded = pc.index_in(table.recorded_sources, pa.array(recordings, pa.string())).fill_null(-1).to_numpy()
    return Annotated(table, names, labels, splits, recordings, recorded)


def numbered(table: VideoTable, recordings: Sequence[str], recorded: np.ndarray) -> np.ndarray:
    """Numbers of recordings, int32 (N,), that rise with their names, among which are the ids of videos that stand alone.

    recordings: sorted. A video that is its own recording has the number of its row and of the named recordings that come
    before it; those are numbered in between.
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
