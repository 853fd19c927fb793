"""The view `pose`: (F, 17, H, W), a heat map for each joint of people, in the order of COCO."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline import people
from pipeline.arguments import Name
from pipeline.people.key_points import JOINTS, MIRRORED
from pipeline.views.maps import MapExtractor, MapSettings, MapView
from pipeline.views.size import ShortSide

NAME = "pose"


@dataclass(frozen=True)
class PoseSettings(MapSettings):
    __doc__ = MapSettings.__doc__

    VIEW: ClassVar[str] = NAME

    estimator: Name = next(iter(people.ESTIMATORS[NAME]))
    short_side: ShortSide = 64


class PoseExtractor(MapExtractor):
    name = NAME
    planes = JOINTS


class PoseView(MapView):
    """Where each joint of anybody is. A left joint is a right one in the mirror."""

    name = NAME
    title = "joints (pose)"
    plane_names = PoseExtractor.planes
    mirror = np.eye(len(JOINTS), len(JOINTS) + 1)[list(MIRRORED)]
    Settings = PoseSettings
    Extractor = PoseExtractor
    colours_in_words = "each joint has a colour of its own, from the head, red, to the feet, violet"

    def coloured(self, measured: np.ndarray, scale: float) -> np.ndarray:
        """At each place the colour of the joint that is the surest there."""
        strongest = measured.argmax(axis=1)
        heights = np.take_along_axis(measured, strongest[:, None], axis=1)[:, 0]
        return np.rint(COLOURS[strongest] * (heights[..., None] / 255)).astype(np.uint8)


COLOURS = 255 * np.array([colorsys.hsv_to_rgb(0.8 * joint / (len(JOINTS) - 1), 1, 1) for joint in range(len(JOINTS))])
POSE = PoseView()
