"""Flow as colours for people: hue is direction, saturation is length; no motion, and what may be none, is white."""

from __future__ import annotations

import cv2
import numpy as np

FULL_COLOUR = 99  # percentile of the lengths that gets full colour
MEASURED = 64  # pairs of a video, evenly over it, in which that length is measured
SHORTEST = 0.5  # pixels: full colour for less would show noise
REST = 40 / 255  # pixels, a step of the papers' bytes: what is shorter may be no motion, which they hold as .11 pixels


def colour_code(flow: np.ndarray, longest: float, rest: float = REST) -> np.ndarray:
    """RGB uint8 (N, H, W, 3) of flow (N, 2, H, W) in pixels; white up to `rest`, full colour from `longest` on."""
    length = np.hypot(flow[:, 0], flow[:, 1])
    angle = np.degrees(np.arctan2(flow[:, 1], flow[:, 0])) % 360.0
    saturation = np.clip((length - rest) / (longest - rest), 0.0, 1.0)
    hsv = np.stack([angle, saturation, np.ones_like(angle)], axis=-1).astype(np.float32)
    rgb = np.stack([cv2.cvtColor(frame, cv2.COLOR_HSV2RGB) for frame in hsv])
    return np.rint(rgb * 255).astype(np.uint8)


def full_colour(flow: np.ndarray) -> float:
    """Which length in pixels gets full colour where flow like this, (N, 2, H, W), is shown on one scale."""
    return float(max(np.percentile(np.hypot(flow[:, 0], flow[:, 1]), FULL_COLOUR), SHORTEST))


def measured_pairs(pairs: int) -> np.ndarray:
    """In which of a video's pairs `full_colour` is measured."""
    return np.unique(np.linspace(0, pairs - 1, MEASURED).round().astype(int))


def key(size: int) -> np.ndarray:
    """The colour of every direction and length, as a disc: RGB uint8 (size, size, 3), right is right, down is down."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    disc = colour_code(np.stack([u, v])[None], 1.0, rest=0.0)[0]
    disc[np.hypot(u, v) > 1] = 255
    return disc
