"""The feature bank: one vector per video, kept in HDF5 together with how it was made (docs/features.md)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.storage import disk, sealed

CHUNK = 1 << 20  # bytes of a chunk of rows
PER_TEXT = 64  # bytes that a text takes in HDF5 beside its own, at most
BESIDE = 1 << 20  # bytes of what else an HDF5 file holds, without its attributes


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
        try:
            if not sealed.check(path):
                raise ValueError("it does not end with its digest")
            with h5py.File(path, "r") as file:
                stream = file.attrs["stream"]
                ids, splits = (list(file[name].asstr()[()]) for name in ("video_id", "split"))
                features = file[stream].astype(np.float32)[()]
                return cls(stream, features, ids, file["label"][()], splits, _attributes(file))
        except (OSError, KeyError, ValueError) as error:
            raise _no_bank(path, error) from error

    @staticmethod
    def attributes_of(path: Path) -> dict[str, Any]:
        """How a bank was made. Raises Refusal as `load` does; every byte is looked at, and no feature kept."""
        try:
            if not sealed.check(path):
                raise ValueError("it does not end with its digest")
            with h5py.File(path, "r") as file:
                return _attributes(file)
        except (OSError, KeyError, ValueError) as error:
            raise _no_bank(path, error) from error


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


def _attributes(file: h5py.File) -> dict[str, Any]:
    return {key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()}


def _no_bank(path: Path, error: Exception) -> Refusal:
    return Refusal(f"not a feature bank: {error}", where=str(path), remedy="evaluate again: make evaluate")
