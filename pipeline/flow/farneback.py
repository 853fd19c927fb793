"""Polynomial expansion (Farneback 2003), OpenCV's implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from pipeline.flow.estimator import PairEstimator, require_numbers

MOST = {"winsize": 999, "poly_n": 31}  # beyond, a pair takes minutes


@dataclass
class Farneback(PairEstimator):
    """For previews and comparisons; not what the papers' numbers were made with. The names are OpenCV's.

    Args:
        pyr_scale: Size of a level of the pyramid relative to the one below it.
        levels: Levels of the pyramid, the frame itself included.
        winsize: Side of the window that flow is averaged over, in pixels; larger is more robust and more blurred.
        iterations: Iterations a level.
        poly_n: Side of the neighbourhood that is approximated by a polynomial, in pixels.
        poly_sigma: Deviation of the Gaussian that weights this neighbourhood, in pixels.
        gaussian: Average with a Gaussian window instead of a box: more accurate, slower.
    """

    name: ClassVar[str] = "farneback"

    pyr_scale: float = 0.5
    levels: int = 3
    winsize: int = 15
    iterations: int = 3
    poly_n: int = 5
    poly_sigma: float = 1.2
    gaussian: bool = False

    def __post_init__(self) -> None:
        require_numbers(self)
        if not 0 < self.pyr_scale < 1:
            raise TypeError(f"pyr_scale {self.pyr_scale} is not between 0 and 1")
        if not 0 < self.poly_sigma < np.inf:
            raise TypeError(f"poly_sigma {self.poly_sigma} is not positive")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise TypeError(f"{name} {getattr(self, name)} is more than {most} pixels")
        if not isinstance(self.gaussian, bool):
            raise TypeError(f"gaussian {self.gaussian!r} is neither true nor false")
        cv2.setNumThreads(1)

    def pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return cv2.calcOpticalFlowFarneback(  # type: ignore[call-overload]  # of its None below
            first,
            second,
            None,  # no flow to start from: every pair stands alone
            self.pyr_scale,
            self.levels,
            self.winsize,
            self.iterations,
            self.poly_n,
            self.poly_sigma,
            cv2.OPTFLOW_FARNEBACK_GAUSSIAN if self.gaussian else 0,
        )
