"""How the frames of a batch lie in memory: RGB interleaved in one plane, every other view in gray planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from train.augment import ClipPlan
from train.reader.kernels import COLOURS


@dataclass(frozen=True)
class Planes:
    """P planes of C interleaved channels; one of the two is 1.

    sizes: (height, width) of the stored frames of each clip.
    """

    count: int
    channels: int
    sizes: list[tuple[int, int]]

    def shown(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (B, P, T, h, w * C) as `Executor.run` gives them, without a copy."""
        if self.channels == 1:
            return clips
        return clips[:, 0].unflatten(-1, (-1, self.channels)).permute(0, 4, 1, 2, 3)


def refuse_uneven(view: str, plans: Sequence[ClipPlan]) -> None:
    """Raises UsageError where pixels are to be made as published of bytes that are not even steps."""
    if any(plan.pixels.published for plan in plans):
        raise UsageError(
            f"the bytes of {view} are not even steps, on which the steps of the papers' code work",
            where="clips.pixels: published",
            remedy="a store whose flow was extracted with --flow.mapping linear, or clips.pixels: ours",
        )


def planes_of(store: VideoStore, view: str, plans: Sequence[ClipPlan]) -> Planes:
    """Raises Refusal for a video or view that is not stored, and ValueError where videos differ in their planes."""
    shapes = [store.shape(plan.video_id, view) for plan in plans]
    if store.layout(view) == "rgb":
        return Planes(1, COLOURS, [(height, width) for _, height, width, _ in shapes])
    counts = {shape[1] for shape in shapes}
    if len(counts) != 1:
        raise ValueError(f"videos differ in the planes of their view {view!r}: {sorted(counts)}")
    return Planes(counts.pop(), 1, [(height, width) for _, _, height, width in shapes])
