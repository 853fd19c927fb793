"""The view `segmentation`: (F, 1, H, W), how sure it is that a pixel is of somebody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline import people
from pipeline.arguments import Name
from pipeline.views.maps import MapExtractor, MapSettings, MapView
from pipeline.views.size import ShortSide

NAME = "segmentation"


@dataclass(frozen=True)
class SegmentationSettings(MapSettings):
    __doc__ = MapSettings.__doc__

    VIEW: ClassVar[str] = NAME

    estimator: Name = next(iter(people.ESTIMATORS[NAME]))
    short_side: ShortSide = 128


class SegmentationExtractor(MapExtractor):
    name = NAME
    planes = ("somebody",)


class SegmentationView(MapView):
    """A soft mask of people, as CoCon's "things" probability; not whose body it is, nor which part."""

    name = NAME
    title = "people (segmentation)"
    plane_names = SegmentationExtractor.planes
    mirror = np.eye(1, 2)
    Settings = SegmentationSettings
    Extractor = SegmentationExtractor
    colours_in_words = "orange is somebody"

    def coloured(self, measured: np.ndarray, scale: float) -> np.ndarray:
        """From black to orange."""
        shares = measured.swapaxes(1, 2).swapaxes(2, 3) / 255  # (T, H, W, 1)
        return np.rint(shares * np.array([255, 140, 0])).astype(np.uint8)


SEGMENTATION = SegmentationView()
