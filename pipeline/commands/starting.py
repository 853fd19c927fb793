"""What is told while the packages of a command are imported: with PyTorch that takes seconds."""

from __future__ import annotations

import os

from rich.status import Status

from pipeline.terminal import Terminal


def loading() -> Status:
    """A line that is there meanwhile, once where Lightning starts a command for each device."""
    return Terminal(stderr=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0").status("loading PyTorch")
