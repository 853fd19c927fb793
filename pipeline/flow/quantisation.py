"""Flow in pixels <-> bytes, with the papers' mapping (specs/coclr.md section 5.3)."""

from __future__ import annotations

import numpy as np


def quantise(flow: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """round((clip(flow, -bound, bound) + bound) * 255 / (2 bound)) as uint8, same shape; flow in pixels; 0 -> 128."""
    clipped = np.clip(flow, -bound, bound)
    return np.rint((clipped + bound) * (255.0 / (2.0 * bound))).astype(np.uint8)


def dequantise(values: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """values * 2 bound / 255 - bound, float32, in pixels. Zero flow was stored as 128 and comes back as +0.078 px."""
    return values.astype(np.float32) * np.float32(2.0 * bound / 255.0) - np.float32(bound)
