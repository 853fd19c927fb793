"""Tiny training runs, and a program that is stopped in the middle of one.

`python -m tests.train.runs` is `python -m train`, except that it sends itself a signal: TRAIN_EVENT is "term:N"
(SIGTERM in the training step after N steps) or "kill:N" (SIGKILL when the checkpoint of N steps is written but not
renamed). Of several processes the leader alone is hit. Networks may be "plain", which has no batch norm.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
import yaml
from torch import Tensor, nn

from pipeline.store import VideoStore
from train import checkpoints, recipe, run_folder, stages
from train.backbones import BACKBONES, Backbone
from train.console import LEADER
from train.hardware import Hardware
from train.methods.cmc import CMC
from train.methods.coclr import CoCLR
from train.methods.goca import GOCA
from train.methods.infonce import InfoNCE
from train.methods.method import Method
from train.methods.ubernce import UberNCE
from train.methods.vicc import ViCC
from train.recipe import Recipe
from train.stages import Stopped

EVENT = "TRAIN_EVENT"
BATCH = 4
VIDEOS = {f"v{number:02}": (7 + number % 3, 20, 24) for number in range(13)}  # three batches an epoch, one video over
Run = Callable[..., tuple[int, str, str]]  # a command line: exit code, standard output, standard error
HARDWARE = Hardware(reader="opencv", threads=1, accelerator="cpu")
INFONCE = {
    "name": "motion",
    "method": "infonce",
    "epochs": 3,
    "settings": {
        "stream": "flow",
        "backbone": "small",
        "backbone_settings": {"width": 0.25},
        "dim": 8,
        "queue": 8,
        "momentum": 0.9,
        "optimiser": {"name": "sgd", "lr": 0.05, "schedule": "step", "milestones": [1, 2]},
    },
}
IN_BATCH = {
    "name": "pixels",
    "method": "infonce",
    "steps": 8,
    "settings": {
        "stream": "rgb",
        "backbone": "small",
        "backbone_settings": {"width": 0.25},
        "dim": 8,
        "queue": 0,
        "optimiser": {"name": "adamw", "lr": 0.003, "schedule": "one_cycle"},
    },
}


class Plain(Backbone):
    """Without batch norm, which alone tells ranks apart."""

    smallest_clip = (1, 1, 1)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.feature_size = 6
        self.conv = nn.Conv3d(in_channels, self.feature_size, kernel_size=(2, 3, 3), stride=(1, 2, 2))

    def forward(self, clips: Tensor) -> Tensor:
        return torch.tanh(self.conv(clips))


def settings(*listed: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe as YAML holds it, with these stages."""
    whole = {
        "title": "a tiny run",
        "clips": {"length": 4, "stride": 1, "size": [16, 16]},
        "augmentation": {"name": "small"},
        "batch": BATCH,
        "stages": list(listed),
        "seed": 3,
        "checkpoint_every": 2,
        "log_every": 1,
    }
    return copy.deepcopy(whole | changes)


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def load(path: Path, *listed: dict[str, Any], **changes: Any) -> Recipe:
    """The recipe with these stages, by way of a file at `path`."""
    return recipe.load(write(path, settings(*listed, **changes)))


def pretrain(store: Path, run: Path, recipe: object, *more: object) -> tuple[object, ...]:
    """Arguments of the command; `more` may replace options."""
    small = ("--hardware.reader", "opencv", "--hardware.accelerator", "cpu", "--hardware.threads", 1)
    return ("pretrain", "--method", "infonce", "--store", store, "--run", run, "--recipe", recipe, *small, *more)


def run(loaded: Recipe, store: VideoStore, folder: Path, hardware: Hardware = HARDWARE) -> None:
    """All stages of a recipe, as the command runs them."""
    stages.check(loaded, store, hardware)
    run_folder.prepare(folder, loaded)
    for stage in loaded.stages:
        stages.run_stage(loaded, stage, store, folder, hardware)


