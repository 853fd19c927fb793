"""Batches of pairs of any sizes on a GPU, in a launch or two a level; what `tvl1-cuda` does where it is `fused`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.flow.kernels import triton_mixed
from pipeline.flow.launching import Quantise, brought, device, empty, new_stream, run
from pipeline.flow.tvl1 import OwnTVL1, level_sizes

ALIGNED = 16  # pixels: planes begin where Triton's kernels expect them, however many pixels the pairs before have
Group = tuple[np.ndarray, np.ndarray]  # first and second frames of pairs of one size, gray uint8 (n, H, W)


class Mixed:
    """Solves batch after batch on a stream of its own, in memory that grows to what the largest of them takes.

    That is 18 planes of H x W floats a pair (14.5 in half precision). Nothing is recorded, as there is nothing to
    record: sizes are numbers in a table.
    """

    def __init__(self, parameters: OwnTVL1, half_precision: bool = False) -> None:
        self.parameters, self.stream = parameters, new_stream()
        self.floats = torch.empty(0, device=device())
        self.small = torch.empty(0, device=device(), dtype=torch.float16 if half_precision else torch.float32)
        self.places, self.counts = np.empty((0, 0, 5), np.int64), torch.empty(0, 0)

    def launch(self, groups: Sequence[Group], quantise: Quantise | None = None) -> Callable[[], list[np.ndarray]]:
        """Begin to compute the flow of pairs (n, 2, H, W), group by group, or the bytes that `quantise` makes of it;
        what is returned waits for it. Raises torch.OutOfMemoryError."""
        with torch.cuda.stream(self.stream):
            collect = brought(self.solved(*self.staged(groups)), quantise)
        shapes = [(len(first), 2, *first.shape[1:]) for first, _ in groups]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

        def each() -> list[np.ndarray]:
            parts = np.split(collect(), ends[:-1])
            return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

        return each

    def pixel_iterations(self) -> int:
        """How many pixels the inner loop has gone over in the last batch, all iterations of all pairs together."""
        return int((self.counts.cpu().numpy() * self.places[:, :, 3] * self.places[:, :, 4]).sum())

    def staged(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor, Tensor, int]:
        """Frames of all pairs on the device, bytes (2, N), the tables `places` and `thresholds` of `triton_mixed`, and
        how many pixels the pairs have; N is the next multiple of ALIGNED."""
        self.places, limits = self._tables(groups)
        pixels = sum(first.size for first, _ in groups)
        frames = empty((2, -(-pixels // ALIGNED) * ALIGNED), torch.uint8)
        for staged, given in zip(frames.numpy(), zip(*groups, strict=True), strict=True):
            np.concatenate([each.reshape(-1) for each in given], out=staged[:pixels])
        places, thresholds = _sent(torch.from_numpy(self.places)), _sent(torch.from_numpy(limits))
        return _sent(frames), places, thresholds, pixels

    def solved(self, frames: Tensor, places: Tensor, thresholds: Tensor, pixels: int) -> Tensor:
        """The flow of what `staged` gave, pair behind pair, u before v ; on a GPU it is yet to come."""
        parameters, room = self.parameters, frames.shape[1]
        pyramids = 2 * int((self.places[:, :, 3] * self.places[:, :, 4]).sum())
        floats, small = self._room(pyramids + 6 * room, 7 * room)
        flows, gradients, images = floats.split([4 * room, 2 * room, pyramids])
        data, duals = small.split([3 * room, 4 * room])
        count, most = self.places.shape[:2]
        self.counts = torch.zeros(count, most, device=device(), dtype=torch.int32)
        shape: dict[str, Any] = {"LEVELS": most, "STEP": 1 / parameters.scale_step}
        run(triton_mixed.begin_pairs, count, 1, frames, images, places, room, **shape)
        for level in reversed(range(int((self.places[:, :, 3] > 0).sum(axis=1).max()))):
            run(triton_mixed.begin_level, count, 1, images, flows, gradients, duals, places, level, room, **shape)
            run(
                triton_mixed.solve_level, count, 1,
                images, flows, gradients, data, duals, places, thresholds, self.counts, level, room,
                parameters.warps, parameters.outer_iterations, parameters.inner_iterations,
                parameters.max_iterations_per_warp,
                parameters.lambda_ * parameters.theta, parameters.theta, parameters.tau / parameters.theta,
                LEVELS=most, MEDIAN=parameters.median_filtering > 1,
            )  # fmt: skip
        return flows[: 2 * pixels]

    def _room(self, floats: int, small: int) -> tuple[Tensor, Tensor]:
        """So much memory, which what was launched before on this stream may still be using."""
        if self.floats.numel() < floats:
            self.floats = self.floats.new_empty(0)  # so that what is there makes room for what takes its place
            self.floats = self.floats.new_empty(floats)
        if self.small.numel() < small:
            self.small = self.small.new_empty(0)
            self.small = self.small.new_empty(small)
        return self.floats[:floats], self.small[:small]

    def _tables(self, groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
        """`places` and `thresholds` of `triton_mixed`."""
        most, square = self.parameters.nscales, self.parameters.epsilon * self.parameters.epsilon
        sizes = [level_sizes(first.shape[1:], self.parameters) for first, _ in groups]
        pairs = [len(first) for first, _ in groups]
        places = np.zeros((len(groups), most, triton_mixed.NUMBERS.value), np.int64)
        thresholds = np.zeros((len(groups), most), np.float32)
        for group, each in enumerate(sizes):
            places[group, : len(each), 3:] = each
            thresholds[group, : len(each)] = [square * height * width for height, width in each]
        places = np.repeat(places, pairs, axis=0)
        areas = places[:, :, 3] * places[:, :, 4]
        places[:, :, 0] = (np.cumsum(areas[:, 0]) - areas[:, 0])[:, None]
        ends = np.cumsum(np.repeat(areas, 2, axis=1)).reshape(len(places), most, 2)  # both frames of every level
        places[:, :, 1:3] = ends - areas[:, :, None]
        return places, np.repeat(thresholds, pairs, axis=0)


def _sent(host: Tensor) -> Tensor:
    """A copy on the device, for which nothing waits."""
    if device().type != "cuda":
        return host
    return (host if host.is_pinned() else host.pin_memory()).to(device(), non_blocking=True)
