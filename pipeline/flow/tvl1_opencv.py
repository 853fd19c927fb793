"""TV-L1 of OpenCV's contrib package on the CPU: the reference that the others are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from pipeline.environment import require_optflow
from pipeline.flow.estimator import PairEstimator
from pipeline.flow.tvl1 import TVL1


@dataclass
class TVL1OpenCV(TVL1, PairEstimator):
    """OpenCV's DualTVL1, every parameter named; one thread, as extraction runs a process per core.

    Args:
        gamma: Weight of OpenCV's own term for brightness that changes; 0 is none.
    """

    name: ClassVar[str] = "tvl1-opencv"

    gamma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_optflow()
        cv2.setNumThreads(1)

    def pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        # A solver that has seen a small frame keeps the number of scales that it had for it.
        solver: Any = cv2.optflow.DualTVL1OpticalFlow.create(
            self.tau,
            self.lambda_,
            self.theta,
            self.nscales,
            self.warps,
            self.epsilon,
            self.inner_iterations,
            self.outer_iterations,
            self.scale_step,
            self.gamma,
            self.median_filtering,
            False,  # useInitialFlow: every pair stands alone, so any frame can be recomputed by itself
        )
        return solver.calc(first, second, None)
