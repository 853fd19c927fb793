"""The feature bank: one vector per video, kept in HDF5 together with how it was made (docs/features.md)."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.manifest import SPLITS
from pipeline.storage import disk, sealed

ROWS = ("float32", "float16")  # what features may be kept as
AT_ONCE = 4096  # rows that are looked at together
CHUNK = 1 << 20  # bytes of a chunk of rows
PER_TEXT = 64  # bytes that a text takes in HDF5 beside its own, at most
BESIDE = 1 << 20  # bytes of what else an HDF5 file holds, without its attributes


def again() -> str:
    """What is done where banks are not what an evaluation leaves."""
    return f"evaluate again: {called.command('evaluate', run='', store='')}"


@dataclass(frozen=True)
class FeatureBank:
    """Features (N, D) float32 of N videos, each the mean over a video's clips. `labels` (N,) are class indices, -1 for
    none; `splits` and `video_ids` have N entries; `attributes` say how it was made."""

    stream: str
    features: np.ndarray
    video_ids: list[str]
    labels: np.ndarray
    splits: list[str]
    attributes: dict[str, Any]

    def rows(self, split: str) -> np.ndarray:
        """Indices of the labelled videos of a split."""
        return np.flatnonzero((np.array(self.splits) == split) & (self.labels >= 0))

    @classmethod
    def load(cls, path: Path) -> FeatureBank:
        """Raises Refusal for a file that is not a feature bank, or not as it was written."""
        with _opened(path) as (rows, others):
            return cls(features=rows.astype(np.float32)[()], **others)

    @staticmethod
    def facts_of(path: Path) -> tuple[dict[str, Any], list[str]]:
        """How a bank was made, and of which videos. Raises Refusal as `load` does; every byte is looked at, and no
        feature kept."""
        with _opened(path) as (_, others):
            return others["attributes"], others["video_ids"]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.Dataset, dict[str, Any]]]:
    """The rows of a bank, yet to be read, and all else of it. Raises Refusal."""
    try:
        if not sealed.check(path):
            raise ValueError("it does not end with its digest")
        with h5py.File(path, "r") as file:
            yield _checked(file, path.stat().st_size)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # HDF5's own too
        raise Refusal(f"not a feature bank: {error}", where=str(path), remedy=again()) from error


def _checked(file: h5py.File, size: int) -> tuple[h5py.Dataset, dict[str, Any]]:
    """size: of the file in bytes; no column is read that claims more. Raises ValueError, with the column's name."""
    attributes = {key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()}
    for name in ("stream", "dtype", "videos"):
        if not isinstance(attributes.get(name), str):
            raise ValueError(f"{name}: this is no text")
    stream, dtype = attributes["stream"], attributes["dtype"]
    if dtype not in ROWS:
        raise ValueError(f"dtype: {dtype!r} is none of {', '.join(ROWS)}")

    def column(name: str, kind: str, dimensions: int = 1) -> h5py.Dataset:
        # What leads to another file could be anything, and its bytes may never come.
        here = "/" not in name and isinstance(file.get(name, getlink=True), h5py.HardLink)
        found = file[name] if here else None
        if not isinstance(found, h5py.Dataset) or (found.dtype.name, found.ndim) != (kind, dimensions):
            raise ValueError(f"{name}: this is no column of {kind}")
        if found.external or found.is_virtual:
            raise ValueError(f"{name}: its values lie in another file")
        if found.nbytes > size:
            raise ValueError(f"{name}: it claims {found.nbytes:,} bytes, the file has {size:,}")
        return found

    rows, labels = column(stream, dtype, 2), column("label", "int64")[()]
    ids, splits = (list(column(name, "object").asstr()[()]) for name in ("video_id", "split"))
    if not len(rows) == len(labels) == len(ids) == len(splits):
        raise ValueError(f"{stream}: features of the shape {rows.shape} for {len(ids)} videos")
    for first in range(0, len(rows), AT_ONCE):
        if not np.isfinite(rows[first : first + AT_ONCE]).all():
            raise ValueError(f"{stream}: features that are not finite")
    if labels.min(initial=0) < -1:
        raise ValueError(f"label: {labels.min()} is no class")
    if strange := set(splits) - set(SPLITS):
        raise ValueError(f"split: {min(strange)!r} is none")
    others = {"stream": stream, "video_ids": ids, "labels": labels, "splits": splits, "attributes": attributes}
    return rows, others


def write(
    path: Path,
    stream: str,
    blocks: Iterable[np.ndarray],
    size: tuple[int, int],
    video_ids: Sequence[str],
    labels: np.ndarray,
    splits: Sequence[str],
    attributes: Mapping[str, Any],
) -> None:
    """Write a bank aside and rename it, so that a killed evaluation leaves no half bank. Raises Refusal.

    blocks: rows (n, D) in order, N in all, of `size` (N, D); all of one type, which is the file's. No more than one of
    them is in memory.

    What the file takes on the disk is reserved first: where a disk is full while HDF5 closes a file, it ends the
    process.
    """
    dtype = np.dtype(str(attributes["dtype"]))
    texts = sum(len(text.encode()) + PER_TEXT for text in (*video_ids, *splits))
    said = sum(len(str(value)) + len(name) + PER_TEXT for name, value in attributes.items())
    chunk = (min(max(1, CHUNK // (size[1] * dtype.itemsize)), size[0]), size[1])
    padded = -(-size[0] // chunk[0]) * chunk[0] * size[1] * dtype.itemsize
    room = padded + texts + said + 8 * size[0] + BESIDE
    with storage.writing("the features", path), disk.writing_aside(path) as aside:
        with _Reserved(aside, room) as raw, h5py.File(raw, "w") as file:
            rows = file.create_dataset(stream, size, dtype, chunks=chunk)
            first = 0
            for block in blocks:
                rows[first : first + len(block)] = block
                first += len(block)
            if first != size[0]:
                raise ValueError(f"{first} rows of {size[0]} were given")
            file.create_dataset("video_id", data=list(video_ids), dtype=h5py.string_dtype())
            file.create_dataset("label", data=np.asarray(labels, np.int64))
            file.create_dataset("split", data=list(splits), dtype=h5py.string_dtype())
            file.attrs.update(attributes)
        sealed.seal_file(aside)


class _Reserved(io.FileIO):
    """A new file whose space is there before it is written; what is not used is given back when it is closed."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path, "w+")
        self._used = 0
        os.posix_fallocate(self.fileno(), 0, room)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The end is that of what is used."""
        return super().seek(offset + self._used) if whence == os.SEEK_END else super().seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """What HDF5 says of the file's length."""
        self._used = self.tell() if size is None else size
        return self._used

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        total = len(left)
        while left:
            left = left[super().write(left) :]
        self._used = max(self._used, self.tell())
        return total

    def close(self) -> None:
        if not self.closed:
            super().truncate(self._used)
        super().close()
