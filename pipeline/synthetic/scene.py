"""One synthetic video: two sprites that move as their class says, over a drifting background."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.synthetic.appearance import SPRITE_RADIUS, SPRITE_SIDE, smooth_background, sprite
from pipeline.synthetic.motions import MOTIONS, pair_of_tracks, wandering_track

CLASSES: tuple[str, ...] = tuple(MOTIONS)
"""The class names in the order of their indices."""

# Of 17 joints in the order of COCO, a standing figure in a sprite's circle of radius 1: x to the right, y down.
BODY = np.array(
    [
        *[(0.0, -0.85), (0.08, -0.92), (-0.08, -0.92), (0.15, -0.88), (-0.15, -0.88)],  # nose, eyes, ears
        *[(0.3, -0.55), (-0.3, -0.55), (0.45, -0.2), (-0.45, -0.2), (0.5, 0.15), (-0.5, 0.15)],  # shoulders to wrists
        *[(0.2, 0.1), (-0.2, 0.1), (0.25, 0.5), (-0.25, 0.5), (0.25, 0.9), (-0.25, 0.9)],  # hips to ankles
    ]
)

# Lengths are drawn in pixels of a frame of this size, and scaled to the size asked for.
_HEIGHT, _WIDTH = 84, 112
_GRAIN_SHIFTS = 32


def video(
    class_name: str, seed: int | Sequence[int], frames: int = 48, height: int = _HEIGHT, width: int = _WIDTH
) -> np.ndarray:
    """The frames of one video, (F, H, W, 3) uint8 RGB, a function of the arguments alone.

    Two sprites move as `class_name` says; half of the videos have a third one that wanders at random. Texture, shape,
    size, colour and place of the sprites, the background, a slow camera drift, flicker and grain are drawn from one
    distribution for all classes, so that nearest neighbours by one frame, by the mean of the frames or by colours find
    the class no more often than chance.

    `seed` is one non-negative integer or several. Raises ValueError for an unknown class.
    """
    scene = _Scene(class_name, seed, frames, height, width)
    grain = scene.grain
    out = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        x, y = scene.camera[index]
        window = np.array([[1, 0, scene.margin + x], [0, 1, scene.margin + y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        image: np.ndarray = cv2.warpAffine(
            scene.background, window, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
        for patch, radius, track in scene.actors:
            at_x, at_y, angle, scale = track[index]
            _paint(image, patch, at_x - x, at_y - y, angle, radius * scale)
        top, left = scene.rng.integers(0, _GRAIN_SHIFTS, 2)
        image *= scene.gain[index]
        image += grain[top : top + height, left : left + width]
        out[index] = np.clip(image, 0, 255, out=image)
    return out


def truth(
    class_name: str, seed: int | Sequence[int], frames: int = 48, height: int = _HEIGHT, width: int = _WIDTH
) -> tuple[np.ndarray, np.ndarray]:
    """Where the sprites of `video` of the same arguments are: masks, uint8 (F, H, W), 255 where one covers the
    background; and key points, float32 (F, sprites, 17, 3): x and y as fractions of width and height, and 1.

    A sprite's 17 points are those of BODY, which turns and grows with it. Points that another sprite hides are told,
    too.
    """
    scene = _Scene(class_name, seed, frames, height, width)
    masks = np.empty((frames, height, width), np.uint8)
    points = np.ones((frames, len(scene.actors), len(BODY), 3), np.float32)
    for index in range(frames):
        x, y = scene.camera[index]
        image = np.zeros((height, width, 3), np.float32)
        for number, (patch, radius, track) in enumerate(scene.actors):
            at_x, at_y, angle, scale = track[index]
            white = np.concatenate([np.repeat(255 * patch[..., 3:], 3, axis=-1), patch[..., 3:]], axis=-1)
            _paint(image, white, at_x - x, at_y - y, angle, radius * scale)
            cos, sin = np.cos(angle), np.sin(angle)
            places = radius * scale * BODY @ np.array([[cos, sin], [-sin, cos]]) + (at_x - x + 0.5, at_y - y + 0.5)
            points[index, number, :, :2] = places / (width, height)
        masks[index] = np.rint(np.clip(image[..., 0], 0, 255))
    return masks, points


class _Scene:
    """All that is drawn at random for a video, in this order."""

    def __init__(self, class_name: str, seed: int | Sequence[int], frames: int, height: int, width: int) -> None:
        if class_name not in MOTIONS:
            raise ValueError(f"unknown class {class_name!r}; the classes are {', '.join(CLASSES)}")
        self.rng = rng = np.random.default_rng(seed)
        unit = min(height / _HEIGHT, width / _WIDTH)
        self.margin = round(20 * unit)
        self.background = smooth_background(rng, height + 2 * self.margin, width + 2 * self.margin)
        self.actors = _actors(class_name, rng, frames, height, width, unit)
        self.camera = _camera(rng, frames) * unit
        self.gain = _flicker(rng, frames)
        self.grain = rng.normal(0, 4, (height + _GRAIN_SHIFTS, width + _GRAIN_SHIFTS, 3)).astype(np.float32)


def _actors(
    class_name: str, rng: np.random.Generator, frames: int, height: int, width: int, unit: float
) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Every sprite of a video with its radius and its track (F, 4), in the order of painting."""
    sprites = [sprite(rng), sprite(rng)]
    radii = list(rng.uniform(11, 16, 2))
    tracks = pair_of_tracks(class_name, rng, frames, height / unit, width / unit)
    if rng.integers(0, 2):
        tracks.append(wandering_track(rng, frames, height / unit, width / unit))
        sprites.append(sprite(rng))
        radii.append(rng.uniform(11, 16) * 0.8)
    pixels = np.array([unit, unit, 1, 1])
    return [(patch, radius * unit, track * pixels) for patch, radius, track in zip(sprites, radii, tracks, strict=True)]


