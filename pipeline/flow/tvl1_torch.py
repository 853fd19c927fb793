"""TV-L1 in plain PyTorch, on any device: the readable statement of what the compiled implementations compute.

The operations are those of `tvl1-cpu` in the same order, so its flow differs only where the stop test's sum, here taken
in double precision, falls on the other side of the threshold than OpenCV's, which adds pixel after pixel in single.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.flow.estimator import FlowEstimator, gray
from pipeline.flow.tvl1 import OwnTVL1, level_sizes, linear_taps

FLAT = 1.1920929e-07  # where the squared gradient is no more than this, there is no data term


@dataclass
class TVL1Torch(OwnTVL1, FlowEstimator):
    """The oracle: slower than `tvl1-opencv` on a CPU.

    Args:
        device: What PyTorch calls the device to compute on.
    """

    name: ClassVar[str] = "tvl1-torch"
    RUNNING: ClassVar[frozenset[str]] = frozenset({"device"})
    software: ClassVar[tuple[str, ...]] = ("torch",)

    device: str = "cpu"

    def open(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            problem = f"PyTorch cannot compute on the device {self.device!r}: {error}"
            raise UsageError(problem, remedy="name another device, such as cpu") from error

    @torch.no_grad()
    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        firsts, seconds = self._pyramid(first), self._pyramid(second)
        flow = torch.zeros(len(first), 2, *firsts[-1].shape[1:], device=self.device)
        for level in reversed(range(len(firsts))):
            flow, _ = self.solve(firsts[level], seconds[level], flow)
            if level:
                flow = enlarge(flow, firsts[level - 1].shape[1:], self.scale_step)
        return flow.cpu().numpy()

    def _pyramid(self, frames: np.ndarray) -> list[Tensor]:
        levels = [torch.tensor(gray(frames), dtype=torch.float32, device=self.device)]
        for size in level_sizes(frames.shape[1:3], self)[1:]:
            levels.append(resize(levels[-1], size, (1 / self.scale_step, 1 / self.scale_step)))
        return levels

    def solve(self, first: Tensor, second: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Flow of one level from `flow` (B, 2, H, W), that of the coarser one; with each pair's iterations, (B,)."""
        duals = flow.new_zeros(len(flow), 2, 2, *flow.shape[2:])  # [pair, component of u, direction]; warps share them
        iterations = torch.zeros(len(flow), dtype=torch.int64, device=flow.device)
        planes = torch.stack([second, *gradients(second)], dim=1)
        for _ in range(self.warps):
            gradient, rho = linearise(first, planes, flow)
            active = torch.arange(len(flow), device=flow.device)
            left = self.max_iterations_per_warp
            for _ in range(self.outer_iterations):
                if not len(active) or not left:
                    break
                u = median5(flow[active]) if self.median_filtering > 1 else flow[active]
                most = min(self.inner_iterations, left)
                u, p, count, settled = self.iterate(gradient[active], rho[active], u, duals[active], most)
                flow[active], duals[active] = u, p
                iterations[active] += count
                active = active[~settled]
                left -= most
        return flow, iterations

    def iterate(
        self, gradient: Tensor, rho: Tensor, u: Tensor, p: Tensor, most: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Iterations of each pair until its squared changes of u sum to the threshold at most, `most` at most.

        Returns u, the duals, how many iterations each pair took and which pairs settled. A settled pair stays as it is.
        """
        threshold = float(np.float32(self.epsilon * self.epsilon * rho.shape[1] * rho.shape[2]))
        u, p = u.clone(), p.clone()
        count = torch.zeros(len(u), dtype=torch.int64, device=u.device)
        active = torch.arange(len(u), device=u.device)
        for _ in range(most):
            changed = new_flow(gradient[active], rho[active], u[active], p[active], self.lambda_, self.theta)
            change = ((changed - u[active]) ** 2).sum(dim=1)
            u[active] = changed
            p[active] = new_duals(changed, p[active], self.tau / self.theta)
            count[active] += 1
            active = active[change.double().sum(dim=(1, 2)) > threshold]
            if not len(active):
                break
        settled = torch.ones(len(u), dtype=torch.bool, device=u.device)
        settled[active] = False
        return u, p, count, settled


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c in float32 with one rounding (a second one shows only in sums that lie between two floats exactly)."""
    return (a.double() * b.double() + c.double()).float()


def resize(planes: Tensor, size: tuple[int, ...], scale: tuple[float, float]) -> Tensor:
    """OpenCV's bilinear resize of (..., H, W), without a low-pass filter; scale: old pixels per new pixel, down and
    across."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    for axis in (-1, -2):
        length = planes.shape[axis]
        taps = linear_taps(length, size[axis], scale[axis])
        index, distance = (torch.from_numpy(values).to(planes.device) for values in taps)
        left = planes.index_select(axis, index)
        right = planes.index_select(axis, (index + 1).clamp(max=length - 1))
        planes = fused(right - left, distance if axis == -1 else distance[:, None], left)
    return planes


def enlarge(flow: Tensor, size: tuple[int, ...], step: float) -> Tensor:
    """The flow (B, 2, h, w) of a level as the next finer one's first guess, (B, 2, H, W)."""
    resized = resize(flow, size, (flow.shape[-2] / size[0], flow.shape[-1] / size[1]))
    return (resized.double() * (1 / step)).float()


def gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of (B, H, W), across and down, with repeated borders."""
    edge = torch.nn.functional.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return 0.5 * (edge[:, 1:-1, 2:] - edge[:, 1:-1, :-2]), 0.5 * (edge[:, 2:, 1:-1] - edge[:, :-2, 1:-1])


def cubic_weights(x: Tensor) -> tuple[Tensor, ...]:
    """Cubic convolution with a = -0.75 at fraction x; the roundings are those of OpenCV 5's remap."""
    rest, squared = 1 - x, x * x
    first = -0.75 * (x * (rest * rest))
    last = -0.75 * (rest * squared)
    second = fused(fused(torch.full_like(x, 1.25), x, torch.full_like(x, -2.25)), squared, torch.ones_like(x))
    return first, second, ((1 - first) - second) - last, last


def sample(planes: Tensor, flow: Tensor) -> Tensor:
    """planes (B, C, H, W) at x + u: bicubic, zero outside the image."""
    pairs, channels, height, width = planes.shape
    x = torch.arange(width, device=flow.device, dtype=torch.float32) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None] + flow[:, 1]
    x, y = x.clamp(-3, width + 1), y.clamp(-3, height + 1)  # from there on all taps are outside
    across, down = cubic_weights(x - x.floor()), cubic_weights(y - y.floor())
    left, top = x.floor().long() - 1, y.floor().long() - 1
    flat = planes.flatten(2)

    def tap(row: int, column: int) -> Tensor:
        inside = (top + row >= 0) & (top + row < height) & (left + column >= 0) & (left + column < width)
        index = (top + row).clamp(0, height - 1) * width + (left + column).clamp(0, width - 1)
        values = flat.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
        return values.view_as(planes) * inside[:, None]

    def weighted(weights: tuple[Tensor, ...], values: list[Tensor]) -> Tensor:
        total = weights[0][:, None] * values[0]
        for weight, value in zip(weights[1:], values[1:], strict=True):
            total = fused(weight[:, None], value, total)
        return total

    return weighted(down, [weighted(across, [tap(row, column) for column in range(4)]) for row in range(4)])


