"""TV-L1 on a CPU, ours: the flow of `tvl1-opencv`, bit for bit, at a tenth of its time (docs/methods.md 1.1).

Where OpenCV makes about nine passes over twenty planes an iteration, `kernels.inner` makes one; `kernels.warp` samples
three planes at once; `kernels.median` shares what neighbouring windows have in common. Pyramids and resizing are
OpenCV's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from pipeline.flow.estimator import FlowEstimator, gray
from pipeline.flow.kernels import VECTOR, kernel, whole_vectors
from pipeline.flow.kernels.inner import iterate
from pipeline.flow.kernels.median import median5
from pipeline.flow.kernels.warp import interleave, interleaved_size, warp
from pipeline.flow.tvl1 import SMALLEST, OwnTVL1, level_sizes

_PLANES = 13  # ix iy rho, squared gradient, changes of u, u1 u2 and their medians, p11 p12 p21 p22


@dataclass
class TVL1CPU(OwnTVL1, FlowEstimator):
    """Equal to `tvl1-opencv` in every bit, on CPUs with fused multiply-add (x86-64 since 2013, every 64-bit ARM).

    One thread; the GIL is free while it runs. The first use on a machine compiles for half a minute, later ones load
    that.
    """

    name: ClassVar[str] = "tvl1-cpu"
    software: ClassVar[tuple[str, ...]] = ("numba",)

    def prepare(self) -> None:
        none = np.zeros((1, SMALLEST, SMALLEST), np.uint8)
        self.batch(none, none)

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        cv2.setNumThreads(1)
        planes = np.empty(_PLANES * _plane_size(*first.shape[1:3]), np.float32)
        interleaved = np.empty(interleaved_size(*first.shape[1:3]), np.float32)
        pairs = zip(gray(first), gray(second), strict=True)
        return np.stack([self._pair(one, two, planes, interleaved) for one, two in pairs])

    def _pair(self, first: np.ndarray, second: np.ndarray, planes: np.ndarray, interleaved: np.ndarray) -> np.ndarray:
        firsts, seconds = self._pyramid(first), self._pyramid(second)
        flow, scale = np.zeros((2, *firsts[-1].shape), np.float32), 1.0
        for level in reversed(range(len(firsts))):
            height, width = firsts[level].shape
            threshold = float(np.float32(self.epsilon * self.epsilon * height * width))
            u, v = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in flow)
            flow = _solve(
                firsts[level], seconds[level], u, v, scale, planes, interleaved,
                np.float32(self.lambda_ * self.theta), np.float32(self.theta), np.float32(self.tau / self.theta),
                threshold, self.warps, self.outer_iterations, self.inner_iterations, self.max_iterations_per_warp,
                self.median_filtering > 1,
            )  # fmt: skip
            scale = 1 / self.scale_step
        return flow

    def _pyramid(self, frame: np.ndarray) -> list[np.ndarray]:
        levels: list[np.ndarray] = [frame.astype(np.float32)]
        for _ in level_sizes(frame.shape, self)[1:]:
            step = self.scale_step
            levels.append(cv2.resize(levels[-1], None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR))
        return levels


def _plane_size(height: int, width: int) -> int:
    """Floats of a plane: a row more than the image, and rows of whole vectors with one vector of padding."""
    return (height + 1) * (-(-width // VECTOR) + 1) * VECTOR


@kernel
def _solve(
    first, second, u, v, scale, space, interleaved, limit, theta, step, threshold, warps, outer, inner, most, median
):  # pragma: no cover - compiled
    """Flow of one level, (2, height, width), from that of the coarser one at this size, u and v, times `scale`."""
    height, width = first.shape
    stride = whole_vectors(width) + VECTOR
    size = (height + 1) * stride
    planes = space[: _PLANES * size].reshape((_PLANES, height + 1, stride))
    planes[:] = 0  # the duals start at zero on each level and go on from warp to warp
    ix, iy, rho, squared, changes, u1, u2, v1, v2, p11, p12, p21, p22 = planes
    for y in range(height):
        for x in range(width):
            u1[y, x] = np.float64(u[y, x]) * scale  # rounded once, as by OpenCV
            u2[y, x] = np.float64(v[y, x]) * scale
    interleave(second, height, width, interleaved)
    for _ in range(warps):
        warp(first, interleaved, u1, u2, height, width, ix, iy, rho, squared)
        settled = False
        left = most
        for _ in range(outer):
            if settled or left == 0:
                break
            if median:
                median5(u1, height, width, v1)
                median5(u2, height, width, v2)
                u1, v1 = v1, u1
                u2, v2 = v2, u2
            count, settled = iterate(
                ix, iy, rho, squared, u1, u2, p11, p12, p21, p22, changes,
                height, width, limit, theta, step, threshold, min(inner, left),
            )  # fmt: skip
            left -= count
    solved = np.empty((2, height, width), np.float32)
    solved[0] = u1[:height, :width]
    solved[1] = u2[:height, :width]
    return solved
