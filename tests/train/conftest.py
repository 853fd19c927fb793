"""Fixtures of the training tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI on the CPU also where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
