"""Which pair of frames each flow picture is of, where a video has as many flow pictures as frames.

Tools disagree: flow picture k leads from frame k to the next (`first`: it is numbered like the first frame of its pair,
and that of the last frame means nothing), or to frame k from the one before (`second`: TSN's dense_flow, which leaves a
video's first frame out). The frames tell: a pair's own flow carries its second frame onto the first, that of a
neighbour less well, wherever motion changes. Two pictures are compared for one pair, as pairs differ in more than their
flow: at a cut, or where an encoder begins anew, no flow fits.

Tried with DIS flow, in both conventions, on 571 real clips, 60 synthetic ones, and 96 of the real ones made still, cut,
shaken, slowed, faded, noisy and so on in 21 ways: of 5,292 guesses from one video 1,391 were right and none wrong, the
others ask; of 10,400 from sets of up to 64 clips of a kind none was wrong, and all real and synthetic sets were right.
Clips that stand still, pan evenly or are slowed by blending ask.
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
SOME = 4  # of them that are counted one by one, not picture by picture
PICTURES = 8  # of a video that are looked at, evenly
NOISE = 0.25  # gray levels of error that say nothing
LARGEST = 1.0  # that one flow picture can say: log of the ratio of its two errors
LEAST = 2.0  # that all of them together must say, and half of it without the video that says most
FAINT = 0.03  # on average; less is what an even motion of everything may say wrongly
CERTAIN = 1.8  # standard deviations of a sum that says nothing: four that agree, or many that mostly do


T = TypeVar("T")


class Place(NamedTuple):
    """A pair of frames, uint8 (H, W), and the flow pictures with their numbers, in pixels, float32 (2, h, w)."""

    frames: tuple[np.ndarray, np.ndarray]
    flows: tuple[np.ndarray, np.ndarray]


def find(frames: Source, flow: Source, videos: Sequence[str], bound: float) -> Alignment | None:
    """How flow is aligned with frames; None where no video that was looked through has as many of both.

    bound: Pixels at which the flow was clipped. Raises Refusal where the pictures do not tell.
    """
    said: list[np.ndarray] = []
    asked = 0
    for video in _evenly(videos, LOOKED_THROUGH):
        try:
            images, pairs = frames.frames(video), flow.flow(video)
        except Undecodable:
            continue
        if len(images) != len(pairs) or len(images) < 2:
            continue
        asked += 1
        said += [shown] if len(shown := said_by(_places(images, pairs, bound))) else []
        if len(said) >= ENOUGH and (decided := told_by(said)):
            return decided
    if asked and not (decided := told_by(said)):
        raise Refusal(
            "the videos have as many flow pictures as frames, and the pictures do not tell"
            " which pair of frames each is of",
            where=str(flow.path),
            remedy="`--alignment first` where flow picture k leads from frame k to the next,"
            " `--alignment second` where it leads to frame k, as TSN's dense_flow has it; nothing was written",
        )
    return decided if asked else None


def said_by(places: Iterable[Place]) -> np.ndarray:
    """What each place of a video says for `first`, or against it: the log of a ratio of errors."""
    said = []
    for (frame, after), flows in places:
        first, second = (_error(frame, after, flow) for flow in flows)
        said.append(np.clip(np.log((second + NOISE) / (first + NOISE)), -LARGEST, LARGEST))
    return np.array(said)


def told_by(videos: Sequence[np.ndarray]) -> Alignment | None:
    """The alignment that explains the frames better; None where they leave it open. videos: what each says."""
    if not videos:
        return None
    said, sums = np.concatenate(videos), np.array([video.sum() for video in videos])
    # The places of a video are much alike, so that each video counts once where there are some.
    counted = sums if len(sums) >= SOME else said
    least = max(LEAST, FAINT * len(said), CERTAIN * float(np.sqrt(np.square(counted).sum())))
    total = float(sums.sum())
    others = np.sort(sums * np.sign(total))[:-1]
    if abs(total) < least or (len(others) and others.sum() < LEAST / 2):
        return None
    return "first" if total > 0 else "second"


def _places(images: Sequence[Jpeg], pairs: Sequence[tuple[Jpeg, ...]], bound: float) -> Iterable[Place]:
    """Some places of a video; those whose pictures cannot be read are left out."""
    pairs_of_two = range(1, len(images) - 2)  # where both pictures mean something either way
    for place, number in enumerate(_evenly(pairs_of_two, PICTURES)):
        number += place % 2 if number + 1 in pairs_of_two else 0  # not in step with what an encoder does every so often
        try:
            flows = [jpegs.planes(tuple(map(jpegs.load, pairs[at])), f"flow {at}") for at in (number, number + 1)]
            frames = [jpegs.frame(jpegs.load(images[at]), f"frame {at}") for at in (number, number + 1)]
        except Undecodable:
            continue
        frame, after = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames)
        yield Place((frame, after), (dequantise(flows[0], bound), dequantise(flows[1], bound)))


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
