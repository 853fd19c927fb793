"""Clips drawn by a policy, and streams as policies are given them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.augment import Draws, Pixels, Policy, policy
from train.clips.spec import ClipSpec, StreamSettings
from train.clips.streams import BoundStream, StoreStreams
from train.sampling import Sample, Sampling
from train.sampling.random import Random

FRAME = (84, 112)
Given = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """One clip, and what is done to it by stream."""

    frames: np.ndarray
    pixels: dict[str, Pixels]


def spec_of(given: Given, length: int = 8, stride: int = 4) -> ClipSpec:
    """Takes out of settings of a policy what is a clip's: `flow` (an input), `flow_mirror` and `statistics`."""
    flow = StreamSettings(input=given.pop("flow", ""), mirror=given.pop("flow_mirror", "turned"))
    statistics = given.pop("statistics", "imagenet")
    return ClipSpec(length=length, stride=stride, size=(16, 16), streams={"flow": flow}, statistics=statistics)


def streams_of(spec: ClipSpec, bound: float = 20.0) -> StoreStreams:
    """rgb and flow of a store whose flow goes up to this bound."""
    settings = {"rgb": {}, "flow": {"bound": bound, "mapping": "linear"}}
    return StoreStreams([spec.stream("rgb"), spec.stream("flow")], settings)


def both(bound: float = 20.0, **given: Any) -> dict[str, BoundStream]:
    return streams_of(spec_of(given), bound).own


def draw(
    name: str,
    seed: int = 1,
    epoch: int = 2,
    sample: int = 3,
    count: int = 2,
    frames: int = 470,
    bound: float = 20.0,
    sampling: Sampling = Random(),  # noqa: B008  (frozen)
    **given: Any,
) -> list[Drawn]:
    """A sample of a video of so many frames; given: settings of the policy, and what `spec_of` takes."""
    spec, made, streams = _made(name, bound, tuple(given.items()))
    draws = Draws(seed, epoch, sample)
    made.check_count(count)
    clips = sampling.draw(spec, Sample(0, np.array([frames]), count), draws.shared)
    drawn = made.sample(clips, streams, lambda video: FRAME, draws)
    return [Drawn(clip.frames, pixels) for clip, pixels in drawn]


def pixels(
    name: str,
    rng: np.random.Generator,
    frame_size: tuple[int, int] = FRAME,
    length: int = 8,
    **given: Any,
) -> dict[str, Pixels]:
    """Of one clip, all of it drawn from one generator."""
    _, made, streams = _made(name, 20.0, tuple(given.items()))
    return made.pixels(streams.own, frame_size, length, Draws(int(rng.integers(2**32))))


@functools.cache
def _made(name: str, bound: float, given: tuple[tuple[str, Any], ...]) -> tuple[ClipSpec, Policy, StoreStreams]:
    """What thousands of clips are drawn with."""
    settings = dict(given)
    spec = spec_of(settings)
    return spec, policy(name, **settings), streams_of(spec, bound)