def linearise(first: Tensor, planes: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The data term about the flow: the gradient (B, 2, H, W) and the constant part rho (B, H, W) of the residual.

    planes: the second image and its two gradients, (B, 3, H, W).
    """
    image, ix, iy = sample(planes, flow).unbind(1)
    rho = ((image - ix * flow[:, 0]) - iy * flow[:, 1]) - first
    return torch.stack([ix, iy], dim=1), rho


def median5(planes: Tensor) -> Tensor:
    """5 x 5 median of (B, C, H, W), borders repeated."""
    edge = torch.nn.functional.pad(planes, (2, 2, 2, 2), mode="replicate")
    return edge.unfold(2, 5, 1).unfold(3, 5, 1).flatten(4).median(dim=-1).values


def new_flow(gradient: Tensor, rho: Tensor, u: Tensor, p: Tensor, lambda_: float, theta: float) -> Tensor:
    """u + d + theta div p; d is the thresholded step along the gradient."""
    ix, iy = gradient.unbind(1)
    squared = ix * ix + iy * iy
    limit = float(np.float32(lambda_ * theta))
    residual = rho + (ix * u[:, 0] + iy * u[:, 1])
    step = torch.where(squared > FLAT, -residual / squared, 0.0)
    step = torch.where(residual > limit * squared, -limit, step)
    step = torch.where(residual < -(limit * squared), limit, step)
    return (u + step[:, None] * gradient) + float(np.float32(theta)) * divergence(p)


def divergence(p: Tensor) -> Tensor:
    """Backward differences, (B, 2, H, W) of (B, 2, 2, H, W); zero outside. The sums are OpenCV's: the first column's
    differ."""
    across, down = p.unbind(2)
    above = torch.nn.functional.pad(down, (0, 0, 1, 0))[..., :-1, :]
    result = (across + down) - above
    result[..., 1:] = (across[..., 1:] - across[..., :-1]) + (down[..., 1:] - above[..., 1:])
    return result


def new_duals(u: Tensor, p: Tensor, step: float) -> Tensor:
    """(p + step grad u) / (1 + step |grad u|), by forward differences; zero beyond the last row and column."""
    step = float(np.float32(step))
    grad = torch.zeros_like(p)
    grad[:, :, 0, :, :-1] = u[..., 1:] - u[..., :-1]
    grad[:, :, 1, :-1] = u[..., 1:, :] - u[..., :-1, :]
    length = grad.double().square().sum(dim=2, keepdim=True).sqrt().float()
    return (p + step * grad) / (1 + step * length)
