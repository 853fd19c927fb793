"""The feature bank: one vector per video, kept in HDF5 together with how it was made."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.storage import sealed


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

    def save(self, path: Path) -> None:
        """Write aside, then rename, so that a killed evaluation leaves no half bank. Raises Refusal.

        HDF5 itself writes to memory: where the disk is full while it closes a file, it ends the process.
        """
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            file.create_dataset(self.stream, data=self.features.astype(np.float32))
            file.create_dataset("video_id", data=self.video_ids, dtype=h5py.string_dtype())
            file.create_dataset("label", data=self.labels.astype(np.int64))
            file.create_dataset("split", data=self.splits, dtype=h5py.string_dtype())
            file.attrs.update(self.attributes)
        with storage.writing("the features", path):
            storage.write_atomically(path, sealed.seal(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> FeatureBank:
        """Raises Refusal for a file that is not a feature bank, or not as it was written."""
        try:
            if not sealed.check(path):
                raise ValueError("it does not end with its digest")
            with h5py.File(path, "r") as file:
                attributes = {
                    key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()
                }
                stream = attributes["stream"]
                ids, splits = (list(file[name].asstr()[()]) for name in ("video_id", "split"))
                return cls(stream, file[stream][()], ids, file["label"][()], splits, attributes)
        except (OSError, KeyError, ValueError) as error:
            raise Refusal(
                f"not a feature bank: {error}", where=str(path), remedy="evaluate again: make evaluate"
            ) from error
