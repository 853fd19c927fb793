"""How tvl1-cuda starts its kernels, and how flow comes back from a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

Quantise = Callable[[Any], Any]  # what `quantisation.Quantiser` does to an array or a tensor

# Warps of a program, which computes as many pixels as it has threads. With several pixels a thread Triton spreads
# planes over the threads in different ways and exchanges values through shared memory: up to 14 barriers a step of
# `iterate` in place of one, and twice the registers. `iterate` needs 32 registers (40 in half precision), so that four
# programs (three) share a multiprocessor.
WARPS = {
    "resize": 4, "differentiate": 4, "linearise": 4, "median5": 4, "iterate": 16,
    "begin_pairs": 16, "begin_level": 16, "solve_level": 16,
}  # fmt: skip
# Without a limit `solve_level`, which has all of them in it, takes 128 registers: one program a multiprocessor. With 64
# there are two, and nothing is spilled.
REGISTERS = {"solve_level": 64}


def device() -> torch.device:
    """Where kernels run: on the CPU in Triton's interpreter."""
    return torch.device("cpu" if triton.knobs.runtime.interpret else "cuda")


def new_stream() -> Any:
    """A stream for `torch.cuda.stream`; None, which changes nothing, in Triton's interpreter."""
    return torch.cuda.Stream() if device().type == "cuda" else None


def run(kernel: Any, programs: int, pixels: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on `programs` planes or pairs, in blocks that cover `pixels`; nothing is fused that is not
    written so."""
    warps = WARPS[kernel.__name__]
    block = 32 * warps
    grid = (programs, triton.cdiv(pixels, block))
    options = {"num_warps": warps, "maxnreg": REGISTERS.get(kernel.__name__), "enable_fp_fusion": False}
    kernel[grid](*arguments, **constants, BLOCK=block, **options)


def empty(shape: Any, dtype: torch.dtype) -> Tensor:
    """Memory of the host, page-locked where there is a GPU. PyTorch gives it to nobody else before the copies that use
    it are done."""
    return torch.empty(shape, dtype=dtype, pin_memory=device().type == "cuda")


def brought(found: Tensor, quantise: Quantise | None) -> Callable[[], np.ndarray]:
    """Begin to copy flow to the host, or the bytes that `quantise` makes of it where it is; what is returned waits for
    that, and raises ValueError where some of the flow is not finite."""
    finite = torch.isfinite(found).all() if quantise else torch.ones((), dtype=torch.bool)
    wanted = quantise(found) if quantise else found
    copied, verdict = empty(wanted.shape, wanted.dtype), empty((), torch.bool)
    copied.copy_(wanted, non_blocking=True)
    verdict.copy_(finite, non_blocking=True)
    done = None
    if device().type == "cuda":
        done = torch.cuda.Event(blocking=True)  # waits without keeping a core busy
        done.record()

    def collect() -> np.ndarray:
        if done:
            done.synchronize()
        if not verdict:
            raise ValueError("tvl1-cuda gave a flow that is not finite")
        return copied.numpy()

    return collect
