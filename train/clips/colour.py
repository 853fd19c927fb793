"""Colour as one affine map a pixel: jitter, gray and normalisation, multiplied into one matrix.

A map is float64 (D, C + 1): `map[:, :C] @ pixel + map[:, C]` with the C bytes of a pixel in 0..255; several are
(..., D, C + 1). Nothing is cut to 0..255 on the way, as the published operations on images do after every step.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

Statistics = Literal["imagenet", "kinetics"]
Gray = Literal["luminance", "channel"]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])  # of pixels in 0..1
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
KINETICS_MEAN = np.array([0.4345, 0.4051, 0.3775])  # SLIC's, docs/methods.md 2.4
KINETICS_STD = np.array([0.2768, 0.2713, 0.2737])
_MOMENTS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "kinetics": (KINETICS_MEAN, KINETICS_STD)}
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
MIDDLE = 255 * LUMA @ IMAGENET_MEAN  # the gray level about which contrast is changed

# RGB -> YIQ, in which the rows I and Q hold what is not gray.
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# A pixel's gray, the rest of it, and the rest a quarter turn about the gray axis, as which hue turns it: (3, 9).
GRAY = np.tile(LUMA, (3, 1))
QUARTER = np.linalg.inv(YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ YIQ
PARTS = np.stack([GRAY, np.eye(3) - GRAY, QUARTER]).reshape(3, 9)


@functools.cache
def normalisation(statistics: Statistics) -> np.ndarray:
    """`(v / 255 - mean) / std` of RGB bytes."""
    mean, std = _MOMENTS[statistics]
    map_ = np.column_stack([np.diag(1 / 255 / std), -mean / std])
    map_.setflags(write=False)
    return map_


def denormalisation(statistics: Statistics) -> np.ndarray:
    """The inverse of `normalisation`: from the network's input back to RGB in 0..255."""
    mean, std = _MOMENTS[statistics]
    return np.column_stack([np.diag(255 * std), 255 * mean])


def identity(channels: int) -> np.ndarray:
    """The map that changes nothing."""
    return np.eye(channels, channels + 1)


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The maps that apply `first` and then `second`, each (..., D, C + 1)."""
    total = second[..., :-1] @ first
    total[..., -1] += second[..., -1]
    return total


def jitter(numbers: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Maps of RGB bytes, (N, 3, 4), from `numbers` (N, 5) drawn uniformly in 0..1.

    The other arguments are the half ranges of the factors of brightness, contrast and saturation, and of hue's shift in
    turns. The four come in random order, of which only that of brightness and contrast matters: all are linear here.
    Contrast is about a fixed gray level (that of ImageNet's mean; torchvision's is about each frame's own mean), and
    hue turns what is not gray in YIQ (torchvision: in HSV).
    """
    moved = 2 * numbers[:, :4] - 1
    light, spread, vivid = (1 + moved[:, :3] * (brightness, contrast, saturation)).T
    angle = 2 * np.pi * hue * moved[:, 3]
    amounts = light * spread * np.stack([np.ones_like(angle), vivid * np.cos(angle), vivid * np.sin(angle)])
    maps = np.empty((len(numbers), 3, 4))
    maps[:, :, :3] = (amounts.T @ PARTS).reshape(-1, 3, 3)
    maps[:, :, 3] = ((1 - spread) * MIDDLE * np.where(numbers[:, 4] < 0.5, 1, light))[:, None]
    return maps


def gray(kind: Gray, channels: np.ndarray) -> np.ndarray:
    """All three channels alike: their luminance, (1, 3, 4), or for each of `channels` (N,) a copy of it, (N, 3, 4)."""
    weights = LUMA[None] if kind == "luminance" else np.eye(3)[channels]
    maps = np.zeros((len(weights), 3, 4))
    maps[:, :, :3] = weights[:, None]
    return maps
