"""Normalisation and colour of a batch in one step, on whatever device the clips are."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import torch

from train.reader import kernels
from train.reader.memory import BatchMemory

_memory = BatchMemory()


def normalise(clips: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """`affine[:, :, :, :C] @ clips + affine[:, :, :, C]`: float32, contiguous (B, D, T, h, w).

    clips: (B, C, T, h, w), uint8 or float32, with any strides. affine: float32 (B, K, D, C + 1) on the same device, the
    plans' colour maps for pixels in 0..255; K is 1, or T where each frame has its own. Stays in float32 under autocast:
    half precision would lose a part of a gray level.

    On a CPU it is one pass from the bytes into memory of earlier batches, which costs as much as to fill that memory:
    an eighth of the matrix product on a planar float copy. Clips are shared among `torch.get_num_threads()` threads.
    """
    return _on_cpu(clips, affine) if clips.device.type == "cpu" else _on_gpu(clips, affine)


def network_input(clips: torch.Tensor, affine: torch.Tensor | None = None) -> torch.Tensor:
    """Of what `Batch.to_send` gave."""
    return clips if affine is None else normalise(clips.movedim(-1, 1), affine)


def _on_cpu(clips: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    batch, channels, frames, height, width = clips.shape
    outputs = affine.shape[2]
    pixels = clips.permute(0, 2, 3, 4, 1)
    if channels == outputs == kernels.COLOURS and pixels.is_contiguous():  # as the reader gives rgb
        work, shape = kernels.colour_interleaved, (batch, frames, height * width, channels)
    else:
        pixels = clips.contiguous()
        work, shape = kernels.colour_planes, (batch, channels, frames, height * width)
    out = _memory.tensor((batch, outputs, frames, height, width), torch.float32)
    rows = pixels.reshape(shape).numpy(), affine.contiguous().numpy(), out.flatten(3).numpy()
    threads = min(torch.get_num_threads(), batch)
    list(_threads(threads).map(work, *rows) if threads > 1 else map(work, *rows))
    return out


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="normalise")


def _on_gpu(clips: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    batch, channels, frames = clips.shape[:3]
    maps, outputs = affine.shape[1], affine.shape[2]
    out = torch.empty((batch, outputs, *clips.shape[2:]), dtype=torch.float32, device=clips.device)
    # Planar first: the product on interleaved pixels takes five times as long.
    planar = torch.empty(clips.shape, dtype=torch.float32, device=clips.device).copy_(clips)
    with torch.autocast(clips.device.type, enabled=False):
        for place in range(maps):
            part = slice(None) if maps == 1 else slice(place, place + 1)
            matrix, offset = affine[:, place, :, :channels], affine[:, place, :, channels:]
            product = torch.baddbmm(offset, matrix, planar[:, :, part].reshape(batch, channels, -1))
            out[:, :, part] = product.view(batch, outputs, -1, *clips.shape[3:])
    return out
