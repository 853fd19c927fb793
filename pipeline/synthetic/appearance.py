"""What sprites and backgrounds look like: drawn from one distribution for every class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

SPRITE_SIDE = 64
"""Pixels of a sprite's square patch, before it is scaled to its radius in the video."""
SPRITE_RADIUS = SPRITE_SIDE / 2 - 4
"""Radius, in the patch, of the circle that a sprite's outline stays in."""


@dataclass(frozen=True)
class Pixels:
    """Where the pixels of a sprite's patch lie, seen from its centre: each (SPRITE_SIDE, SPRITE_SIDE)."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray  # radians, from a random direction


def smooth_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A faint noise or gradient between two colours, (H, W, 3) float32 in 0..255.

    Smooth and at 40 % contrast because sharp patterns under the moving camera drown the sprites' motion for networks
    on RGB of the size that trains in minutes.
    """
    painter = (_coarse_noise, _gradient)[rng.integers(0, 2)]
    image = _coloured(rng, painter(rng, height, width))
    mean = image.mean((0, 1))
    return mean + (image - mean) * 0.4


def sprite(rng: np.random.Generator) -> np.ndarray:
    """A textured shape: (SPRITE_SIDE, SPRITE_SIDE, 4) float32, colours in 0..255 premultiplied by opacity in 0..1."""
    outline = SHAPES[rng.integers(0, len(SHAPES))]
    y, x = np.mgrid[0:SPRITE_SIDE, 0:SPRITE_SIDE].astype(np.float32) - (SPRITE_SIDE - 1) / 2
    pixels = Pixels(x, y, np.hypot(x, y), np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
    # The distance to the outline gives a soft edge one pixel wide.
    opacity = np.clip(outline(rng, pixels) + 0.5, 0, 1)[..., None]
    texture = TEXTURES[rng.integers(0, len(TEXTURES))]
    colours = _coloured(rng, texture(rng, SPRITE_SIDE, SPRITE_SIDE))
    return np.concatenate([colours * opacity, opacity], axis=2).astype(np.float32)


def _coloured(rng: np.random.Generator, blend: np.ndarray) -> np.ndarray:
    """Two random colours that are not too alike, blended by (H, W) values in 0..1: (H, W, 3) float32."""
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    while np.abs(first - second).sum() < 120:
        second = rng.uniform(0, 255, 3).astype(np.float32)
    return first + blend[..., None].astype(np.float32) * (second - first)


# Textures: (rng, height, width) -> (H, W) in 0..1


def _noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...] = (4, 8, 16)) -> np.ndarray:
    """Value noise of several grid sizes, the finer the fainter; (H, W) float32 that spans 0..1."""
    total = np.zeros((height, width), np.float32)
    for octave, count in enumerate(cells, start=1):
        grid = rng.random((count + 2, count + 2), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    total -= total.min()
    return total / (total.max() + 1e-6)


def _coarse_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return _noise(rng, height, width, (3, 6))


def _fine_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return _noise(rng, height, width, (3, 6, 12, 24))


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    return (ramp - ramp.min()) / (ramp.max() - ramp.min()) * 0.7 + 0.3 * _noise(rng, height, width)


def _checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    side = rng.uniform(5, 14)
    angle = rng.uniform(0, np.pi)
    across, along = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return ((np.floor(across / side) + np.floor(along / side)) % 2) * 0.6 + 0.4 * _noise(rng, height, width)


def _wavy_stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    period = rng.uniform(6, 16)
    angle = rng.uniform(0, np.pi)
    across = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period
    return 0.5 + 0.5 * np.sin(across + 3 * _noise(rng, height, width, (3,)))


def _dots(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pitch = rng.uniform(7, 14)
    shift_x, shift_y = rng.uniform(0, pitch, 2)
    distance = np.hypot((x + shift_x) % pitch - pitch / 2, (y + shift_y) % pitch - pitch / 2)
    inside = np.clip(pitch * rng.uniform(0.2, 0.4) - distance + 0.5, 0, 1)
    return inside * 0.7 + 0.3 * _noise(rng, height, width)


TEXTURES: tuple[Callable[[np.random.Generator, int, int], np.ndarray], ...] = (
    _fine_noise,
    _gradient,
    _checks,
    _wavy_stripes,
    _dots,
)


# Shapes: (rng, pixels) -> (SPRITE_SIDE, SPRITE_SIDE) distance in pixels to the outline, positive inside


def _ellipse(rng: np.random.Generator, pixels: Pixels) -> np.ndarray:
    long = pixels.x * np.cos(0.3) + pixels.y * np.sin(0.3)
    short = -pixels.x * np.sin(0.3) + pixels.y * np.cos(0.3)
    reach = np.hypot(long / SPRITE_RADIUS, short / (SPRITE_RADIUS * rng.uniform(0.6, 1)))
    return (1 - reach) * SPRITE_RADIUS * 0.5


def _box(rng: np.random.Generator, pixels: Pixels) -> np.ndarray:
    half_height = SPRITE_RADIUS * rng.uniform(0.5, 0.8)
    return np.minimum(SPRITE_RADIUS * 0.75 - np.abs(pixels.x), half_height - np.abs(pixels.y))


def _polygon(rng: np.random.Generator, pixels: Pixels) -> np.ndarray:
    sides = rng.integers(3, 7)
    edge = np.cos(np.pi / sides) / np.cos(pixels.angle % (2 * np.pi / sides) - np.pi / sides)
    return SPRITE_RADIUS * edge - pixels.radius


def _star(rng: np.random.Generator, pixels: Pixels) -> np.ndarray:
    points = rng.integers(4, 7)
    return SPRITE_RADIUS * (0.7 + 0.3 * np.cos(points * pixels.angle)) - pixels.radius


def _blob(rng: np.random.Generator, pixels: Pixels) -> np.ndarray:
    shift = rng.uniform(0, 2 * np.pi, 2)
    edge = 0.78 + 0.1 * np.cos(2 * pixels.angle + shift[0]) + 0.1 * np.cos(3 * pixels.angle + shift[1])
    return SPRITE_RADIUS * edge - pixels.radius


SHAPES: tuple[Callable[[np.random.Generator, Pixels], np.ndarray], ...] = (_ellipse, _box, _polygon, _star, _blob)
