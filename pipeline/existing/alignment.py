"""Which pair of frames each flow picture is of, where a video has as many flow pictures as frames.

Tools disagree: flow picture k leads from frame k to the next (`first`: it is numbered like the first frame of its pair,
and that of the last frame means nothing), or to frame k from the one before (`second`: TSN's dense_flow, which leaves a
video's first frame out). The frames tell: flow carries the second frame of its own pair onto the first, that of a
neighbour less well, wherever motion changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

import cv2
import numpy as np

from pipeline.errors import Refusal
from pipeline.existing import Jpeg, Source, jpegs
from pipeline.flow.quantisation import dequantise
from pipeline.video.decode import Undecodable

Alignment = Literal["first", "second"]
LOOKED_THROUGH = 64  # videos, evenly over all of them
ENOUGH = 8  # of those that have as many flow pictures as frames
PICTURES = 8  # of a video that are looked at, evenly
NOISE = 0.25  # gray levels of error that say nothing
LARGEST = 1.0  # that one flow picture can say: log of the ratio of its two errors
LEAST = 2.0  # that all of them together must say; 0.2 each is what a video without a steady motion may say wrongly
CERTAIN = 2.2  # standard deviations of a sum that says nothing: five pictures that agree, or many that mostly do


T = TypeVar("T")


class Place(NamedTuple):
    """A flow picture, in pixels, float32 (2, h, w), the frame of its number, uint8 (H, W), and those before and after
    it."""

    flow: np.ndarray
    before: np.ndarray
    frame: np.ndarray
    after: np.ndarray


def find(frames: Source, flow: Source, videos: Sequence[str], bound: float) -> Alignment | None:
    """How flow is aligned with frames; None where no video that was looked through has as many of both.

    bound: Pixels at which the flow was clipped. Raises Refusal where the pictures do not tell.
    """
    places: list[Place] = []
    asked = looked = 0
    for video in _evenly(videos, LOOKED_THROUGH):
        try:
            images, pairs = frames.frames(video), flow.flow(video)
        except Undecodable:
            continue
        if len(images) != len(pairs) or len(images) < 2:
            continue
        asked += 1
        shown = list(_places(images, pairs, bound))
        looked += bool(shown)
        places += shown
        if looked >= ENOUGH and (decided := told_by(places)):
            return decided
    if asked and not (decided := told_by(places)):
        raise Refusal(
            "the videos have as many flow pictures as frames, and the pictures do not tell which pair of frames each is of",
            where=str(flow.path),
            remedy="`--alignment first` where flow picture k leads from frame k to the next, `--alignment second` where it"
            " leads to frame k, as TSN's dense_flow has it; nothing was written",
        )
    return decided if asked else None


def told_by(places: Iterable[Place]) -> Alignment | None:
    """The alignment that explains the frames better; None where they leave it open."""
    said = []
    for place in places:
        first = _error(place.frame, place.after, place.flow)
        second = _error(place.before, place.frame, place.flow)
        said.append(np.clip(np.log((second + NOISE) / (first + NOISE)), -LARGEST, LARGEST))
    total = float(np.sum(said))
    if abs(total) < max(LEAST, CERTAIN * float(np.sqrt(np.sum(np.square(said))))):
        return None
    return "first" if total > 0 else "second"


def _places(images: Sequence[Jpeg], pairs: Sequence[tuple[Jpeg, ...]], bound: float) -> Iterable[Place]:
    """Some places of a video; those whose pictures cannot be read are left out."""
    for number in _evenly(range(1, len(images) - 1), PICTURES):
        try:
            values = jpegs.planes(tuple(map(jpegs.load, pairs[number])), f"flow {number}")
            around = [jpegs.frame(jpegs.load(images[at]), f"frame {at}") for at in range(number - 1, number + 2)]
        except Undecodable:
            continue
        before, frame, after = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in around)
        yield Place(dequantise(values, bound), before, frame, after)


def _evenly(items: Sequence[T], most: int) -> Sequence[T]:
    return items[:: max(1, -(-len(items) // most))]


def _error(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> float:
    """Mean difference of `first` and of `second` carried back along the flow, where that stays inside; gray levels."""
    height, width = flow.shape[1:]
    first, second = (
        cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) for frame in (first, second)
    )
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns + flow[0], rows + flow[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    carried = cv2.remap(second, x, y, cv2.INTER_LINEAR)
    return float(np.abs(carried - first)[inside].mean()) if inside.any() else 0.0
