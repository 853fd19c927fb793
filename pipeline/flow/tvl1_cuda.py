"""TV-L1 on an NVIDIA GPU, ours, in Triton: many pairs at once, each of which stops by itself (docs/methods.md 1.5).

All launches of a batch are known beforehand: how long a pair iterates is decided on the GPU, and launches that come too
late for a settled pair return at once. So they are recorded once for each size of frames, as a CUDA graph, and nothing
waits for the host in between. Frames and flow pass through page-locked memory on the launches' own stream, so that the
host prepares the next batch while the GPU is at work on this one. Or a level is one launch (`mixed`).
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.flow.estimator import FlowEstimator, gray
from pipeline.flow.tvl1 import OwnTVL1, level_sizes

try:
    import triton

    from pipeline.flow.kernels import triton_inner, triton_median, triton_pyramid, triton_warp
    from pipeline.flow.launching import Quantise, brought, device, empty, new_stream, run
    from pipeline.flow.mixed import Group, Mixed
except ModuleNotFoundError as missing:
    problem = f"tvl1-cuda needs Triton, which cannot be imported here: {missing}"
    raise UsageError(problem, remedy="use tvl1-cpu; Triton comes for Linux on x86-64") from missing

OLDEST = (8, 0)  # compute capability; what the kernels are compiled for in the tests
SOLVERS = 8  # kept, so that videos of a few sizes, and last batches, do not record their launches again and again


def available() -> bool:
    """Whether there is a GPU that the kernels are made for, and what Triton needs to start them."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < OLDEST:
        return False
    return not lacking()


def lacking() -> list[str]:
    """What Triton would miss at its first launch: there it compiles a module of Python's in C (its `runtime.build`)."""
    missing = []
    if "CC" not in os.environ and not any(shutil.which(compiler) for compiler in ("gcc", "clang")):
        missing.append("a C compiler (gcc or clang; on Debian and Ubuntu the package gcc)")
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    header = Path(sysconfig.get_paths(scheme)["include"], "Python.h")
    if not header.is_file():
        missing.append(f"{header} (on Debian and Ubuntu the package python3-dev)")
    return missing