def _camera(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Where the camera looks, (F, 2) of x, y: a slow pan and a slower sway."""
    time = np.arange(frames)
    pan = rng.uniform(-0.12, 0.12, 2)
    places = []
    for axis in range(2):
        size, period, phase = rng.uniform(0, 2), rng.uniform(40, 90), rng.uniform(0, 2 * np.pi)
        places.append(pan[axis] * time + size * np.sin(2 * np.pi * time / period + phase))
    return np.stack(places, axis=1)


def _flicker(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A factor of the brightness for each frame, (F,): a wave of up to 6 % and noise of 1 %."""
    size, period, phase = rng.uniform(0, 0.06), rng.uniform(6, 30), rng.uniform(0, 2 * np.pi)
    return 1 + size * np.sin(2 * np.pi * np.arange(frames) / period + phase) + rng.normal(0, 0.01, frames)


def _paint(image: np.ndarray, patch: np.ndarray, x: float, y: float, angle: float, radius: float) -> None:
    """Blends a sprite's premultiplied patch into `image` (H, W, 3), around x, y, turned, scaled to `radius` pixels."""
    height, width = image.shape[:2]
    reach = int(np.ceil(radius * 1.15)) + 2
    left, right = max(0, int(x) - reach), min(width, int(x) + reach + 1)
    top, bottom = max(0, int(y) - reach), min(height, int(y) + reach + 1)
    if left >= right or top >= bottom:
        return
    scale = radius / SPRITE_RADIUS
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre = (SPRITE_SIDE - 1) / 2
    # From a pixel of the window to a place in the patch: the inverse rotation and scaling around the centres.
    inverse = np.array(
        [
            [cos, sin, centre - cos * (x - left) - sin * (y - top)],
            [-sin, cos, centre + sin * (x - left) - cos * (y - top)],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    painted = cv2.warpAffine(patch, inverse, (right - left, bottom - top), flags=flags)
    window = image[top:bottom, left:right]
    window *= 1 - painted[..., 3:]
    window += painted[..., :3]
