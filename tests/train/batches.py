"""Loaders over small stores, and comparison of what they give."""

from __future__ import annotations

import threading
from typing import Any

import torch

from pipeline.store import VideoStore
from train.augment import policy
from train.loader import Batch, ClipLoader, ClipSettings

CLIPS = ClipSettings(length=4, stride=1, size=(16, 16))


def make(store: VideoStore, **changes: Any) -> ClipLoader:
    given: dict[str, Any] = {
        "videos": store.videos,
        "reads": {"rgb": (0, 1), "flow": (0, 1)},
        "clips": CLIPS,
        "policy": policy("small", flip=0.5),
        "batch": 4,
        "seed": 5,
        "executor": "opencv",
        "threads": 1,
    }
    return ClipLoader(store, **(given | changes))


def epochs(loader: ClipLoader, count: int) -> list[Batch]:
    batches = [batch for _ in range(count) for batch in loader]
    loader.close()
    return batches


def leaves(batch: Batch) -> dict[str, torch.Tensor]:
    found = {"labels": batch.labels, "sources": batch.sources, "index": batch.index}
    for name, streams in (("clips", batch.clips), ("affine", batch.affine)):
        for stream, views in streams.items():
            found |= {f"{name}.{stream}.{number}": tensor for number, tensor in views.items()}
    return found


def assert_same(one: list[Batch], two: list[Batch]) -> None:
    assert len(one) == len(two) > 0
    for first, second in zip(one, two, strict=True):
        first_leaves, second_leaves = leaves(first), leaves(second)
        assert first_leaves.keys() == second_leaves.keys()
        for name, tensor in first_leaves.items():
            assert torch.equal(tensor, second_leaves[name]), name


def joined(parts: list[Batch]) -> Batch:
    """The slices of the ranks, in rank order, as one batch."""
    merged = {name: torch.cat([leaves(part)[name] for part in parts]) for name in leaves(parts[0])}
    views = {
        kind: {stream: {view: merged[f"{kind}.{stream}.{view}"] for view in range(2)} for stream in ("rgb", "flow")}
        for kind in ("clips", "affine")
    }
    return Batch(views["clips"], views["affine"], merged["labels"], merged["sources"], merged["index"])


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("clips", "reader"))}
