"""An estimator that says it computes on a GPU and does not; loaded into extraction's worker processes by Dask's
preload.

Environment: FAKE_GPU is a folder; every batch adds a line to `<pid>.jsonl` there: which GPU the process sees, how many
pairs. FAKE_GPU_FAULT: "error" or "death" at every pair, or "death by videos", at every pair that is not black.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest

from pipeline import flow
from pipeline.flow.dis import DIS
from pipeline.store.settings import ExtractionSettings
from pipeline.views import flow as flow_view
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline.reference import extract_here

NAME = "fake-gpu"


@dataclass
class FakeGPU(DIS):
    """DIS flow on what it says is a GPU."""

    name = NAME
    RUNNING = frozenset({"batch_size"})

    device = "cuda"
    batch_size: int = 64

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        fault = os.environ.get("FAKE_GPU_FAULT")
        if fault == "error":
            raise RuntimeError("Command '['gcc', 'main.c']' returned non-zero exit status 1.")
        if fault == "death" or (fault == "death by videos" and first.any()):
            os._exit(1)
        if folder := os.environ.get("FAKE_GPU"):
            line = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "pairs": len(first), "most": self.batch_size}
            with open(Path(folder) / f"{os.getpid()}.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
        return super().batch(first, second)


def dask_setup(_: object) -> None:
    """Called by Dask in every worker process."""
    flow.ESTIMATORS[NAME] = "tests.pipeline.fake_gpu:FakeGPU"


def settings(estimator: str = NAME, **parameters: int) -> ExtractionSettings:
    flow_settings = FlowSettings(estimator=estimator, parameters=parameters)
    return ExtractionSettings({"rgb": RgbSettings(quality=90), "flow": flow_settings}).resolved()


@contextmanager
def fake_gpus(names: str, *preloads: Path) -> Iterator[pytest.MonkeyPatch]:
    """As on a machine whose GPUs have these names, which `fake-gpu` computes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(flow.ESTIMATORS, NAME, "tests.pipeline.fake_gpu:FakeGPU")
        patch.setenv("CUDA_VISIBLE_DEVICES", names)
        patch.setattr("torch.cuda.device_count", lambda: len(names.split(",")))
        with dask.config.set({"distributed.worker.preload": ["tests.pipeline.fake_gpu", *map(str, preloads)]}):
            yield patch
    flow_view._created.cache_clear()


def plain_store(videos: Path, store: Path) -> Path:
    """The store of the same settings that one thread makes without gathering."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeGPU, "device", "cpu")
        flow_view._created.cache_clear()
        root = extract_here(videos, store, settings()).root
    flow_view._created.cache_clear()
    return root


def batches(folder: Path) -> list[dict]:
    """What the processes noted."""
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
