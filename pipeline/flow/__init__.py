"""Optical-flow estimators behind one interface: `create(name, **settings).estimate(first, second)`.

An estimator is one module and one line in ESTIMATORS; its packages are imported only when it is created.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError, refuse_unknown
from pipeline.flow.estimator import FlowEstimator
from pipeline.flow.quantisation import dequantise, quantise

ESTIMATORS = {
    "tvl1-opencv": "pipeline.flow.tvl1_opencv:TVL1OpenCV",
    "tvl1-cpu": "pipeline.flow.tvl1_cpu:TVL1CPU",
    "tvl1-torch": "pipeline.flow.tvl1_torch:TVL1Torch",
    "tvl1-cuda": "pipeline.flow.tvl1_cuda:TVL1CUDA",
    "dis": "pipeline.flow.dis:DIS",
    "farneback": "pipeline.flow.farneback:Farneback",
    "raft": "pipeline.flow.raft:RAFT",
    "raft-small": "pipeline.flow.raft:RAFTSmall",
}
FASTEST_TVL1 = ("tvl1-cuda", "tvl1-cpu")  # fastest first; "tvl1" takes the first that works here
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

__all__ = ["FlowEstimator", "choose", "create", "dequantise", "quantise", "software"]


def create(name: str, **settings: Any) -> FlowEstimator:
    """The estimator of that name with its settings, ready to work in this process.

    "tvl1" is the fastest TV-L1 available, "ptlflow:NAME" the model NAME of the package ptlflow; `.name` says which it
    is. Raises UsageError for an unknown name or setting, and where it cannot work here.
    """
    estimator = choose(name, **settings)
    estimator.open()
    return estimator


def choose(name: str, **settings: Any) -> FlowEstimator:
    """The same for its `name`, `settings` and `running` alone: it may be for another machine, whose device and memory
    this one has not. Only "tvl1" is what is the fastest here. Raises UsageError for an unknown name or setting.
    """
    if name == "tvl1":
        name = next(name for name in FASTEST_TVL1 if name != "tvl1-cuda" or _cuda_works())
    estimator = _named(name)
    try:
        return estimator(**settings)
    except TypeError as error:
        raise UsageError(f"flow estimator {name!r} does not take these settings: {error}") from error


def software(name: str) -> tuple[str, ...]:
    """Distributions, beside NumPy and OpenCV, whose version decides the flow of the estimator of that name."""
    return _named(name).software


def _named(name: str) -> type[FlowEstimator]:
    package, _, model = name.partition(":")
    if package == "ptlflow":
        return importlib.import_module("pipeline.flow.raft").named(model)
    if name not in ESTIMATORS:
        refuse_unknown("flow estimator", name, ["tvl1", *ESTIMATORS, "ptlflow:NAME"])
    module, _, kind = ESTIMATORS[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def _cuda_works() -> bool:
    """Without a driver this takes no time; with one it imports torch to ask further."""
    if not NVIDIA_DRIVER.exists() or not importlib.util.find_spec("triton"):
        return False
    return importlib.import_module("pipeline.flow.tvl1_cuda").available()
