"""Groups of videos, such as the clusters that pseudo-labels make, whose members are found at once."""

from __future__ import annotations

import numpy as np


class Groups:
    """labels: each video's group, int64 (N,); a video of -1 is a group of its own. `members` takes constant time.

    Memory: 16 bytes a video, and as many for each group.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = np.asarray(labels, np.int64)
        self._order = np.argsort(self.labels, kind="stable")
        self._ends = np.cumsum(np.bincount(self.labels + 1))

    def members(self, video: int) -> np.ndarray:
        """The videos of a video's group, itself among them, int64 (M,), in rising order and for reading only."""
        label = int(self.labels[video])
        if label < 0:
            return np.array([video])
        return self._order[self._ends[label] : self._ends[label + 1]]
