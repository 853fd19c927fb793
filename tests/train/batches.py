"""Loaders over small stores, and comparison of what they give."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.store import VideoStore
from train import reader
from train.augment import policy
from train.batches.batch import Batch, Part
from train.batches.loader import ClipLoader
from train.batches.planning import Planner, Reading
from train.clips.spec import ClipSpec
from train.order import OrderSettings
from train.sampling.random import Random
from train.training_set import TrainingSet, Videos

CLIPS = ClipSpec(length=4, stride=1, size=(16, 16))


def training_set(store: VideoStore, videos: Sequence[str] | None = None, **settings: Any) -> TrainingSet:
    """Of these videos, or of all of the store."""
    rows = np.array([row for row, video in enumerate(store.videos) if videos is None or video in videos], np.int64)
    return TrainingSet(Videos(store.annotated, rows), str(store.root), **settings)


def make(
    store: VideoStore,
    videos: Sequence[str] | None = None,
    order: OrderSettings = OrderSettings(),  # noqa: B008  (frozen)
    batch: int = 4,
    seed: int = 5,
    accumulate: int = 1,
    executor: str = "opencv",
    threads: int = 1,
    rank: int = 0,
    world_size: int = 1,
    **changes: Any,
) -> ClipLoader:
    """changes: of what is read, and whether `pin`."""
    given = {"clips": CLIPS, "sampling": Random(), "policy": policy("small", flip=0.5)}
    given |= {"reads": {"rgb": (0, 1), "flow": (0, 1)}, "pin": False} | changes
    reading = Reading(given["clips"], given["sampling"], given["policy"], given["reads"], seed)
    drop = given["sampling"].short == "drop"
    used = training_set(store, videos, least=given["sampling"].least(given["clips"]), drop=drop)
    made = used.order(order, batch, seed, accumulate)
    planner = Planner(reading, used, store.settings)
    return ClipLoader(planner, made, reader.create(executor, store, threads), rank, world_size, given["pin"])


def part(batch: Batch, stream: str, number: int) -> Part:
    """What all rows of a clip are made of."""
    [only] = batch.parts[stream][number]
    return only


def epochs(loader: ClipLoader, count: int) -> list[Batch]:
    batches = [batch for _ in range(count) for batch in loader]
    loader.close()
    return batches


def leaves(batch: Batch) -> dict[str, torch.Tensor]:
    found = {name: getattr(batch, name) for name in ("labels", "sources", "index", "groups")}
    for stream, numbers in batch.parts.items():
        for number in numbers:
            made = part(batch, stream, number)
            found |= {f"clips.{stream}.{number}": made.clips, f"affine.{stream}.{number}": made.affine}
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
    rows = torch.arange(len(merged["index"]))
    views = {
        stream: {n: [Part(rows, *(merged[f"{kind}.{stream}.{n}"] for kind in ("clips", "affine")))] for n in range(2)}
        for stream in ("rgb", "flow")
    }
    return Batch(views, *(merged[name] for name in ("labels", "sources", "index", "groups")))


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("clips", "reader"))}