@contextmanager
def in_step(action: Callable[[Method, Any], None], *also: type[Method]) -> Iterator[None]:
    """Calls `action(method, batch)` at the start of every training step of our methods, and of those in `also`."""

    def watched(step: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        def training_step(method: Method, batch: Any, batch_idx: int) -> dict[str, Tensor]:
            action(method, batch)
            return step(method, batch, batch_idx)

        return training_step

    with ExitStack() as stack:
        for kind in (InfoNCE, UberNCE, CoCLR, CMC, ViCC, GOCA, *also):
            stack.enter_context(mock.patch.object(kind, "training_step", watched(kind.training_step)))
        yield


@contextmanager
def signalled(done: int, number: int = signal.SIGTERM, also: tuple[type[Method], ...] = ()) -> Iterator[None]:
    """The signal arrives in the training step that follows `done` steps, so that `done` + 1 are made."""

    def action(method: Method, batch: Any) -> None:
        if method.global_step == done:
            signal.raise_signal(number)

    with in_step(action, *also):
        yield


@contextmanager
def killed_while_saving(step: int) -> Iterator[None]:
    """SIGKILL between the writing and the renaming of a step's checkpoint."""
    replace = os.replace

    def replacing(aside: Path, path: Path) -> None:
        if path.name == "last.ckpt" and checkpoints.metadata(aside)["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(aside, path)

    with mock.patch.object(os, "replace", replacing):
        yield


def same_threads() -> dict[str, str]:
    """Environment of a process that is to compute bit for bit what this one computes: sums depend on the threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(torch.get_num_threads()))


def content(folder: Path, stage: str) -> dict[str, Any]:
    """Everything that a stage's checkpoint holds: weights, optimiser, schedule, loops, loader, random states, facts."""
    return torch.load(run_folder.checkpoint_path(folder, stage), weights_only=True)


def lines(folder: Path, stage: str, times: bool = False) -> list[dict[str, float]]:
    """metrics.jsonl, by default without how long things took."""
    text = (folder / stage / "metrics.jsonl").read_text()
    return [
        {name: value for name, value in json.loads(line).items() if times or not name.endswith("_time")}
        for line in text.splitlines()
    ]


def flatten(value: Any, place: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary from paths to leaves; tensors as their exact bytes."""
    if isinstance(value, dict | list | tuple) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, item in items for path, leaf in flatten(item, f"{place}.{key}").items()}
    if isinstance(value, Tensor):
        return {place: (value.dtype, tuple(value.shape), value.numpy().tobytes())}
    return {place: value}


def assert_same_runs(first: Path, second: Path, stage: str) -> None:
    """Checkpoints equal in every bit of every entry, and metrics in all but the times."""
    one, two = flatten(content(first, stage)), flatten(content(second, stage))
    assert one.keys() == two.keys()
    different = [path for path in one if one[path] != two[path]]
    assert not different, different
    assert lines(first, stage) == lines(second, stage), "metrics.jsonl differs"


def main() -> int:
    from pipeline.commands import console
    from train.__main__ import COMMANDS

    BACKBONES.entries["plain"] = f"{__name__}:Plain"
    name, _, step = os.environ[EVENT].partition(":")
    event = {"term": signalled, "kill": killed_while_saving}[name]
    # The followers of a leader are started by the same command.
    with event(int(step)) if LEADER else nullcontext():
        return console.main(COMMANDS, "", "train")


def last(folder: Path, stage: dict[str, Any] = IN_BATCH) -> Path:
    return run_folder.checkpoint_path(folder, stage["name"])


def stop(
    recipe: Recipe,
    store: VideoStore,
    folder: Path,
    done: int,
    number: int = signal.SIGTERM,
    hardware: Hardware = HARDWARE,
) -> Stopped:
    with signalled(done - 1, number), pytest.raises(Stopped) as stopped:
        run(recipe, store, folder, hardware)
    return stopped.value


if __name__ == "__main__":
    sys.exit(main())
