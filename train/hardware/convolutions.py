"""Whether a device's convolutions are right in the precision of a run, seen before anything is trained.

On CPUs with AVX-512 and without AMX, with avx512_bf16 or not, oneDNN (of torch 2.13) leaves parts of the weight
gradient of a bfloat16 convolution as they lie in memory where the map has fewer frames than the kernel: 3x3x3 or 3x1x1
on two frames, which deep layers have. It is a silent error: NaN, 1e37, or finite and wrong by 80 %.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import Refusal
from train.console import tell

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

# Clips (B, C, T, h, w), kernel (t, h, w) and stride of what is tried, padded by half a kernel. No sweep over all sizes:
# on a CPU of the kind above one ended in a heap that oneDNN had damaged; these ran thousands of times.
TRIED = (
    ((8, 16, 2, 2, 2), (3, 3, 3), 1),
    ((8, 16, 2, 4, 4), (3, 3, 3), 1),
    ((4, 16, 2, 4, 4), (3, 1, 1), 1),
    ((4, 16, 3, 4, 4), (5, 1, 1), 2),
    ((4, 16, 2, 4, 4), (1, 3, 3), 2),
    ((4, 3, 4, 8, 8), (3, 3, 3), 2),
)
CHANNELS = 32  # of what comes out
SEEDS = 3  # stale memory can hold zeros, which are less wrong
TOLERANCE = 0.05  # error of a tensor's norm over its norm: rounding leaves 0.005, the wrong kernels 0.75 and more


@functools.cache
def right_as_they_are(precision: str, device: torch.device) -> bool:
    """Whether training in this precision may use all that torch uses; False: it must go without oneDNN, which is told
    the first time. In 32-true nothing is tried. Takes less than a tenth of a second.

    Raises:
        Refusal: the device's convolutions are wrong with and without oneDNN.
    """
    if precision not in HALF:
        return True
    wrong = first_wrong(HALF[precision], device)
    if not wrong:
        return True
    if device.type == "cpu":
        with onednn(allowed=False):
            still_wrong = first_wrong(HALF[precision], device)
        if not still_wrong:
            tell(
                f"in {precision} this CPU's {wrong} (oneDNN): training goes without oneDNN, which is right and tens of"
                " times slower; precision: 32-true in the recipe is the fast one here"
            )
            return False
        wrong = still_wrong
    raise Refusal(
        f"in {precision} this device's {wrong}",
        where=f"device {device}, torch {torch.__version__}",
        remedy="precision: 32-true in the recipe, or another device",
    )


@contextlib.contextmanager
def onednn(allowed: bool) -> Iterator[None]:
    """Without it, convolutions are computed by torch's own code, forward and backward."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.set_flags(_enabled=allowed and before)  # `flags` would also set TF32, and torch warn of that
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)


def first_wrong(dtype: torch.dtype, device: torch.device) -> str:
    """What is wrong with a convolution under autocast in `dtype`, against the CPU's in float64; empty: nothing."""
    for seed in range(SEEDS):
        for shape, kernel, stride in TRIED:
            generator = torch.Generator().manual_seed(seed)
            clips = torch.randn(shape, generator=generator)
            weight = torch.randn(CHANNELS, shape[1], *kernel, generator=generator)
            found = _convolved(clips.to(device), weight.to(device), stride, dtype)
            right = _convolved(clips.double(), weight.double(), stride, None)
            for name, one in found.items():
                error = float((one.cpu().double() - right[name]).norm() / right[name].norm())
                if not error <= TOLERANCE:
                    kernel_size = "x".join(map(str, kernel))
                    return f"{name} of a {kernel_size} convolution on clips of {shape} is wrong by {100 * error:.3g} %"
    return ""


def _convolved(clips: Tensor, weight: Tensor, stride: int, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Output and gradients of a convolution, whose own gradient is a fixed pattern of the size of one."""
    bias = torch.zeros_like(weight[:, 0, 0, 0, 0])
    clips, weight, bias = given = [each.clone().requires_grad_() for each in (clips, weight, bias)]
    padding = tuple(size // 2 for size in weight.shape[2:])
    with torch.autocast(clips.device.type, dtype, enabled=dtype is not None):
        out = functional.conv3d(clips, weight, bias, stride, padding)
    pattern = torch.arange(out.numel(), device=out.device).sin().view_as(out).to(out.dtype)
    values = (out.detach(), *torch.autograd.grad(out, given, pattern))
    return dict(zip(("output", "clip gradient", "weight gradient", "bias gradient"), values, strict=True))
