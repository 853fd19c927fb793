"""What every estimator of people takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from pipeline.estimator import Estimator


class MapEstimator(Estimator, ABC):
    """Maps of the people in frames: where anybody is, or where each joint of anybody is."""

    def of_video(self, video_id: str) -> MapEstimator:
        """The estimator for one video: itself, unless it looks something up by the video's id. Raises ValueError."""
        return self

    def finish(self, cut: bool) -> None:
        """All frames of the video were seen, or, where it is `cut`, those that are stored. Raises ValueError where that
        cannot be."""

    @property
    def facts(self) -> dict[str, Any]:
        """For the commit record of a video, what is to be known of the estimate; most have nothing to add."""
        return {}

    @abstractmethod
    def maps(self, frames: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """uint8 (n, P, height, width): 255 is sure, 0 is nobody.

        frames: uint8 RGB (n, H, W, 3), as decoded. numbers: of the frames among those that are estimated, 0, 1, 2...
        size: height and width of the maps. The map of a frame does not depend on the other frames. Raises ValueError.
        """
