"""Fixtures of the training tests."""

from __future__ import annotations

import pytest
import torch

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.stores import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """What the runs of `tests.train.runs` train on. For reading only."""
    return write_store(tmp_path_factory.mktemp("tiny") / "store", runs.VIDEOS)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI on the CPU also where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
