"""What extraction costs a CPU beside flow: with an estimator that takes no time, as if a GPU were never waited for.

It gives the flow of one pair, computed once, for every pair of that size: encoding costs what flow costs, not what none
would. Once as flow, which this CPU makes bytes of, and once as bytes, as `bytes_back` brings them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pipeline import flow, synthetic
from pipeline.flow.estimator import FlowEstimator, gray
from pipeline.flow.quantisation import Quantiser
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.benchmarks.one_core import in_turn, one_core, storing

SIZE = (128, 171)  # of both views
CORES = 16  # of the machine that a rate is divided out for


@dataclass
class Instant(FlowEstimator):
    name: ClassVar[str] = "instant"
    RUNNING: ClassVar[frozenset[str]] = frozenset({"bytes_back"})

    bytes_back: bool = False

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one = _flow(first.shape[1:3])
        return np.broadcast_to(one, (len(first), *one.shape))

    def quantised(self, first: np.ndarray, second: np.ndarray, quantise: Quantiser) -> np.ndarray:
        if not self.bytes_back:
            return super().quantised(first, second, quantise)
        one = _bytes(first.shape[1:3], quantise)
        return np.broadcast_to(one, (len(first), *one.shape))


@functools.cache
def _flow(size: tuple[int, int]) -> np.ndarray:
    frames = gray(synthetic.video(synthetic.CLASSES[0], 0, frames=2, height=size[0], width=size[1]))
    return flow.create("dis").estimate(frames[:1], frames[1:])[0]


@functools.cache
def _bytes(size: tuple[int, int], quantise: Quantiser) -> np.ndarray:
    return quantise(_flow(size))


def measure(videos: list[Path], scratch: Path) -> dict[str, float]:
    """CPU time a frame of both ways, in turn, video by video; and frames a second of 16 such cores, by division."""
    with pytest.MonkeyPatch.context() as patch, one_core():
        patch.setitem(flow.ESTIMATORS, "instant", f"{__name__}:Instant")
        works = []
        for back in (False, True):
            chosen = FlowSettings(estimator="instant", size=SIZE, running={"bytes_back": back})
            settings = ExtractionSettings({"rgb": RgbSettings(size=SIZE), "flow": chosen}).resolved()
            works.append(storing(scratch / f"instant-{back}", settings))
        spent = in_turn(videos, *works)
        frames = int(open_store(scratch / "instant-True").table.lengths.sum())
    figures = {}
    for name, one in zip(("flow back", "bytes back"), spent, strict=True):
        figures[f"{name}: ms of CPU a frame"] = 1e3 * one.cpu / frames
        figures[f"{name}: frames/s of {CORES} cores, by division"] = CORES * frames / one.cpu
    return figures
