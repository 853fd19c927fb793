"""Colour and blur as Pillow does them, on bytes and one step after the other, each of which cuts to 0..255 and rounds:
what the papers' loaders did (docs/methods.md 7.2). On any device.

Bit for bit Pillow's on a CPU. On a GPU products may be rounded otherwise: within one gray level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.augment.plans import ClipPlan, Published

PASSES = 3  # of the box blur that stands for a Gaussian
ONE = 1 << 24  # a weight of one in it


def applied(clips: Tensor, plans: Sequence[ClipPlan], each: Callable = map) -> Tensor:
    """What the plans' steps make of resized clips (B, P, T, h, w) uint8: (B, 3, T, h, w) uint8 where they are images,
    the clips themselves where they are not. each: `map`, or the one of a pool of threads."""
    published = [plan.pixels.published for plan in plans if plan.pixels.image]
    if not published:
        return clips
    if len(published) != len(plans):
        raise ValueError("clips whose steps work on images are made apart from others")
    return torch.stack(list(each(stepped, clips, published)))


def stepped(clip: Tensor, published: Published) -> Tensor:
    """One clip, (P, T, h, w) uint8, as an image after all steps, (3, T, h, w) uint8."""
    assert published.given is not None
    image = _as_image(clip, published.given)
    for name, values in published.steps:
        frames = np.flatnonzero(~np.isnan(values))
        numbers = torch.as_tensor(values[frames], device=image.device).view(-1, 1, 1)
        if len(frames) == len(values):
            image = STEPS[name](image, numbers)
        else:
            image = image.clone()
            image[:, frames] = STEPS[name](image[:, frames], numbers)
    return image.to(torch.uint8)


def _as_image(clip: Tensor, given: np.ndarray) -> Tensor:
    """Levels (3, T, h, w), int32: RGB as it is, other planes as the image that a stream is given."""
    levels = clip.to(torch.int32)
    if np.array_equal(given, np.eye(3, 4)):
        return levels
    matrix = torch.as_tensor(given, dtype=torch.float32, device=clip.device)
    mapped = torch.einsum("dp,pthw->dthw", matrix[:, :-1], levels.float()) + matrix[:, -1, None, None, None]
    return mapped.round().clamp(0, 255).to(torch.int32)


def _blend(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """`first` at share 0, `second` at 1, and beyond; cut and truncated, as Image.blend does it."""
    mixed = first.float() + share.float() * (second - first).float()
    return mixed.clamp(0, 255).to(torch.int32)


def _luminance(image: Tensor) -> Tensor:
    """(1, T, h, w) of (3, T, h, w)."""
    red, green, blue = image
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[None]


def _brightness(image: Tensor, factor: Tensor) -> Tensor:
    return _blend(torch.zeros_like(image), image, factor)


def _contrast(image: Tensor, factor: Tensor) -> Tensor:
    """About each frame's own mean."""
    mean = (_luminance(image).double().mean(dim=(2, 3), keepdim=True) + 0.5).to(torch.int32)
    return _blend(mean.expand_as(image), image, factor)


def _saturation(image: Tensor, factor: Tensor) -> Tensor:
    return _blend(_luminance(image).expand_as(image), image, factor)


def _hue(image: Tensor, turns: Tensor) -> Tensor:
    """Turned in HSV of bytes, by whole levels of 255 a turn."""
    hue, saturation, value = _to_hsv(image)
    moved = (hue + (turns.double() * 255).to(torch.int32)) % 256
    return _from_hsv(moved, saturation, value)


