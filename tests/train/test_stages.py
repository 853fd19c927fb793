"""Runs that are stopped, killed, broken and continued, against a run that nothing happened to."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import VideoStore, open_store
from tests.patience import PATIENCE
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE, last, stop
from train import checkpoints, run_folder, stages
from train.backbones import BACKBONES
from train.checkpoints import METADATA
from train.hardware import Hardware
from train.methods.infonce import InfoNCE
from train.methods.method import Method
from train.recipe import Recipe

KINDS = {"queue, step schedule": INFONCE, "in batch, one cycle": IN_BATCH}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(request: Any, store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe of one stage, and the folder of its run from start to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = runs.load(folder / "recipe.yaml", KINDS[request.param])
    runs.run(recipe, store, folder / "run")
    return recipe, folder / "run"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return runs.load(tmp_path / "recipe.yaml", IN_BATCH)


# an epoch is three batches long and a checkpoint is written at every second step
@pytest.mark.parametrize("stops", [(2, 5), (3, 6), (4,), (1, 2, 3, 4, 5, 6, 7)], ids=str)
def test_stopped_run_continues_at_the_exact_step(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    """In mid-epoch, at the last batch of an epoch, and a resume of a resumed run."""
    recipe, whole = undisturbed
    name = recipe.stages[0].name
    for done in stops:
        stopped = stop(recipe, store, tmp_path / "run", done)
        assert (stopped.exit_code, stopped.step) == (128 + signal.SIGTERM, done)
        assert runs.content(tmp_path / "run", name)[METADATA]["step"] == done
    runs.run(recipe, store, tmp_path / "run")
    runs.assert_same_runs(whole, tmp_path / "run", name)


def test_runs_use_every_batch_once_in_order(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    seen: list[tuple[int, int, list[int]]] = []

    def look(method: InfoNCE, batch: Any) -> None:
        seen.append((method.global_step, method.current_epoch, batch.index.tolist()))

    with runs.in_step(look):
        runs.run(recipe, store, tmp_path / "whole")
        whole, seen = seen, []
        for done in (2, 3, 7):
            stop(recipe, store, tmp_path / "parts", done)
        runs.run(recipe, store, tmp_path / "parts")
    assert seen == whole
    assert [step for step, _, _ in whole] == list(range(8))
    assert [epoch for _, epoch, _ in whole] == [0, 0, 0, 1, 1, 1, 2, 2]
    for epoch in (whole[:3], whole[3:6]):
        videos = [index for _, _, indices in epoch for index in indices]
        assert len(videos) == len(set(videos)) == 12
    assert whole[0][2] != whole[3][2]


def test_crash_between_checkpoints_repeats_what_was_lost(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path
) -> None:
    recipe, whole = undisturbed
    name = recipe.stages[0].name

    def crash(method: InfoNCE, batch: Any) -> None:
        if method.global_step == 5:
            raise ZeroDivisionError

    with runs.in_step(crash), pytest.raises(ZeroDivisionError):
        runs.run(recipe, store, tmp_path / "run")
    assert [line["step"] for line in runs.lines(tmp_path / "run", name)] == [1, 2, 3, 4, 5]
    assert runs.content(tmp_path / "run", name)[METADATA]["step"] == 4
    with open(tmp_path / "run" / name / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # as after a power cut
    runs.run(recipe, store, tmp_path / "run")
    runs.assert_same_runs(whole, tmp_path / "run", name)


def test_crash_before_the_first_checkpoint_starts_again(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path
) -> None:
    recipe, whole = undisturbed

    def crash(method: InfoNCE, batch: Any) -> None:
        if method.global_step == 1:
            raise ZeroDivisionError

    with runs.in_step(crash), pytest.raises(ZeroDivisionError):
        runs.run(recipe, store, tmp_path / "run")
    runs.run(recipe, store, tmp_path / "run")
    runs.assert_same_runs(whole, tmp_path / "run", recipe.stages[0].name)


def test_command_killed_while_it_saves_continues(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    """SIGKILL to another process, whose checkpoint is written but not yet renamed; this process continues the run."""
    process = start(store, tmp_path, tmp_path / "run", "kill:4")
    runs.run(recipe, store, tmp_path / "whole")
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, printed
    assert [line["step"] for line in runs.lines(tmp_path / "run", "pixels")] == [1, 2, 3, 4]
    assert runs.content(tmp_path / "run", "pixels")[METADATA]["step"] == 2
    aside = last(tmp_path / "run").with_name("last.ckpt.partial")
    assert aside.exists()
    runs.run(recipe, store, tmp_path / "run")
    assert not aside.exists()
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "run", "pixels")


def start(store: VideoStore, folder: Path, run: Path, event: str, *options: str) -> subprocess.Popen[str]:
    """The command on the recipe in `folder`, as a process that a signal is going to hit."""
    command = [sys.executable, "-m", "tests.train.runs", "pretrain", "--method", "infonce", "--store", str(store.root)]
    command += ["--run", str(run), "--recipe", str(folder / "recipe.yaml"), "--hardware.reader", "opencv"]
    command += ["--hardware.accelerator", "cpu", "--hardware.threads", "1", *options]
    environment = os.environ | runs.same_threads() | {runs.EVENT: event}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def test_random_numbers_continue(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    """What a method draws while it trains follows from the seed, not from what the process did before."""
    drawn: list[tuple[float, float, float]] = []

    def draw(method: InfoNCE, batch: Any) -> None:
        drawn.append((torch.rand(()).item(), float(np.random.random()), random.random()))

    with runs.in_step(draw):
        runs.run(recipe, store, tmp_path / "whole")
        whole, drawn = drawn, []
        torch.manual_seed(99), np.random.seed(99), random.seed(99)
        stop(recipe, store, tmp_path / "parts", 3)
        torch.manual_seed(98), np.random.seed(98), random.seed(98)
        runs.run(recipe, store, tmp_path / "parts")
    assert drawn == whole
    assert len(set(whole)) == 8


@pytest.mark.parametrize("done", [2, 3, 6])
def test_hooks_of_an_epochs_start_run_once(
    recipe: Recipe, store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    started: list[tuple[int, int]] = []

    def hook(method: LightningModule) -> None:
        started.append((method.current_epoch, method.global_step))

    monkeypatch.setattr(InfoNCE, "on_train_epoch_start", hook)
    stop(recipe, store, tmp_path / "run", done)
    runs.run(recipe, store, tmp_path / "run")
    assert started == [(0, 0), (1, 3), (2, 6)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_the_last_step_stops_before_the_next_stage(store: VideoStore, tmp_path: Path, number: int) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2}, INFONCE | {"epochs": 1})
    stopped = stop(recipe, store, tmp_path / "run", 2, number)
    assert (stopped.exit_code, stopped.step) == (128 + number, 2)
    assert checkpoints.metadata(last(tmp_path / "run"))["finished"]
    assert not (tmp_path / "run" / INFONCE["name"]).exists()
    assert stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE) is False
    assert stages.run_stage(recipe, recipe.stages[1], store, tmp_path / "run", runs.HARDWARE) is True


def test_signal_handlers_and_threads_are_given_back(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = reading_threads()

    def fail(method: InfoNCE, batch: Any) -> None:
        assert signal.getsignal(signal.SIGTERM) != handlers[1]
        raise ZeroDivisionError

    runs.run(recipe, store, tmp_path / "whole")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    stop(recipe, store, tmp_path / "stopped", 2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    with runs.in_step(fail), pytest.raises(ZeroDivisionError):
        runs.run(recipe, store, tmp_path / "failed")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    gc.collect()
    assert reading_threads() == threads


def reading_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("clips", "reader"))}


def test_full_disk_is_refused_and_loses_nothing(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, whole = undisturbed
    name = recipe.stages[0].name
    real, written = storage.write_atomically, []

    def full(path: Path, data: bytes) -> None:
        if path.name == "last.ckpt" and len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.extend([path] * (path.name == "last.ckpt"))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomically", full)
        with pytest.raises(Refusal, match="(?s)cannot be written: No space left.*last.ckpt.*make room"):
            runs.run(recipe, store, tmp_path / "run")
    assert runs.content(tmp_path / "run", name)[METADATA]["step"] == 4
    runs.run(recipe, store, tmp_path / "run")
    runs.assert_same_runs(whole, tmp_path / "run", name)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS])
def test_what_a_library_meets_on_the_disk_is_refused(tmp_path: Path, code: int) -> None:
    """As TensorBoard does; what is not of a disk passes."""
    with (
        pytest.raises(Refusal, match=f"the run cannot be written: {os.strerror(code)}"),
        stages._room_for(tmp_path),
    ):
        raise OSError(code, os.strerror(code))
    with pytest.raises(ConnectionResetError), stages._room_for(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_damaged_video_stops_the_run_by_name(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    damaged = open_store(tmp_path / "store")
    [shard] = [path for path in (damaged.path("v05", "rgb") / "c").rglob("*") if path.is_file()]
    content = shard.read_bytes()
    half = len(content) // 2
    shard.write_bytes(bytes(byte ^ 1 for byte in content[:half]) + content[half:])
    with pytest.raises(Refusal, match="(?s)'v05' is damaged.*make verify"):
        runs.run(recipe, damaged, tmp_path / "run")
    gc.collect()
    assert not reading_threads()


def test_stages_leave_what_evaluation_needs(store: VideoStore, tmp_path: Path) -> None:
    """Two stages: the metrics' keys and steps, the resolved recipe, TensorBoard's file, the checkpoint's facts."""
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, INFONCE | {"epochs": 2}, log_every=3)
    run = tmp_path / "run"
    runs.run(recipe, store, run)
    assert [line["step"] for line in runs.lines(run, "pixels")] == [3, 6, 8]
    assert [line["epoch"] for line in runs.lines(run, "pixels")] == [0, 1, 2]
    lines = runs.lines(run, "motion", times=True)
    assert [line["step"] for line in lines] == [3, 6]
    for line in lines:
        assert list(line)[:2] == ["step", "epoch"]
        assert set(line) >= {"loss", "lr", "contrast_top1", "contrast_top5", "data_time", "step_time"}
        assert 0 <= line["data_time"] <= line["step_time"]
        assert all(np.isfinite(value) for value in line.values())
    assert [line["lr"] for line in lines] == pytest.approx([0.05, 0.005])
    assert yaml.safe_load((run / "recipe.yaml").read_text()) == recipe.as_dict()
    for name, length in (("pixels", 8), ("motion", 6)):
        assert list((run / name / "tensorboard").glob("events.out.tfevents.*"))
        facts = checkpoints.metadata(run_folder.checkpoint_path(run, name))
        assert (facts["step"], facts["finished"], facts["stage"]) == (length, True, name)


