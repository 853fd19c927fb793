"""Two processes that run a test module as a program, one a rank."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import torch
import yaml
from torch import Tensor

from pipeline.store import VideoStore, open_store
from tests.faults.processes import wait_for
from tests.train import runs
from train.backbones import BACKBONES
from train.hardware import Hardware
from train.methods.method import Method

FIRST_PORT, PORTS = 20_000, 10_000  # below those that Linux hands out: nobody else gets one of these by chance


def free_port() -> int:
    """Of this machine."""

    def free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    return next(filter(free, itertools.count(FIRST_PORT + os.getpid() % PORTS)))


def lightning() -> dict[str, str]:
    """What Lightning asks of the environment of two processes that it did not start itself."""
    port = free_port()
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return address | {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}


def results(program: str, out: Path, environment: Callable[[int], dict[str, str]]) -> list[Any]:
    """What `python PROGRAM OUT RANK` of the ranks 0 and 1, side by side, saved in OUT/rank<RANK>.pt.

    environment: rank -> variables that its process has beside ours.
    """
    top = str(Path(__file__).resolve().parents[2])
    said = [out / f"rank{rank}.txt" for rank in range(2)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, program, str(out), str(rank)],
                    env=os.environ | {"PYTHONPATH": top} | environment(rank),
                    cwd=out,
                    stdout=stack.enter_context(path.open("wb")),
                    stderr=subprocess.STDOUT,
                )
            )
            for rank, path in enumerate(said)
        ]
        for process in processes:
            stack.callback(process.kill)

        def ended() -> bool:
            """Also where one has failed, for whom the other one would wait."""
            codes = [process.poll() for process in processes]
            return None not in codes or any(codes)

        wait_for(ended, "two ranks")
    assert [process.returncode for process in processes] == [0, 0], "\n".join(path.read_text() for path in said)
    return [torch.load(out / f"rank{rank}.pt") for rank in range(2)]


def of_a_run(program: str, store: VideoStore, recipe: Path) -> list[Any]:
    """What two ranks keep who train a recipe, beside which OUT/two is their run. PROGRAM calls `train_given`."""
    out, launch = recipe.parent, lightning()
    (out / "given.yaml").write_text(yaml.safe_dump({"store": str(store.root), "recipe": str(recipe)}))
    return results(program, out, lambda rank: launch | {"RANK": str(rank), "LOCAL_RANK": str(rank)})


def train_given(kept_of: Callable[[Method], dict[str, Tensor]], *methods: type[Method]) -> None:
    """One of two ranks; what `kept_of` gives in a step of one of these methods is kept."""
    torch.set_num_threads(1)
    BACKBONES.entries["plain"] = "tests.train.runs:Plain"
    out = Path(sys.argv[1])
    given = yaml.safe_load((out / "given.yaml").read_text())
    hardware = Hardware(reader="opencv", threads=1, accelerator="cpu", devices=2)
    kept: dict[str, Tensor] = {}

    def keep(method: Method, batch: Any) -> None:
        kept.update(kept_of(method))

    with runs.in_step(keep, *methods):
        runs.run(runs.recipe.load(Path(given["recipe"])), open_store(given["store"]), out / "two", hardware)
    torch.save(kept, out / f"rank{os.environ['RANK']}.pt")


def groups_of(method: Method) -> np.ndarray:
    """Of the videos that it trains on."""
    return method.trainer.train_dataloader.planner.training_set.groups.labels  # type: ignore[union-attr,no-any-return]
