"""TV-L1 of OpenCV's contrib package on the CPU: the reference (Zach, Pock and Bischof 2007; Sanchez et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np

from pipeline.environment import require_optflow
from pipeline.flow.estimator import FlowEstimator


@dataclass
class TVL1OpenCV(FlowEstimator):
    """OpenCV's DualTVL1 with its defaults, every parameter named; one thread, as extraction runs a process per core."""

    name: ClassVar[str] = "tvl1-opencv"

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median_filtering: int = 5
    _solver: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_optflow()
        cv2.setNumThreads(1)
        self._solver = cv2.optflow.DualTVL1OpticalFlow.create(
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

    def pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self._solver.calc(first, second, None)
