"""The listing of a store in columns: what is known of each video, in arrays, so that ten million videos fit into memory.

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

LOOKED_UP = 4096  # videos whose rows are remembered: those of the clips in work are asked for again and again


@dataclass(frozen=True)
class Form:
    """What many videos have in common.

    shapes: of each view's array, but for its first number: how many frames fewer than the video it has. partial: see
    `VideoInfo`. label, split: where the commit record has them, as it has in stores of schema 1; otherwise None.
    """

    settings_hash: str
    shapes: dict[str, tuple[int, ...]]
    partial: str
    label: str | None
    split: str | None

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Form:
        length = record["length"]
        shapes = {view: (length - frames, *frame) for view, (frames, *frame) in record["shapes"].items()}
        partial = record.get("partial", {}).get("reason", "")
        return cls(record["settings_hash"], shapes, partial, record.get("label"), record.get("split"))

    @classmethod
    def parse(cls, text: str) -> Form:
        facts = json.loads(text)
        return cls(**{**facts, "shapes": {view: tuple(shape) for view, shape in facts["shapes"].items()}})

    def __str__(self) -> str:
        return json.dumps(vars(self), sort_keys=True)


@dataclass(frozen=True, eq=False)
class VideoTable:
    """N videos, sorted by id.

    ids: strings (N,). lengths: frames of each, int32 (N,). fps: float64 (N,). digests: of the commit records, uint8
    (N, 32). forms: int32 (N,), places in `kinds`. cuts: lists of int32 (N,), see `VideoInfo`. recorded_sources: strings
    (N,), recordings that commit records name, "" where they name none or the video itself.
    """

    ids: pa.Array
    lengths: np.ndarray
    fps: np.ndarray
    digests: np.ndarray
    forms: np.ndarray
    kinds: list[Form]
    cuts: pa.Array
    recorded_sources: pa.Array

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def frames(self) -> np.ndarray:
        """Frames that every stored view has, so that a sample's frames do not depend on which views are read; int32 (N,)."""
        return self.lengths - self.of_kinds(
            [max(lacking for lacking, *_ in kind.shapes.values()) for kind in self.kinds]
        )

    @property
    def heights(self) -> np.ndarray:
        """Of a stored rgb frame, int32 (N,)."""
        return self.of_kinds([kind.shapes["rgb"][1] for kind in self.kinds])

    @property
    def widths(self) -> np.ndarray:
        """Of a stored rgb frame, int32 (N,)."""
        return self.of_kinds([kind.shapes["rgb"][2] for kind in self.kinds])

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
