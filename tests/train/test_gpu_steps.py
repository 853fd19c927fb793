"""Training steps on a GPU: none waits for it, batches come from page-locked memory, half precision continues."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from pipeline.store import VideoStore
from tests.train import batches, runs
from tests.train.runs import IN_BATCH, INFONCE, stop
from tests.train.test_goca_runs import SAMPLING
from tests.train.test_goca_runs import stage as goca
from train import stage_data
from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.hardware import Hardware
from train.methods.infonce import InfoNCE
from train.stage_data import training_set_of

GPU = Hardware(reader="opencv", threads=1, accelerator="gpu")
QUIET = range(4, 10)  # steps without a line and without a checkpoint, after those in which libraries tune themselves


@contextmanager
def no_waiting() -> Iterator[list[int]]:
    """An error wherever torch makes the CPU wait for the GPU in the QUIET steps; gives the steps that were watched."""
    watched: list[int] = []

    def watch(method: InfoNCE, batch: Any) -> None:
        quiet = method.global_step in QUIET
        watched.extend([method.global_step] * quiet)
        torch.cuda.set_sync_debug_mode("error" if quiet else "default")

    try:
        with runs.in_step(watch):
            yield watched
    finally:
        torch.cuda.set_sync_debug_mode("default")


VICC = {"name": "prototypes", "method": "vicc", "epochs": 4}
VICC["settings"] = {**INFONCE["settings"], "prototypes": 6, "epsilon": 0.05}
del VICC["settings"]["momentum"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "stage",
    [INFONCE | {"epochs": 4}, IN_BATCH | {"steps": 12}, goca(queue=8) | {"steps": 12}, VICC],
    ids=["queue", "in batch", "goca", "vicc"],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("executor", ["opencv", "dali"])
def test_steps_do_not_wait_for_the_gpu(
    store: VideoStore, tmp_path: Path, stage: dict[str, Any], precision: str, executor: str
) -> None:
    changes = {"log_every": 100, "checkpoint_every": 100, "clip_gradients": 1.0, "precision": precision}
    changes |= {"sampling": SAMPLING} if stage["method"] == "goca" else {}
    recipe = runs.load(tmp_path / "recipe.yaml", stage, **changes)
    with no_waiting() as watched:
        runs.run(recipe, store, tmp_path / "run", replace(GPU, reader=executor))
    assert watched == list(QUIET)


@pytest.mark.gpu
def test_step_that_reads_its_loss_fails(store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above would find one."""
    step = InfoNCE.training_step

    def reading(*arguments: Any) -> dict[str, Tensor]:
        values = step(*arguments)
        values["loss"].item()
        return values

    monkeypatch.setattr(InfoNCE, "training_step", reading)
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, log_every=100, checkpoint_every=100)
    with no_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        runs.run(recipe, store, tmp_path / "run", GPU)


def make_loader(store: VideoStore, folder: Path, pin: bool) -> ClipLoader:
    recipe = runs.load(folder / "recipe.yaml", IN_BATCH)
    [stage] = recipe.stages
    videos = training_set_of(recipe, stage, store)
    return stage_data.make_loader(recipe, stage, store, videos, runs.HARDWARE, pin=pin)


def tensors(batch: Batch) -> list[Tensor]:
    rows = [part.rows for by_number in batch.parts.values() for parts in by_number.values() for part in parts]
    return [*batches.leaves(batch).values(), *rows]


@pytest.mark.gpu
def test_pinned_batches_are_the_same_batches(store: VideoStore, tmp_path: Path) -> None:
    plain, pinned = (next(iter(make_loader(store, tmp_path, pin))) for pin in (False, True))
    for one, two in zip(tensors(plain), tensors(pinned), strict=True):
        assert two.is_pinned()
        assert torch.equal(one, two) and one.stride() == two.stride()


@pytest.mark.parametrize("pin", [False, True])
def test_batches_are_pinned_in_the_loaders_thread(store: VideoStore, tmp_path: Path, pin: bool) -> None:
    pinned: list[str] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        pinned.append(threading.current_thread().name)
        return tensor

    loader = make_loader(store, tmp_path, pin)
    with mock.patch.object(Tensor, "pin_memory", pin_memory):
        batches = list(loader)
    loader.close()
    assert len(pinned) == pin * sum(len(tensors(batch)) for batch in batches)
    assert all(name.startswith("clips") for name in pinned)


@pytest.mark.gpu
def test_half_precision_continues_with_its_loss_scale(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, precision="16-mixed", clip_gradients=1.0)
    runs.run(recipe, store, tmp_path / "whole", GPU)
    stop(recipe, store, tmp_path / "parts", 3, hardware=GPU)
    begun = runs.content(tmp_path / "parts", "pixels")["MixedPrecision"]
    assert begun["scale"] > 0
    runs.run(recipe, store, tmp_path / "parts", GPU)
    whole, parts = (runs.content(tmp_path / run, "pixels") for run in ("whole", "parts"))
    assert parts["MixedPrecision"] == whole["MixedPrecision"]
    for run in ("whole", "parts"):
        lines = runs.lines(tmp_path / run, "pixels")
        assert [line["step"] for line in lines] == list(range(1, 9))
        assert all(math.isfinite(line["loss"]) for line in lines)
