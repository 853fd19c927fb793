"""The listing of a store in columns: what is known of each video, in arrays, so that ten million fit into memory.

A Python object a video would take ten times as much: here a video with an id of 50 letters takes about 110 bytes.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import counted, named
from pipeline.store import records
from pipeline.views import VIEWS

SHOWN = 5  # missing videos that are named
LOOKED_UP = 4096  # videos whose rows are remembered: those of the clips in work are asked for again and again


@dataclass(frozen=True)
class Form:
    """What many videos have in common.

    shapes: of each view's array, but for its first number: how many frames fewer than the video it has. partial: see
    `VideoInfo`. label, split: where the commit record has them, as it has in stores of schema 1; otherwise None. bound:
    whether shards carry `shard.mark`.
    """

    settings_hash: str
    shapes: dict[str, tuple[int, ...]]
    partial: str
    label: str | None
    split: str | None
    bound: bool = False

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Form:
        length = record["length"]
        shapes = {view: (length - frames, *frame) for view, (frames, *frame) in record["shapes"].items()}
        partial = record.get("partial", {}).get("reason", "")
        label, split, bound = record.get("label"), record.get("split"), record.get("bound", False)
        return cls(record["settings_hash"], shapes, partial, label, split, bound)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a stored frame of the first view, in the order of VIEWS."""
        name = next(name for name in VIEWS if name in self.shapes)
        return VIEWS[name].frame_size(self.shapes[name])

    @classmethod
    def parse(cls, text: str) -> Form:
        """Raises ValueError."""
        facts = records.parse_json(text)
        records.check(records.FormFacts, facts)
        return cls(**{**facts, "shapes": {view: tuple(shape) for view, shape in facts["shapes"].items()}})

    def __str__(self) -> str:
        told = {name: value for name, value in vars(self).items() if name != "bound" or value}  # as before there was it
        return json.dumps(told, sort_keys=True)


@dataclass(frozen=True, eq=False)
class VideoTable:
    """N videos, sorted by id.

    ids: strings (N,). lengths: frames of each, int32 (N,). fps: float64 (N,). digests: of the commit records, their
    first half, which tells them apart, uint8 (N, 16). forms: places in `kinds`, of the smallest type of whole numbers
    (N,). cuts: lists of int32 (N,), see `VideoInfo`. recorded_sources: strings (N,), recordings that commit records
    name, "" where that is the video itself; of none where no record names any. missing: ids of videos that should be
    there, by catalogue or inventory, and are not.
    """

    ids: pa.Array
    lengths: np.ndarray
    fps: np.ndarray
    digests: np.ndarray
    forms: np.ndarray
    kinds: list[Form]
    cuts: pa.Array
    recorded_sources: pa.Array
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def frames(self) -> np.ndarray:
        """Frames that all stored views have, so that a sample's do not depend on which are read; int32 (N,)."""
        return self.lengths - self.of_kinds(
            [max(lacking for lacking, *_ in kind.shapes.values()) for kind in self.kinds]
        )

    @property
    def heights(self) -> np.ndarray:
        """Of a stored frame of each video's first view, int32 (N,)."""
        return self.of_kinds([kind.frame_size[0] for kind in self.kinds])

    @property
    def widths(self) -> np.ndarray:
        """Of a stored frame of each video's first view, int32 (N,)."""
        return self.of_kinds([kind.frame_size[1] for kind in self.kinds])

    @property
    def partial(self) -> np.ndarray:
        """Whether only a part of the file could be read, bool (N,)."""
        return self.of_kinds([bool(kind.partial) for kind in self.kinds], bool)

    def seconds(self) -> float:
        """Of all videos whose rate is known."""
        known = self.fps > 0
        return float(np.sum(self.lengths[known] / self.fps[known]))

    def of_kinds(self, values: Sequence[Any], dtype: type = np.int32) -> np.ndarray:
        """What each video has (N,) of what each of the `kinds` has."""
        return np.array(values, dtype)[self.forms]

    @property
    def views(self) -> frozenset[str]:
        """Those that every video has; of no video, all that there are."""
        used = [self.kinds[number].shapes.keys() for number in np.unique(self.forms)]
        return frozenset(VIEWS).intersection(*used)

    def told_of_missing(self) -> str:
        """Which videos are gone, in a sentence; empty where none are."""
        if not self.missing:
            return ""
        names = named([repr(video_id) for video_id in self.missing], SHOWN)
        return (
            f"{counted(len(self.missing), 'stored video')} gone that nobody removed by a command: {names}"
            " (`verify` lists them; extraction brings them back, `remove` says that it was meant)"
        )

    def kind(self, row: int) -> Form:
        return self.kinds[self.forms[row]]

    def shapes(self, row: int) -> dict[str, tuple[int, ...]]:
        """Of the arrays of a video's views, (frames, ...)."""
        length = int(self.lengths[row])
        return {view: (length - lacking, *frame) for view, (lacking, *frame) in self.kind(row).shapes.items()}

    def id(self, row: int) -> str:
        return self.ids[int(row)].as_py()

    def names(self, rows: np.ndarray) -> list[str]:
        """The ids of many videos."""
        return self.ids.take(pa.array(rows)).to_pylist()

    def rows(self, video_ids: Iterable[str]) -> np.ndarray:
        """The places of videos, int64 (M,), -1 for those that are not here."""
        return np.array([self.row(video_id) for video_id in video_ids], np.int64)

    def row(self, video_id: str) -> int:
        """The place of a video; -1 where it is not here."""
        return self._look_up(video_id)

    @cached_property
    def _look_up(self) -> Callable[[str], int]:
        return lru_cache(LOOKED_UP)(self._search)

    def _search(self, video_id: str) -> int:
        row = bisect.bisect_left(range(len(self)), video_id, key=self.id)
        return row if row < len(self) and self.id(row) == video_id else -1
