"""Key points of people as heat maps, one for each joint, in the order of COCO."""

from __future__ import annotations

import numpy as np

JOINTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
SPREAD = 0.02  # of the shorter side: the standard deviation of a joint's spot, 1.3 pixels of 64
OTHER_SIDE = {"left": "right", "right": "left"}


def _mirrored(name: str) -> str:
    side, _, joint = name.partition(" ")
    return f"{OTHER_SIDE[side]} {joint}" if joint else name


MIRRORED = tuple(JOINTS.index(_mirrored(name)) for name in JOINTS)  # what each joint is called in a mirror


def heat_maps(people: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (17, height, width) of key points (people, 17, 3).

    Each is x and y, fractions of width and height from the left upper corner, and a confidence in 0..1: the height of
    its spot. Spots of several people are added, up to 255. Points that are not finite, and those of confidence 0, are
    not drawn.
    """
    height, width = size
    sigma = SPREAD * min(size)
    drawn = np.zeros((len(JOINTS), height, width), np.float32)
    known = np.isfinite(people).all(axis=-1) & (people[..., 2] > 0)
    shown = known.any(axis=1)
    for person, seen in zip(people[shown], known[shown], strict=True):
        joints = np.flatnonzero(seen)
        across = _spot(person[joints, 0] * width, width, sigma)
        down = _spot(person[joints, 1] * height, height, sigma)
        confidence = np.clip(person[joints, 2], 0, 1)[:, None, None]
        drawn[joints] += (255 * confidence * down[:, :, None] * across[:, None, :]).astype(np.float32)
    return np.rint(np.clip(drawn, 0, 255)).astype(np.uint8)


def _spot(centres: np.ndarray, length: int, sigma: float) -> np.ndarray:
    """(n, length): a bell around each centre, at the middles of the pixels."""
    distance = np.arange(length) + 0.5 - centres[:, None]
    return np.exp(-0.5 * (distance / sigma) ** 2)
