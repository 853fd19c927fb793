"""The view `flow`: (F-1, 2, H, W); flow[t] maps frame t to t+1."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from pipeline import flow
from pipeline.errors import UsageError
from pipeline.flow.gathering import Gathering
from pipeline.flow.quantisation import Mapping
from pipeline.views.codec import FrameCodec, JpegCodec, Layout, ZstdFrames
from pipeline.views.cuts import CutFinder
from pipeline.views.size import SHORT_SIDE, Size, check_quality, checked_short_side, resize

Codec = Literal["jpeg", "zstd"]


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and stored.

    Args:
        estimator: tvl1 (the fastest TV-L1 that works here), another name in `pipeline.flow.ESTIMATORS`, or ptlflow:NAME.
        parameters: Settings of the estimator that differ from its defaults.
        running: Those of them that say how and where it computes, not what the flow is, such as batch_size, device and where
            weights lie; they may be given as parameters, too. No part of the store: it is continued with any others.
        short_side: Flow is computed at this size and stored in pixels of it; 0 keeps the video's size.
        size: Height and width, as [128,171]: flow is computed at exactly that, whatever the video's shape; instead of
            short_side.
        bound: Flow is clipped to -bound..bound pixels before it becomes bytes.
        mapping: linear is the papers' mapping to bytes; sqrt has finer steps for slow motion, with a third of the error,
            and makes files nearly twice as large.
        codec: jpeg, or zstd, which keeps every byte (twice the size of JPEG at quality 95).
        quality: JPEG quality, 1 to 100.
    """

    estimator: str = "tvl1"
    parameters: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Any] = field(default_factory=dict)
    short_side: int = SHORT_SIDE
    size: Size | None = None
    bound: float = 20.0
    mapping: Mapping = "linear"
    codec: Codec = "jpeg"
    quality: int = 95

    @property
    def frame_codec(self) -> FrameCodec:
        return ZstdFrames() if self.codec == "zstd" else JpegCodec(self.quality, "stacked")

    @property
    def attributes(self) -> dict[str, Any]:
        """For the array's zarr.json: what the bytes mean."""
        flow = {"linear": "clipped", "sqrt": "sign(clipped) * sqrt(abs(clipped) * bound)"}[self.mapping]
        mapping = f"byte = round(({flow} + bound) * 255 / (2 * bound)), clipped = clip(pixels, -bound, bound)"
        return {"bound": self.bound, "mapping": mapping, "planes": ["u (right)", "v (down)"], "unit": "pixel"}

    def resolved(self) -> FlowSettings:
        """With the estimator's real name and all its parameters."""
        short_side = checked_short_side("flow", self.short_side, self.size)
        check_quality("flow", self.quality)
        if not self.bound > 0:
            raise UsageError(f"flow bound {self.bound} is not positive")
        for name, choice, choices in (("mapping", self.mapping, Mapping), ("codec", self.codec, Codec)):
            if choice not in get_args(choices):
                raise UsageError(f"flow {name} {choice!r} is not one of {', '.join(get_args(choices))}")
        estimator = flow.create(self.estimator, **{**self.parameters, **self.running})
        return dataclasses.replace(
            self,
            estimator=estimator.name,
            parameters=estimator.settings,
            running=estimator.running,
            short_side=short_side,
        )


class FlowView:
    """Estimates, quantises and encodes flow; carries the last frame of a block over to the next one."""

    name: ClassVar[str] = "flow"
    layout: ClassVar[Layout] = "stacked"
    Settings = FlowSettings

    def __init__(self, settings: FlowSettings) -> None:
        self.settings = settings
        self.codec = settings.frame_codec
        self.estimator = _estimator(settings)
        self.cuts = CutFinder()
        self.last: np.ndarray | None = None
        self.frame_shape = (2, 0, 0)
        self.seconds = {"flow": 0.0, "encode": 0.0}

    def prepare(self) -> None:
        self.estimator.prepare()

    @property
    def on_gpu(self) -> bool:
        return isinstance(self.estimator, Gathering)

    @property
    def attributes(self) -> dict[str, Any]:
        return self.settings.attributes

    @property
    def facts(self) -> dict[str, Any]:
        return {"cuts": self.cuts.found()}

    def add(self, frames: np.ndarray) -> list[np.ndarray]:
        began = time.perf_counter()
        frames = resize(frames, self.settings.short_side, self.settings.size)
        self.frame_shape = (2, frames.shape[1], frames.shape[2])
        if self.last is not None:
            frames = np.concatenate([self.last[None], frames])
        self.last = frames[-1]
        self.cuts.add(frames)
        values = self.estimator.estimate(frames[:-1], frames[1:])
        estimated = time.perf_counter()
        streams = [self._encoded(value, pair) for pair, value in enumerate(values)]
        self.seconds["flow"] += estimated - began
        self.seconds["encode"] += time.perf_counter() - estimated
        return streams

    def _encoded(self, values: np.ndarray, pair: int) -> np.ndarray:
        # One by one: the arithmetic of a whole block in float32 would take six times its frames' memory.
        if not np.isfinite(values).all():
            raise ValueError(f"{self.settings.estimator} gave a flow that is not finite, for pair {pair} of a block")
        return self.codec.encode_frame(flow.quantise(values, self.settings.bound, self.settings.mapping))


def _estimator(settings: FlowSettings) -> flow.FlowEstimator | Gathering:
    """One for all videos of a process: networks keep their weights in it, GPU kernels their recorded launches."""
    with _creating:  # or each thread of a process would make its own
        return _created(settings.estimator, json.dumps({**settings.parameters, **settings.running}))


_creating = threading.Lock()


@functools.lru_cache(maxsize=1)
def _created(name: str, parameters: str) -> flow.FlowEstimator | Gathering:
    estimator = flow.create(name, **json.loads(parameters))
    return Gathering(estimator) if estimator.on_gpu else estimator