def test_first_step_of_a_run_is_the_same_whatever_ran_before(store: VideoStore, tmp_path: Path) -> None:
    first = runs.load(tmp_path / "one.yaml", IN_BATCH, INFONCE)
    second = runs.load(tmp_path / "two.yaml", INFONCE, IN_BATCH)
    runs.run(first, store, tmp_path / "one")
    runs.run(second, store, tmp_path / "two")
    for name in ("pixels", "motion"):
        one, two = (runs.content(tmp_path / run, name)["state_dict"] for run in ("one", "two"))
        assert runs.flatten(one) == runs.flatten(two)
        assert runs.lines(tmp_path / "one", name) == runs.lines(tmp_path / "two", name)


def test_readers_train_the_same_way(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    """Their pixels differ by a gray level at most (test_reader), the losses hardly."""
    runs.run(recipe, store, tmp_path / "opencv")
    runs.run(recipe, store, tmp_path / "dali", Hardware(reader="dali", threads=2, accelerator="cpu"))
    one, two = (runs.lines(tmp_path / reader, "pixels")[0]["loss"] for reader in ("opencv", "dali"))
    assert one == pytest.approx(two, rel=0.02)


def test_bfloat16_trains_and_continues(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, precision="bf16-mixed")
    runs.run(recipe, store, tmp_path / "whole")
    stop(recipe, store, tmp_path / "parts", 3)
    runs.run(recipe, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "pixels")


def test_a_stage_trains_in_its_own_precision(store: VideoStore, tmp_path: Path) -> None:
    half: dict[str, bool] = {}

    def look(method: Method, batch: Any) -> None:
        half[method.settings.optimiser.schedule] = torch.is_autocast_enabled("cpu")

    stages = IN_BATCH | {"precision": "bf16-mixed"}, INFONCE | {"epochs": 1}
    with runs.in_step(look):
        runs.run(runs.load(tmp_path / "recipe.yaml", *stages), store, tmp_path / "run")
    assert half == {"one_cycle": True, "step": False}


ACCUMULATED = {"batch": 2, "accumulate": 2, "clip_gradients": 0.05, "log_every": 3}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "changes"), [*((kind, {}) for kind in KINDS), ("queue, step schedule", ACCUMULATED)])
def test_two_devices_equal_one(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]
) -> None:
    """Two devices, of which one gets a signal, continued by one device; against one device from start to end."""
    monkeypatch.setitem(BACKBONES.entries, "plain", "tests.train.runs:Plain")
    stage = json.loads(json.dumps(KINDS[kind]))
    stage["settings"] |= {"backbone": "plain", "backbone_settings": {}}
    recipe = runs.load(tmp_path / "recipe.yaml", stage, **changes)
    process = start(store, tmp_path, tmp_path / "run", "term:4", "--hardware.devices", "2")
    runs.run(recipe, store, tmp_path / "whole")
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert printed.count("stopped by SIGTERM") == printed.count("pre-training ") == 1
    told = [line for line in printed.replace("\r", "\n").splitlines() if line.strip()]
    begun = ("loading ", "preparing ", "pre-training ", "on the CPU (", "stage ", stage["name"], "stopped by SIGTERM")
    assert all(line.lstrip().startswith(begun) or re.match(r"[\d:?]+ left, ", line) for line in told), printed
    assert runs.content(tmp_path / "run", stage["name"])[METADATA]["step"] == 5
    runs.run(recipe, store, tmp_path / "run")
    one, two = (runs.content(tmp_path / run, stage["name"]) for run in ("whole", "run"))
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(two[part], one[part], rtol=1e-4, atol=1e-5)
    for one, two in zip(*(runs.lines(tmp_path / run, stage["name"]) for run in ("whole", "run")), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