@dataclass
class TVL1CUDA(OwnTVL1, FlowEstimator):
    """As `tvl1-cpu` but for the order of one sum, and rare last bits of square roots; on the current CUDA device.

    Args:
        batch_size: Pairs computed at once, at most; a GPU of 132 multiprocessors is full from about 512. It is halved
            for frames of a size for which the GPU's memory does not suffice.
        half_precision: Store duals and data term in half precision and compute in single: 38 bytes to move instead of
            60. At 128 x 171 this moves the flow by .004 to .007 px on average on real clips and .07 px on synthetic
            ones (rounding emulated in PyTorch), less than what changing one pixel in a hundred by 1 does (.008, .009
            and .09 px).
        fused: One launch a level of the pyramid, in which each pair ends by itself and whose pairs may be of several
            sizes, in place of a hundred, each of which waits for its slowest pair, and which are recorded for each
            size. The same flow, bit for bit; which is faster no GPU has told yet.
        streams: Batches computed at the same time, so that others are at work while one waits for its last pairs. Each
            has memory of its own.
        bytes_back: Make bytes of flow on the GPU where bytes are wanted, a quarter of what comes back. The same bytes.
    """

    name: ClassVar[str] = "tvl1-cuda"
    RUNNING: ClassVar[frozenset[str]] = frozenset({"batch_size", "fused", "streams", "bytes_back"})
    sees_colour: ClassVar[bool] = False

    device = "cuda"
    software: ClassVar[tuple[str, ...]] = ("torch",)  # which brings its Triton

    batch_size: int = 512
    half_precision: bool = False
    fused: bool = False
    streams: int = 1
    bytes_back: bool = False
    # One for each stream, in the order in which they are next.
    _solvers: OrderedDict[tuple[int, ...], deque[Solver]] = field(default_factory=OrderedDict, init=False, repr=False)
    _lanes: deque[Mixed] = field(default_factory=deque, init=False, repr=False)
    _fitting: dict[tuple[int, ...], int] = field(default_factory=dict, init=False, repr=False)  # pairs by frame size
    _most_pixels: float = field(default=float("inf"), init=False, repr=False)  # of a launch, where `fused`

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("half_precision", "fused", "bytes_back"):
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"{name} {value!r} is neither true nor false")

    def open(self) -> None:
        if not triton.knobs.runtime.interpret and not torch.cuda.is_available():
            remedy = "use tvl1-cpu here, or see what `nvidia-smi` and PyTorch's installation say"
            raise UsageError("tvl1-cuda needs an NVIDIA GPU, and PyTorch finds none on this machine", remedy=remedy)

    def prepare(self) -> None:
        self.try_out()

    def remedy(self) -> str:
        if missing := lacking():
            return f"install {' and '.join(missing)}, with which Triton compiles its first launch; or use tvl1-cpu"
        return super().remedy()

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self.launch(first, second)()

    def launch(self, first: np.ndarray, second: np.ndarray) -> Callable[[], np.ndarray]:
        collect = self.launch_groups([(first, second)])
        return lambda: collect()[0]

    @property
    def mixes_sizes(self) -> bool:
        return self.fused

    def launch_groups(
        self, groups: Sequence[Group], quantise: Quantise | None = None
    ) -> Callable[[], list[np.ndarray]]:
        groups = [(gray(first), gray(second)) for first, second in groups]
        if self.fused:
            return self._mixed(groups, quantise)
        first, second = (np.concatenate(each) for each in zip(*groups, strict=True))
        launched, start = [], 0
        while start < len(first):
            solvers = self._ready(len(first), first.shape[1:])
            part = slice(start, start + solvers[0].pairs)
            launched.append(solvers[0].launch(first[part], second[part], quantise))
            solvers.rotate(-1)
            start = part.stop
        ends = np.cumsum([len(each) for each, _ in groups])[:-1]
        return lambda: np.split(_together([collect() for collect in launched]), ends)

    def _mixed(self, groups: Sequence[Group], quantise: Quantise | None) -> Callable[[], list[np.ndarray]]:
        """In halves where they are more pairs than `batch_size`, or take more memory than there is."""
        pairs, pixels = sum(len(first) for first, _ in groups), sum(first.size for first, _ in groups)
        if pairs == 1 or (pairs <= self.batch_size and pixels <= self._most_pixels):
            if not self._lanes:
                self._lanes.extend(Mixed(self, self.half_precision) for _ in range(self.streams))
            try:
                self._lanes.rotate(-1)
                return self._lanes[0].launch(groups, quantise)
            except torch.OutOfMemoryError as error:
                if pairs == 1:
                    raise _too_large(groups[0][0].shape[1:]) from error
                self._most_pixels = pixels - 1
        if len(groups) > 1:
            half = len(groups) // 2
            some, others = (self._mixed(part, quantise) for part in (groups[:half], groups[half:]))
            return lambda: some() + others()
        ((first, second),) = groups
        parts = (slice(pairs // 2), slice(pairs // 2, None))
        launched = [self._mixed([(first[part], second[part])], quantise) for part in parts]
        return lambda: [np.concatenate([collect()[0] for collect in launched])]

    def _ready(self, pairs: int, size: tuple[int, ...]) -> deque[Solver]:
        """Solvers, one a stream, for this many pairs or up to twice as many, so that last batches of all lengths share
        a few of them.

        Where memory does not suffice for them, first those of other sizes go, then they are for half as many pairs.
        """
        while True:
            capacity = min(self._fitting.get(size, self.batch_size), triton.next_power_of_2(pairs))
            key = (capacity, *size)
            if key not in self._solvers:
                self._forget(SOLVERS - 1)
                try:
                    made = (Solver(self, capacity, size, self.half_precision) for _ in range(self.streams))
                    self._solvers[key] = deque(made)
                except torch.OutOfMemoryError as error:
                    if not self._solvers and capacity == 1:
                        raise _too_large(size) from error
            if key in self._solvers:
                self._solvers.move_to_end(key)
                return self._solvers[key]
            if self._solvers:  # out of the `except`, whose traceback holds what the failed ones got
                self._forget(0)
            else:
                self._fitting[size] = capacity // 2

    def _forget(self, keep: int) -> None:
        """Drop the solvers that were used longest ago, once nothing that was launched needs them."""
        if len(self._solvers) > keep and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        while len(self._solvers) > keep:
            self._solvers.popitem(last=False)


def _together(parts: list[np.ndarray]) -> np.ndarray:
    """Without a copy where it is one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _too_large(size: tuple[int, ...]) -> ValueError:
    return ValueError(f"the GPU has too little memory free for a pair of {size[0]} x {size[1]} pixels")


class Level:
    """One level of the pyramid of a batch: its frames and its flow."""

    def __init__(self, pairs: int, size: tuple[int, int]) -> None:
        self.size = size
        self.frames = torch.zeros(2, pairs, *size, device=device())
        self.flow = torch.zeros(pairs, 2, *size, device=device())


class Solver:
    """Solves batches of one size, up to `pairs` pairs of frames (H, W) each, on a stream of its own; holds all memory
    that this takes.

    That is 21 planes of H x W floats a pair (18 in half precision): a gigabyte for 512 pairs of 128 x 171. Raises
    torch.OutOfMemoryError where there is less.
    """

    def __init__(self, parameters: OwnTVL1, pairs: int, size: tuple[int, ...], half_precision: bool = False) -> None:
        self.parameters, self.pairs, self.stream = parameters, pairs, new_stream()
        self.graph: Any = None
        with torch.cuda.stream(self.stream):
            self._allocate(size, torch.float16 if half_precision else torch.float32)
            if device().type == "cuda":
                self._record()

    def _allocate(self, size: tuple[int, ...], small: torch.dtype) -> None:
        self.levels = [Level(self.pairs, each) for each in level_sizes(size, self.parameters)]
        self.bytes = torch.zeros(2, self.pairs, *size, device=device(), dtype=torch.uint8)
        plane = self.pairs * size[0] * size[1]
        self.medians = torch.empty(2 * plane, device=device())
        self.gradients = torch.empty(2 * plane, device=device())
        self.data = torch.empty(3 * plane, device=device(), dtype=small)
        self.duals = torch.empty(4 * plane, device=device(), dtype=small)
        self.left = torch.zeros(self.pairs, device=device(), dtype=torch.int32)
        self.counts = torch.zeros(len(self.levels), self.pairs, device=device(), dtype=torch.int32)

    def _record(self) -> None:
        self._launch()  # compiles and loads the kernels, which must not happen while launches are recorded
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        # Other threads meanwhile wait for batches of other solvers, which the usual mode would take for a part of this.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self._launch()

    def solve(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow (n, 2, H, W) between gray frames (n, H, W) uint8, n being at most `pairs`."""
        return self.launch(first, second)()

    def launch(
        self, first: np.ndarray, second: np.ndarray, quantise: Quantise | None = None
    ) -> Callable[[], np.ndarray]:
        """Begin `solve`; what is returned waits for the flow, or for the bytes that `quantise` makes of it.

        Everything goes through one stream, in order: the next batch's frames do not come before this one's flow is
        copied.
        """
        count = len(first)
        with torch.cuda.stream(self.stream):
            for staged, given in zip(self.bytes, (first, second), strict=True):
                frames = empty(given.shape, torch.uint8)
                frames.numpy()[:] = given
                staged[:count].copy_(frames, non_blocking=True)
                staged[count:] = 0  # black pairs settle in the first iteration
            self.levels[0].frames.copy_(self.bytes)
            if self.graph:
                self.graph.replay()
            else:
                self._launch()
            return brought(self.levels[0].flow[:count], quantise)

    def pixel_iterations(self) -> int:
        """How many pixels the inner loop has gone over in the last batch, all iterations of all pairs together."""
        counts = self.counts.sum(dim=1).tolist()
        return sum(count * level.size[0] * level.size[1] for count, level in zip(counts, self.levels, strict=True))

    def _launch(self) -> None:
        self.counts.zero_()
        for fine, coarse in zip(self.levels, self.levels[1:], strict=False):
            self._resize(fine.frames, coarse.frames, up=False)
        self.levels[-1].flow.zero_()
        for index in reversed(range(len(self.levels))):
            self._solve_level(self.levels[index], self.counts[index])
            if index:
                self._resize(self.levels[index].flow, self.levels[index - 1].flow, up=True)

    def _solve_level(self, level: Level, counts: Tensor) -> None:
        parameters, (height, width) = self.parameters, level.size
        firsts, seconds = level.frames
        pixels = height * width
        self.duals[: 4 * self.pairs * pixels].zero_()  # kept between warps
        run(triton_pyramid.differentiate, self.pairs, pixels, seconds, self.gradients, height, width)
        numbers = (
            float(np.float32(parameters.epsilon * parameters.epsilon * height * width)),
            parameters.lambda_ * parameters.theta, parameters.theta, parameters.tau / parameters.theta,
        )  # fmt: skip
        rounds = -(-parameters.max_iterations_per_warp // parameters.inner_iterations)
        for _ in range(parameters.warps):
            run(
                triton_warp.linearise, self.pairs, pixels,
                firsts, seconds, self.gradients, level.flow, self.data, self.left,
                height, width, parameters.max_iterations_per_warp,
            )  # fmt: skip
            for _ in range(min(parameters.outer_iterations, rounds)):
                source = level.flow
                if parameters.median_filtering > 1:
                    source = self.medians
                    blocks = -(-height // 2) * width
                    run(triton_median.median5, 2 * self.pairs, blocks, level.flow, source, self.left, height, width)
                run(
                    triton_inner.iterate, self.pairs, 1,
                    self.data, source, level.flow, self.duals, self.left, counts,
                    height, width, parameters.inner_iterations, *numbers,
                )  # fmt: skip

    def _resize(self, planes: Tensor, resized: Tensor, up: bool) -> None:
        count = planes.shape[0] * planes.shape[1]
        sizes = (*planes.shape[2:], *resized.shape[2:])
        step = 1 / self.parameters.scale_step
        run(triton_pyramid.resize, count, resized[0, 0].numel(), planes, resized, *sizes, STEP=step, UP=up)
