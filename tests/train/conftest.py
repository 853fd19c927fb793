"""Fixtures of the trainer's tests."""

from __future__ import annotations

import pytest

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.stores import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """What the runs of `tests.train.runs` train on. For reading only."""
    return write_store(tmp_path_factory.mktemp("tiny") / "store", runs.VIDEOS)
