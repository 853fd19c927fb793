"""A soft mask of people, by MediaPipe's selfie segmentation (model card: general and landscape, 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import cv2
import numpy as np

from pipeline.people import tflite
from pipeline.people.estimator import MapEstimator

# File and input height and width. Frames are stretched to it, as MediaPipe does.
MODELS = {
    "landscape": ("selfie_segmentation/selfie_segmentation_landscape.tflite", (144, 256)),
    "general": ("selfie_segmentation/selfie_segmentation.tflite", (256, 256)),
}


@dataclass
class Selfie(MapEstimator):
    """One network for the whole frame, whoever and however many are in it.

    Made for people who fill a good part of the picture; small and blurred ones are missed (docs/methods.md 1.7).

    Args:
        model: landscape (2 ms a frame and core) or general (3 ms).
        digest: sha256 of the model's file; any other is refused. None becomes the digest of the file that is there.
    """

    name: ClassVar[str] = "selfie"
    software: ClassVar[tuple[str, ...]] = tflite.SOFTWARE

    model: Literal["landscape", "general"] = "landscape"
    digest: str | None = None
    _network: tflite.Network | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise TypeError(f"model {self.model!r} is none of {', '.join(MODELS)}")
        self.digest = tflite.find(MODELS[self.model][0], self.digest, "segmentation")

    def open(self) -> None:
        self._network = tflite.Network(MODELS[self.model][0], "segmentation")

    def maps(self, frames: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        assert self._network is not None, "open() comes first"
        found = np.empty((len(frames), 1, *size), np.uint8)
        height, width = MODELS[self.model][1]
        for place, frame in enumerate(frames):
            shrinks = frame.shape[0] >= height and frame.shape[1] >= width
            image = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            (mask,) = self._network(image / 255.0)
            sized = cv2.resize(mask[..., 0], size[::-1], interpolation=cv2.INTER_AREA)
            found[place, 0] = np.rint(255 * np.clip(sized, 0, 1))
        return found
