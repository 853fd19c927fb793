"""Optical-flow estimators behind one interface: `create(name, **settings).estimate(first, second)`.

An estimator is one module and one line in ESTIMATORS; its packages are imported only when it is created.
"""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import UsageError, refuse_unknown
from pipeline.flow.estimator import FlowEstimator
from pipeline.flow.quantisation import dequantise, quantise

ESTIMATORS = {
    "tvl1-opencv": "pipeline.flow.tvl1_opencv:TVL1OpenCV",
    "tvl1-cpu": "pipeline.flow.tvl1_cpu:TVL1CPU",
    "dis": "pipeline.flow.dis:DIS",
    "farneback": "pipeline.flow.farneback:Farneback",
    "raft": "pipeline.flow.raft:RAFT",
    "raft-small": "pipeline.flow.raft:RAFTSmall",
}
FASTEST_TVL1 = ("tvl1-cpu",)  # fastest first; "tvl1" takes the first that works here

__all__ = ["FlowEstimator", "create", "dequantise", "quantise"]


def create(name: str, **settings: Any) -> FlowEstimator:
    """The estimator of that name with its settings.

    "tvl1" is the fastest TV-L1 available, "ptlflow:NAME" the model NAME of the package ptlflow; `.name` says which it is.
    Raises UsageError for an unknown name or setting.
    """
    estimator = _named(FASTEST_TVL1[0] if name == "tvl1" else name)
    try:
        return estimator(**settings)
    except TypeError as error:
        raise UsageError(f"flow estimator {name!r} does not take these settings: {error}") from error


def _named(name: str) -> type[FlowEstimator]:
    package, _, model = name.partition(":")
    if package == "ptlflow":
        return importlib.import_module("pipeline.flow.raft").named(model)
    if name not in ESTIMATORS:
        refuse_unknown("flow estimator", name, ["tvl1", *ESTIMATORS, "ptlflow:NAME"])
    module, _, kind = ESTIMATORS[name].partition(":")
    return getattr(importlib.import_module(module), kind)
