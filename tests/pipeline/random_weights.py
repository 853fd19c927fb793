"""RAFT and ptlflow's other networks with random weights, as none are downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import flow
from pipeline.flow import networks, raft


def save(model: str, path: Path, seed: int = 0) -> str:
    """Random weights of the model, the same for a seed, as ptlflow stores them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save({"state_dict": networks.build(model, None).state_dict()}, path)
    return str(path)


def small(weights: str, **settings: Any) -> raft.PTLFlow:
    return flow.create("raft-small", weights=weights, **{"device": "cpu", "iterations": 2, "batch_size": 2, **settings})  # type: ignore[return-value]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