def _to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = image
    most, least = image.amax(0), image.amin(0)
    spread = (most - least).float()
    safe = spread.clamp(min=1)
    # How far each channel is from the largest one, as a share of the spread.
    from_red, from_green, from_blue = ((most - channel).float() / safe for channel in image)
    red_off, green_off, blue_off = (share.double() for share in (from_red, from_green, from_blue))
    hue = torch.where(
        red == most,
        blue_off - green_off,
        torch.where(green == most, 2 + red_off - blue_off, 4 + green_off - red_off),
    ).float()
    turned = torch.fmod(hue.double() / 6 + 1, 1).float()
    saturation = (spread / most.clamp(min=1).float()).double() * 255
    gray = spread == 0
    levels = [(turned.double() * 255).to(torch.int32), saturation.to(torch.int32)]
    return (*(level.clamp(0, 255).masked_fill(gray, 0) for level in levels), most)  # type: ignore[return-value]


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sixths = hue.double() * 6 / 255
    sector = sixths.floor()
    part, share = (sixths - sector).float().double(), (saturation.float() / 255).double()
    v = value.double()
    low, falling, rising = (
        (level + 0.5).floor().clamp(0, 255).to(torch.int32)
        for level in (v * (1 - share), v * (1 - share * part), v * (1 - share * (1 - part)))
    )
    sectors = (
        (value, rising, low), (falling, value, low), (low, value, rising),
        (low, falling, value), (rising, low, value), (value, low, falling),
    )  # fmt: skip
    number = sector.to(torch.int64) % 6
    return torch.stack(
        [torch.stack([channels[c] for channels in sectors]).gather(0, number[None])[0] for c in range(3)]
    )


def _channel(image: Tensor, chosen: Tensor) -> Tensor:
    """A copy of one channel in place of all; `chosen`, one for each frame."""
    index = chosen.to(torch.int64).view(1, -1, 1, 1).expand(1, image.shape[1], *image.shape[2:])
    return image.gather(0, index).expand_as(image).contiguous()


def _gray(image: Tensor, _: Tensor) -> Tensor:
    return _luminance(image).expand_as(image).contiguous()


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Three box blurs along rows and then three along columns, of a width that need not be whole; its numbers have
    single precision, as there."""
    one = np.float32(1)
    variance = np.float32(float(sigma)) * np.float32(float(sigma)) / np.float32(PASSES)
    width = np.float32(math.sqrt(12.0 * float(variance) + 1.0))
    whole = np.float32(math.floor((float(width) - 1.0) / 2.0))
    rest = (2 * whole + one) * (whole * (whole + one) - 3 * variance)
    rest /= 6 * (variance - (whole + one) * (whole + one))
    for axis in (3, 2):
        image = image.transpose(axis, 3)
        for _ in range(PASSES):
            image = _box(image, whole + rest)
        image = image.transpose(axis, 3)
    return image.contiguous()


def _box(image: Tensor, radius: np.float32) -> Tensor:
    """The mean over `radius` pixels on each side in the last axis, the border repeated; of the outermost two, parts."""
    whole = int(radius)
    inner = int(np.float32(ONE) / (radius * np.float32(2) + np.float32(1)))
    outer = (ONE - (whole * 2 + 1) * inner) // 2
    length, reach = image.shape[3], whole + 1
    padded = functional.pad(image.double(), (reach, reach, 0, 0), mode="replicate").to(torch.int64)
    sums = functional.pad(padded.cumsum(3), (1, 0))
    middle = sums[..., 2 * reach : 2 * reach + length] - sums[..., 1 : 1 + length]
    ends = padded[..., :length] + padded[..., 2 * reach :]
    return ((middle * inner + ends * outer + (ONE >> 1)) >> 24).to(torch.int32)


def _gaussian(image: Tensor, sigma: Tensor) -> Tensor:
    """SLIC's: a true Gaussian of 15 pixels."""
    places = torch.arange(-7, 8, device=image.device, dtype=torch.float32)
    taps = torch.exp(-0.5 * (places / float(sigma)) ** 2)
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    flat = image.transpose(0, 1).flatten(0, 1)[:, None].float()
    padded = functional.pad(flat, (7, 7, 7, 7), mode="reflect")
    blurred = functional.conv2d(functional.conv2d(padded, taps), taps.transpose(2, 3))
    return blurred[:, 0].unflatten(0, (-1, 3)).transpose(0, 1).round().clamp(0, 255).to(torch.int32)


STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
    "luminance": _gray,
    "channel": _channel,
    "box blur": _blur,
    "gaussian blur": _gaussian,
}
