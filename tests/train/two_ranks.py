"""Two processes that run a test module as a program, one a rank."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.patience import PATIENCE


def lightning() -> dict[str, str]:
    """What Lightning asks of the environment of two processes that it did not start itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return address | {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}


def results(program: str, out: Path, environment: Callable[[int], dict[str, str]]) -> list[Any]:
    """What `python PROGRAM OUT RANK` of the ranks 0 and 1, side by side, saved in OUT/rank<RANK>.pt.

    environment: rank -> variables that its process has beside ours.
    """
    top = str(Path(__file__).resolve().parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, program, str(out), str(rank)],
            env=os.environ | {"PYTHONPATH": top} | environment(rank),
            cwd=out,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    return [torch.load(out / f"rank{rank}.pt") for rank in range(2)]
