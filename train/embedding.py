"""Rows of videos while their network is trained: one clip of each, cut as evaluation does, shared out over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, distributed

from train.augment import ClipPlan, Draws, Policy
from train.clips.streams import BoundStream
from train.hardware.collectives import gather_rows, world_size
from train.inference import BATCH, clip_features
from train.networks.network import Network
from train.reader import Executor
from train.training_set import Videos


class OneClipEach:
    """Plans of one clip of each video, each made when it is asked for.

    bound: the stream that is shown. policy: of evaluation. frames_of: a video's number of frames -> those of its clip.
    """

    def __init__(
        self, videos: Videos, bound: BoundStream, policy: Policy, frames_of: Callable[[int], np.ndarray]
    ) -> None:
        self.videos, self.bound, self.policy, self.frames_of = videos, bound, policy, frames_of

    def __len__(self) -> int:
        return len(self.videos)

    def plan(self, number: int) -> ClipPlan:
        frames, stream = self.frames_of(int(self.videos.frames[number])), self.bound.stream
        size = self.videos.frame_size(number)
        pixels = self.policy.pixels({stream.name: self.bound}, size, len(frames), Draws(0))
        return ClipPlan(self.videos.id(number), frames, stream, pixels[stream.name])


def rows_of(network: Network, clips: OneClipEach, reader: Executor, layer: str, unit: bool = True) -> Tensor:
    """A layer's row of each video (N, D), of length 1 or as it is, on the network's device.

    Every rank computes its share, and gets all of them.
    """
    ranks, rank = world_size(), distributed.get_rank() if world_size() > 1 else 0
    share = -(-len(clips) // ranks)

    def mine() -> Iterator[ClipPlan]:
        for place in range(rank * share, (rank + 1) * share):
            yield clips.plan(place % len(clips))  # the last ranks do some twice

    own = torch.cat([rows for _, (rows,) in clip_features([network], mine(), reader, layer, BATCH, unit)])
    return gather_rows(own.to(next(network.parameters()).device))[: len(clips)]
