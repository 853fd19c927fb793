"""Normalisation and colour of a batch in one step, on whatever device the clips are."""

from __future__ import annotations

import torch


def normalise(clips: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """`affine[:, :, :C] @ clips + affine[:, :, C]`: float32, contiguous (B, C, T, h, w).

    clips: uint8 (B, C, T, h, w) with any strides. affine: float32 (B, C, C + 1) on the same device, the plans' colour
    maps for pixels in 0..255. Stays in float32 under autocast: half precision would lose a part of a gray level.
    """
    batch, channels = clips.shape[:2]
    # On a CPU one clip at a time, so that its planar copy stays in the cache: 0.4 to 0.7 of the time for all at once.
    # Planar first, because the product on interleaved pixels takes five times as long.
    step = 1 if clips.device.type == "cpu" else max(batch, 1)
    out = torch.empty(clips.shape, dtype=torch.float32, device=clips.device)
    planar = torch.empty((step, *clips.shape[1:]), dtype=torch.float32, device=clips.device)
    with torch.autocast(clips.device.type, enabled=False):
        for start in range(0, batch, step):
            rows = slice(start, start + step)
            planar.copy_(clips[rows])
            matrix, offset = affine[rows, :, :channels], affine[rows, :, channels:]
            torch.baddbmm(offset, matrix, planar.view(step, channels, -1), out=out[rows].view(step, channels, -1))
    return out
