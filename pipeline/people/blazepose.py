"""Key points of people, by MediaPipe's BlazePose (Bazarevsky et al. 2020): a detector, then 33 points of each person.

What lies around the two networks (anchors, regions, thresholds) is what MediaPipe's own graphs do, in our words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np

from pipeline.people import tflite
from pipeline.people.estimator import MapEstimator
from pipeline.people.key_points import heat_maps
from pipeline.people.tflite import sigmoid

DETECTOR, LANDMARKS = "pose_detection/pose_detection.tflite", "pose_landmark/pose_landmark_full.tflite"
DETECTED, CROP = 224, 256  # pixels a side of what the networks see
STRIDES = ((8, 2), (16, 2), (32, 6))  # of the detector's grids, and anchors in each of their cells
OVERLAP = 0.3  # intersection over union from which two boxes are of one person
MARGIN = 1.25  # the region that is cropped, in diameters of the circle around a person
HIPS, CIRCLE = 2, 3  # rows of a detection (the first two are its box): mid of the hips; on the circle, above the head
# Which of BlazePose's points the joints of COCO are, see `key_points.JOINTS`.
OF_COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)


@dataclass
class BlazePose(MapEstimator):
    """Everybody in a frame is looked for in each frame anew, so that a frame's map depends on no other's.

    A frame takes 10 ms of a core, and 14 ms more for each person. Made for whole bodies that are not small; people who
    cover each other are often taken for one, or missed (docs/methods.md 1.7).

    Args:
        detection: Least score of a person that the detector finds, 0 to 1. MediaPipe asks for .5, and follows people
            from frame to frame; at .3 a sixth more are found, whom the second network then confirms or not.
        presence: Least score, 0 to 1, of there being a person where the detector says.
        people: At most so many of a frame, the surest.
        digests: sha256 of the two models' files; any other is refused. None become those of the files that are there.
    """

    name: ClassVar[str] = "blazepose"
    software: ClassVar[tuple[str, ...]] = tflite.SOFTWARE

    detection: float = 0.3
    presence: float = 0.5
    people: int = 8
    digests: dict[str, str] | None = None
    _detector: tflite.Network | None = field(default=None, init=False, repr=False)
    _landmarks: tflite.Network | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("detection", "presence"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise TypeError(f"{name} {value!r} is not between 0 and 1")
        if isinstance(self.people, bool) or not isinstance(self.people, int) or not 1 <= self.people <= 100:
            raise TypeError(f"people {self.people!r} is not a whole number from 1 to 100")
        recorded = self.digests or {}
        if not isinstance(recorded, dict) or recorded.keys() - {DETECTOR, LANDMARKS}:
            raise TypeError(f"digests are those of {DETECTOR} and {LANDMARKS}")
        self.digests = {name: tflite.find(name, recorded.get(name), "pose") for name in (DETECTOR, LANDMARKS)}

    def open(self) -> None:
        self._detector, self._landmarks = tflite.Network(DETECTOR, "pose"), tflite.Network(LANDMARKS, "pose")

    def maps(self, frames: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.stack([heat_maps(self.key_points(frame), size) for frame in frames])

    def key_points(self, frame: np.ndarray) -> np.ndarray:
        """(people, 17, 3) float64 of a frame, uint8 RGB (H, W, 3): see `heat_maps`."""
        found = [self._person(frame, hips, circle) for hips, circle in self._detections(frame)[: self.people]]
        return np.array([person for person in found if person is not None]).reshape(-1, len(OF_COCO), 3)

    def _detections(self, frame: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each person, the surest first, the mid of the hips and a point on the circle around all of the body, x
        and y in pixels."""
        assert self._detector is not None, "open() comes first"
        height, width = frame.shape[:2]
        scale = DETECTED / max(height, width)
        shift = (DETECTED - scale * np.array([width, height])) / 2
        placed = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        image = cv2.warpAffine(frame, placed, (DETECTED, DETECTED), flags=cv2.INTER_LINEAR)
        rows, scores = self._detector(image / 127.5 - 1)
        scores = sigmoid(scores[:, 0])
        sure = np.flatnonzero(scores >= self.detection)
        points = rows[sure].reshape(-1, 6, 2).astype(np.float64)  # middle and size of the box, four key points
        points[:, [0, 2, 3, 4, 5]] += _anchors()[sure, None]
        people = merged(points, scores[sure])
        return [((one[HIPS] - shift) / scale, (one[CIRCLE] - shift) / scale) for one in people]

    def _person(self, frame: np.ndarray, hips: np.ndarray, circle: np.ndarray) -> np.ndarray | None:
        """(17, 3) of the person in that circle; None where there is nobody."""
        assert self._landmarks is not None, "open() comes first"
        up = circle - hips
        reach = 2 * MARGIN * float(np.hypot(*up))
        if reach < 1:
            return None
        # The crop shows the person upright: `up` points up in it.
        along, across = CROP / reach * -up[1] / np.hypot(*up), CROP / reach * up[0] / np.hypot(*up)
        turn = np.array([[along, across], [-across, along]])
        placed = np.column_stack([turn, CROP / 2 - turn @ hips])
        image = cv2.warpAffine(frame, placed, (CROP, CROP), flags=cv2.INTER_LINEAR)
        landmarks, presence, *_ = self._landmarks(image / 255.0)
        if presence[0] < self.presence:
            return None
        points = landmarks.reshape(-1, 5)[list(OF_COCO)].astype(np.float64)  # x, y, z, visibility, presence
        places = (points[:, :2] - placed[:, 2]) @ np.linalg.inv(turn).T
        return np.column_stack([places / (frame.shape[1], frame.shape[0]), sigmoid(points[:, 3])])


def merged(points: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """One detection (6, 2) a person, the surest first: overlapping ones, (n, 6, 2), are averaged by their scores (n,)
    (Bazarevsky et al. 2019, the blending of BlazeFace)."""
    lower, upper = points[:, 0] - points[:, 1] / 2, points[:, 0] + points[:, 1] / 2
    area = np.prod(upper - lower, axis=-1)
    left = np.argsort(-scores, kind="stable")
    people = []
    while len(left):
        best = left[0]
        common = np.minimum(upper[left], upper[best]) - np.maximum(lower[left], lower[best])
        shared = np.prod(np.clip(common, 0, None), axis=-1)
        same = shared / (area[left] + area[best] - shared) > OVERLAP
        same[0] = True
        people.append(np.average(points[left[same]], axis=0, weights=scores[left[same]]))
        left = left[~same]
    return people


def _anchors() -> np.ndarray:
    """(2254, 2): the middles of the cells that the detector's rows belong to, x and y in pixels of what it sees."""
    grids = []
    for stride, count in STRIDES:
        middles = stride * (np.arange(DETECTED // stride) + 0.5)
        cells = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
        grids.append(np.repeat(cells, count, axis=0))
    return np.concatenate(grids)
