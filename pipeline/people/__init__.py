"""Estimators of where people are, behind one interface: `create(view, name, **parameters).maps(...)`.

An estimator is one module and one line in ESTIMATORS; its packages are imported only when it is created.
"""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import UsageError, refuse_unknown
from pipeline.people.estimator import MapEstimator

ESTIMATORS: dict[str, dict[str, str]] = {  # by the view that they make; the first is its default
    "segmentation": {
        "selfie": "pipeline.people.selfie:Selfie",
        "program": "pipeline.people.program:MaskProgram",
        "files": "pipeline.people.files:MaskFiles",
    },
    "pose": {
        "blazepose": "pipeline.people.blazepose:BlazePose",
        "program": "pipeline.people.program:PoseProgram",
        "files": "pipeline.people.files:PoseFiles",
    },
}

__all__ = ["ESTIMATORS", "MapEstimator", "choose", "create", "software"]


def create(view: str, name: str, **parameters: Any) -> MapEstimator:
    """The estimator of that name, of that view, ready to work in this process.

    Raises UsageError for an unknown name or parameter, and where it cannot work here.
    """
    estimator = choose(view, name, **parameters)
    estimator.open()
    return estimator


def choose(view: str, name: str, **parameters: Any) -> MapEstimator:
    """The same for its `settings` and `running` alone. Raises UsageError for an unknown name or parameter, and where
    its model is not here."""
    try:
        return _named(view, name)(**parameters)
    except TypeError as error:
        raise UsageError(f"{view} estimator {name!r} does not take these parameters: {error}") from error


def software(view: str, name: str) -> tuple[str, ...]:
    """Distributions, beside NumPy and OpenCV, whose version decides what the estimator of that name finds."""
    return _named(view, name).software


def _named(view: str, name: str) -> type[MapEstimator]:
    if name not in ESTIMATORS[view]:
        refuse_unknown(f"{view} estimator", name, ESTIMATORS[view])
    module, _, kind = ESTIMATORS[view][name].partition(":")
    return getattr(importlib.import_module(module), kind)
