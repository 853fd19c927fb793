"""The view `flow`: (F-1, 2, H, W); flow[t] maps frame t to t+1."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pipeline import flow
from pipeline.codec import JpegCodec, Layout
from pipeline.errors import UsageError
from pipeline.views.size import check_size_and_quality, shrink


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and stored.

    Args:
        estimator: tvl1 (the fastest TV-L1 that works here), tvl1-cuda, tvl1-cpu, tvl1-torch, tvl1-opencv or dis.
        parameters: Settings of the estimator that differ from its defaults.
        short_side: Flow is computed at this size and stored in pixels of it; 0 keeps the video's size.
        bound: Flow is clipped to -bound..bound pixels before it becomes bytes.
        quality: JPEG quality, 1 to 100.
    """

    estimator: str = "tvl1"
    parameters: dict[str, Any] = field(default_factory=dict)
    short_side: int = 256
    bound: float = 20.0
    quality: int = 95

    def resolved(self) -> FlowSettings:
        """With the estimator's real name and all its parameters."""
        check_size_and_quality("flow", self.short_side, self.quality)
        if not self.bound > 0:
            raise UsageError(f"flow bound {self.bound} is not positive")
        estimator = flow.create(self.estimator, **self.parameters)
        return dataclasses.replace(self, estimator=estimator.name, parameters=estimator.settings)


class FlowView:
    """Estimates, quantises and encodes flow; carries the last frame of a block over to the next one."""

    name: ClassVar[str] = "flow"
    layout: ClassVar[Layout] = "stacked"
    Settings = FlowSettings

    def __init__(self, settings: FlowSettings) -> None:
        self.settings = settings
        self.jpeg = JpegCodec(settings.quality, self.layout)
        self.estimator = flow.create(settings.estimator, **settings.parameters)
        self.last: np.ndarray | None = None
        self.frame_shape = (2, 0, 0)
        self.seconds = {"flow": 0.0, "encode": 0.0}

    @property
    def attributes(self) -> dict[str, Any]:
        mapping = "byte = round((clip(pixels, -bound, bound) + bound) * 255 / (2 * bound))"
        return {"bound": self.settings.bound, "mapping": mapping, "planes": ["u (right)", "v (down)"], "unit": "pixel"}

    def add(self, frames: np.ndarray) -> list[np.ndarray]:
        began = time.perf_counter()
        frames = shrink(frames, self.settings.short_side)
        self.frame_shape = (2, frames.shape[1], frames.shape[2])
        if self.last is not None:
            frames = np.concatenate([self.last[None], frames])
        self.last = frames[-1]
        values = self.estimator.estimate(frames[:-1], frames[1:])
        estimated = time.perf_counter()
        finite = np.isfinite(values).all(axis=(1, 2, 3))
        if not finite.all():
            pair = int(np.flatnonzero(~finite)[0])
            raise ValueError(f"{self.estimator.name} gave a flow that is not finite, for pair {pair} of a block")
        quantised = flow.quantise(values, self.settings.bound)
        streams = [self.jpeg.encode_frame(frame) for frame in quantised]
        self.seconds["flow"] += estimated - began
        self.seconds["encode"] += time.perf_counter() - estimated
        return streams
