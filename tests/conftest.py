"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Spinning OpenMP threads make small torch loops ten times slower on a busy machine; must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and reference pairs beside the checkout; tests that need it skip without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the folder of real data beside the checkout (../shared/data), which is not here")
    return SHARED
