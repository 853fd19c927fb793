"""Normalisation against a plain product, for any strides and under autocast."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from train.reader.affine import normalise


def plain(clips: torch.Tensor, affine: torch.Tensor) -> np.ndarray:
    pixels, maps = clips.numpy().astype(np.float64), affine.numpy().astype(np.float64)
    channels, frames = pixels.shape[1:3]
    maps = np.repeat(maps, frames // maps.shape[1], axis=1)
    return (
        np.einsum("btij,bjthw->bithw", maps[..., :channels], pixels)
        + maps[..., channels].swapaxes(1, 2)[..., None, None]
    )


@pytest.mark.parametrize(("channels", "outputs"), [(2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("maps", [1, 5], ids=["steady", "every frame"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 4, 1, 2, 3), (0, 2, 1, 3, 4), (3, 2, 4, 0, 1)])
def test_normalise_is_an_affine_map_for_any_strides(
    channels: int, outputs: int, maps: int, order: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    shape = [4, channels, 5, 6, 7]
    stored = [0] * 5
    for logical, axis in enumerate(order):
        stored[axis] = shape[logical]
    clips = torch.randint(0, 256, stored, dtype=torch.uint8).permute(order)
    affine = torch.randn(4, maps, outputs, channels + 1)
    out = normalise(clips, affine)
    assert out.shape == (4, outputs, *shape[2:]) and out.dtype == torch.float32 and out.is_contiguous()
    np.testing.assert_allclose(normalise(clips.float(), affine).numpy(), out.numpy(), atol=2e-3, rtol=1e-5)
    # float32: eight digits of values up to 255 * 3 * 4
    np.testing.assert_allclose(out.numpy(), plain(clips, affine), atol=2e-3, rtol=1e-5)


def test_normalise_stays_in_float32_under_autocast() -> None:
    clips = torch.randint(0, 256, (2, 3, 2, 4, 4), dtype=torch.uint8)
    affine = torch.randn(2, 1, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = normalise(clips, affine)
    assert torch.equal(inside, normalise(clips, affine))


@pytest.mark.parametrize("channels", [2, 3])
def test_what_is_kept_is_not_written_again(channels: int) -> None:
    """Memory of earlier batches is reused, by any number of threads."""
    clips = torch.randint(0, 256, (6, 4, 5, 7, channels), dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    affine = torch.randn(6, 1, channels, channels + 1)
    kept = normalise(clips, affine)[1:]
    expected = kept.clone()
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(normalise(clips, affine)[1:], expected)
        normalise(clips, 2 * affine)
    torch.set_num_threads(before)
    assert torch.equal(kept, expected)


def test_normalise_takes_an_empty_batch() -> None:
    clips = torch.empty((0, 3, 2, 4, 4), dtype=torch.uint8)
    assert normalise(clips, torch.empty(0, 1, 3, 4)).shape == (0, 3, 2, 4, 4)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("REQUIRE_GPU") != "1", reason="needs an NVIDIA GPU"
)
def test_normalise_agrees_on_a_gpu() -> None:
    torch.manual_seed(0)
    clips = torch.randint(0, 256, (4, 5, 6, 7, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    affine = torch.randn(4, 1, 3, 4)
    out = normalise(clips.cuda(), affine.cuda())
    np.testing.assert_allclose(out.cpu().numpy(), plain(clips, affine), atol=2e-3, rtol=1e-5)
