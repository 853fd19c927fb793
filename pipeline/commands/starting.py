"""How the packages of a command are imported, which takes seconds with PyTorch."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from collections.abc import Iterator

from rich.status import Status

from pipeline.terminal import Terminal


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """With PyTorch, a line is there meanwhile."""
    with importing(), _told():
        yield


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """What packages make of themselves is no garbage, and is not looked through for any, neither meanwhile nor at the
    end of the program: a third of a short command's time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@functools.cache
def _told() -> Status:
    """Once a program; of several that Lightning starts, one for each device, by the first."""
    return Terminal(stderr=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0").status("loading PyTorch")
