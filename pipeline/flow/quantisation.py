"""Flow in pixels <-> bytes: the papers' even steps (docs/methods.md 1.3), or steps that are finer for slow motion."""

from __future__ import annotations

from typing import Literal

import numpy as np

Mapping = Literal["linear", "sqrt"]


def quantise(flow: np.ndarray, bound: float = 20.0, mapping: Mapping = "linear") -> np.ndarray:
    """Flow in pixels as uint8, same shape; beyond -bound..bound it is clipped.

    linear: round((flow + bound) * 255 / (2 bound)), the mapping of the papers; 0 -> 128.
    sqrt: the same of sign(flow) sqrt(|flow| bound), which leaves a third of the error (docs/methods.md 1.3).
    """
    clipped = np.clip(flow, -bound, bound)
    if mapping == "sqrt":
        clipped = np.sign(clipped) * np.sqrt(np.abs(clipped) * np.float32(bound))
    return np.rint((clipped + bound) * (255.0 / (2.0 * bound))).astype(np.uint8)


def dequantise(values: np.ndarray, bound: float = 20.0, mapping: Mapping = "linear") -> np.ndarray:
    """Bytes as flow in pixels, float32.

    linear: values * 2 bound / 255 - bound. Zero flow was stored as 128 and comes back as +0.078 px (sqrt: +0.0003 px).
    """
    even = values.astype(np.float32) * np.float32(2.0 * bound / 255.0) - np.float32(bound)
    return even if mapping == "linear" else even * np.abs(even) * np.float32(1 / bound)


def linear_values(mapping: Mapping) -> np.ndarray | None:
    """What each byte would be in the linear mapping if that had fractions: float32 (256,); None where it is the byte
    itself.

    Resizing mixes neighbouring values, so it needs values that are linear in the flow.
    """
    if mapping == "linear":
        return None
    every = np.arange(256, dtype=np.uint8)
    return ((dequantise(every, 1.0, mapping) + 1) * np.float32(127.5)).astype(np.float32)
