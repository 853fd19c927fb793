"""TV-L1 on an NVIDIA GPU, ours, in Triton: many pairs at once, each of which stops by itself (docs/methods.md 1.5).

All launches of a batch are known beforehand: how long a pair iterates is decided on the GPU, and launches that come too
late for a settled pair return at once. So they are recorded once for each size of frames, as a CUDA graph, and nothing
waits for the host in between. Frames and flow pass through page-locked memory on the launches' own stream, so that the
host prepares the next batch while the GPU is at work on this one.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.flow.estimator import FlowEstimator, gray
from pipeline.flow.tvl1 import OwnTVL1, level_sizes, linear_taps

try:
    import triton

    from pipeline.flow.kernels import triton_inner, triton_level, triton_median, triton_pyramid, triton_warp
except ModuleNotFoundError as missing:
    problem = f"tvl1-cuda needs Triton, which cannot be imported here: {missing}"
    raise UsageError(problem, remedy="use tvl1-cpu; Triton comes for Linux on x86-64") from missing

OLDEST = (8, 0)  # compute capability; what the kernels are compiled for in the tests
SOLVERS = 8  # kept, so that videos of a few sizes, and last batches, do not record their launches again and again

# Warps of a program, which computes as many pixels as it has threads. With several pixels a thread Triton spreads
# planes over the threads in different ways and exchanges values through shared memory: up to 14 barriers a step of
# `iterate` in place of one, and twice the registers. `iterate` needs 32 registers (40 in half precision), so that four
# programs (three) share a multiprocessor.
WARPS = {"resize": 4, "differentiate": 4, "linearise": 4, "median5": 4, "iterate": 16, "solve_level": 16}
# Without a limit `solve_level`, which has all of them in it, takes 128 registers: one program a multiprocessor. With 64
# there are two, and nothing is spilled; with 40, three, 48 bytes are.
REGISTERS = {"solve_level": 64}


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
        fused: One launch a level of the pyramid, in which each pair ends by itself, in place of a hundred, each of
            which waits for its slowest pair. The same flow, bit for bit; which is faster no GPU has told yet.
    """

    name: ClassVar[str] = "tvl1-cuda"
    RUNNING: ClassVar[frozenset[str]] = frozenset({"batch_size", "fused"})
    sees_colour: ClassVar[bool] = False

    device = "cuda"
    software: ClassVar[tuple[str, ...]] = ("torch",)  # which brings its Triton

    batch_size: int = 512
    half_precision: bool = False
    fused: bool = False
    _solvers: OrderedDict[tuple[int, ...], Solver] = field(default_factory=OrderedDict, init=False, repr=False)
    _fitting: dict[tuple[int, ...], int] = field(default_factory=dict, init=False, repr=False)  # pairs by frame size

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("half_precision", "fused"):
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
        first, second = gray(first), gray(second)
        solver = self._solver(len(first), first.shape[1:])
        parts = [slice(start, start + solver.pairs) for start in range(0, len(first), solver.pairs)]
        launched = [solver.launch(first[part], second[part]) for part in parts]
        if len(launched) == 1:
            return launched[0]
        return lambda: np.concatenate([collect() for collect in launched])

    def _solver(self, pairs: int, size: tuple[int, ...]) -> Solver:
        """A solver for this many pairs or up to twice as many, so that last batches of all lengths share a few solvers.

        Where memory does not suffice for it, first the other solvers go, then it is for half as many pairs.
        """
        while True:
            capacity = min(self._fitting.get(size, self.batch_size), triton.next_power_of_2(pairs))
            key = (capacity, *size)
            if key not in self._solvers:
                self._forget(SOLVERS - 1)
                try:
                    self._solvers[key] = Solver(self, capacity, size, self.half_precision, self.fused)
                except torch.OutOfMemoryError as error:
                    if not self._solvers and capacity == 1:
                        what = f"the GPU has too little memory free for a pair of {size[0]} x {size[1]} pixels"
                        raise ValueError(what) from error
            if key in self._solvers:
                self._solvers.move_to_end(key)
                return self._solvers[key]
            if self._solvers:  # out of the `except`, whose traceback holds what the failed one got
                self._forget(0)
            else:
                self._fitting[size] = capacity // 2

    def _forget(self, keep: int) -> None:
        """Drop the solvers that were used longest ago, once nothing that was launched needs them."""
        if len(self._solvers) > keep and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        while len(self._solvers) > keep:
            self._solvers.popitem(last=False)


class Level:
    """One level of the pyramid of a batch: its frames, its flow, and how to come here from the level before."""

    def __init__(self, pairs: int, size: tuple[int, int], device: torch.device) -> None:
        self.size = size
        self.frames = torch.zeros(2, pairs, *size, device=device)
        self.flow = torch.zeros(pairs, 2, *size, device=device)

    def taps(self, size: tuple[int, int], scale: tuple[float, float]) -> list[Tensor]:
        """What the kernel `resize` needs to know of rows and columns to make planes of `size` from planes of this
        level."""
        both = [linear_taps(self.size[axis], size[axis], scale[axis]) for axis in (0, 1)]
        return [torch.from_numpy(values).to(self.frames.device) for axis in both for values in axis]


