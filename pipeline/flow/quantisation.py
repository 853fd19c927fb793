"""Flow in pixels <-> bytes: the papers' even steps (docs/methods.md 1.3), or steps that are finer for slow motion."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Mapping = Literal["linear", "sqrt"]


@dataclass(frozen=True)
class Quantiser:
    """`quantise` with its settings, for an array, or for a tensor where that lies; the same bytes of both."""

    bound: float = 20.0
    mapping: Mapping = "linear"

    def __call__(self, flow: Any) -> Any:
        library: Any = np if isinstance(flow, np.ndarray) else importlib.import_module("torch")
        clipped = library.clip(flow, -self.bound, self.bound)
        if self.mapping == "sqrt":
            clipped = library.sign(clipped) * library.sqrt(library.abs(clipped) * self.bound)
        even = library.round((clipped + self.bound) * (255.0 / (2.0 * self.bound)))
        return even.astype(np.uint8) if library is np else even.to(library.uint8)


def quantise(flow: np.ndarray, bound: float = 20.0, mapping: Mapping = "linear") -> np.ndarray:
    """Flow in pixels as uint8, same shape; beyond -bound..bound it is clipped.

    linear: round((flow + bound) * 255 / (2 bound)), the mapping of the papers; 0 -> 128.
    sqrt: the same of sign(flow) sqrt(|flow| bound), which leaves a third of the error (docs/methods.md 1.3).
    """
    return Quantiser(bound, mapping)(flow)


def bytes_of(flow: np.ndarray, quantise: Quantiser, estimator: str) -> np.ndarray:
    """The bytes of the flow of pairs (N, 2, H, W). Raises ValueError where some is not finite; names the estimator."""
    found = np.empty(flow.shape, np.uint8)
    for pair, values in enumerate(flow):  # the arithmetic of a whole block would take six times its frames' memory
        if not np.isfinite(values).all():
            raise ValueError(f"{estimator} gave a flow that is not finite, for pair {pair} of a block")
        found[pair] = quantise(values)
    return found


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