class Solver:
    """Solves batches of one size, up to `pairs` pairs of frames (H, W) each; holds all memory that this takes.

    That is 21 planes of H x W floats a pair (18 in half precision): a gigabyte for 512 pairs of 128 x 171. Raises
    torch.OutOfMemoryError where there is less.
    """

    def __init__(
        self,
        parameters: OwnTVL1,
        pairs: int,
        size: tuple[int, ...],
        half_precision: bool = False,
        fused: bool = False,
    ) -> None:
        self.parameters, self.pairs, self.fused = parameters, pairs, fused
        self.device = torch.device("cpu" if triton.knobs.runtime.interpret else "cuda")
        self.graph: Any = None
        self._allocate(size, torch.float16 if half_precision else torch.float32)
        if self.device.type == "cuda":
            self._record()

    def _allocate(self, size: tuple[int, ...], small: torch.dtype) -> None:
        step = self.parameters.scale_step
        sizes = level_sizes(size, self.parameters)
        self.levels = [Level(self.pairs, each, self.device) for each in sizes]
        joints = zip(self.levels, self.levels[1:], strict=False)
        self.joints = [
            (
                fine.taps(coarse.size, (1 / step, 1 / step)),
                coarse.taps(fine.size, (coarse.size[0] / fine.size[0], coarse.size[1] / fine.size[1])),
            )
            for fine, coarse in joints
        ]
        self.bytes = torch.zeros(2, self.pairs, *size, device=self.device, dtype=torch.uint8)
        plane = self.pairs * size[0] * size[1]
        self.medians = torch.empty(2 * plane, device=self.device)
        self.gradients = torch.empty(2 * plane, device=self.device)
        self.data = torch.empty(3 * plane, device=self.device, dtype=small)
        self.duals = torch.empty(4 * plane, device=self.device, dtype=small)
        self.left = torch.zeros(self.pairs, device=self.device, dtype=torch.int32)
        self.counts = torch.zeros(len(sizes), self.pairs, device=self.device, dtype=torch.int32)

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

    def launch(self, first: np.ndarray, second: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin `solve`; what is returned waits for the flow.

        Everything goes through one stream, in order: the next batch's frames do not come before this one's flow is
        copied. PyTorch gives page-locked memory to nobody else before the copies that use it are done.
        """
        count, on_gpu = len(first), self.device.type == "cuda"
        for staged, given in zip(self.bytes, (first, second), strict=True):
            frames = torch.empty(given.shape, dtype=torch.uint8, pin_memory=on_gpu)
            frames.numpy()[:] = given
            staged[:count].copy_(frames, non_blocking=True)
            staged[count:] = 0  # black pairs settle in the first iteration
        self.levels[0].frames.copy_(self.bytes)
        if self.graph:
            self.graph.replay()
        else:
            self._launch()
        found = self.levels[0].flow[:count]
        flow = torch.empty(found.shape, pin_memory=on_gpu)
        flow.copy_(found, non_blocking=True)
        if not on_gpu:
            return flow.numpy
        done = torch.cuda.Event(blocking=True)  # waits without keeping a core busy
        done.record()

        def collect() -> np.ndarray:
            done.synchronize()
            return flow.numpy()

        return collect

    def pixel_iterations(self) -> int:
        """How many pixels the inner loop has gone over in the last batch, all iterations of all pairs together."""
        counts = self.counts.sum(dim=1).tolist()
        return sum(count * level.size[0] * level.size[1] for count, level in zip(counts, self.levels, strict=True))

    def _launch(self) -> None:
        self.counts.zero_()
        for index, (down, _) in enumerate(self.joints):
            self._resize(self.levels[index].frames, self.levels[index + 1].frames, down, 1.0)
        self.levels[-1].flow.zero_()
        for index in reversed(range(len(self.levels))):
            self._solve_level(self.levels[index], self.counts[index])
            if index:
                up = self.joints[index - 1][1]
                self._resize(self.levels[index].flow, self.levels[index - 1].flow, up, 1 / self.parameters.scale_step)

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
        if self.fused:
            run(
                triton_level.solve_level, self.pairs, 1,
                firsts, seconds, self.gradients, level.flow, self.medians, self.data, self.duals, counts,
                height, width, parameters.warps, parameters.outer_iterations, parameters.inner_iterations,
                parameters.max_iterations_per_warp, *numbers, MEDIAN=parameters.median_filtering > 1,
            )  # fmt: skip
            return
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

    def _resize(self, planes: Tensor, resized: Tensor, taps: list[Tensor], factor: float) -> None:
        count = planes.shape[0] * planes.shape[1]
        sizes = (*planes.shape[2:], *resized.shape[2:])
        run(triton_pyramid.resize, count, resized[0, 0].numel(), planes, resized, *taps, *sizes, FACTOR=factor)


def run(kernel: Any, programs: int, pixels: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on `programs` planes or pairs, in blocks that cover `pixels`; nothing is fused that is not
    written so."""
    warps = WARPS[kernel.__name__]
    block = 32 * warps
    grid = (programs, triton.cdiv(pixels, block))
    options = {"num_warps": warps, "maxnreg": REGISTERS.get(kernel.__name__), "enable_fp_fusion": False}
    kernel[grid](*arguments, **constants, BLOCK=block, **options)
