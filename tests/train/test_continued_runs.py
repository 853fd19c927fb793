"""What a recipe and a command may ask of a run, stopped and continued: bit for bit what it is without a stop."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train  # noqa: F401  (before torch and lightning)

# isort: split
import torch
from lightning.pytorch import Callback, Trainer

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE, last, stop
from train import checkpoints, run_folder, stages
from train.callbacks.metrics import Metrics
from train.callbacks.stopping import TIME_IS_UP
from train.checkpoints import METADATA
from train.methods.infonce import InfoNCE
from train.recipe import Recipe
from train.stages import Stopped

ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "accumulated, clipped, best by a mean of three steps": (
        INFONCE,  # 6 batches, hence three steps an epoch
        {
            "batch": 2,
            "accumulate": 2,
            "clip_gradients": 0.05,
            "log_every": 3,
            "keep_every": 4,
            "keep_best": {"metric": "loss", "mode": "min"},
        },
    ),
    "accumulated by three, bfloat16, clipped": (
        IN_BATCH,
        {"batch": 2, "accumulate": 3, "clip_gradients": 0.01, "precision": "bf16-mixed", "log_every": 2},
    ),
    "best by the highest accuracy": (IN_BATCH, {"keep_best": {"metric": "contrast_top1", "mode": "max"}}),
}


@pytest.fixture(scope="module", params=ASKED)
def undisturbed(request: Any, store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe of one stage, and the folder of its run from start to end."""
    folder = tmp_path_factory.mktemp("asked")
    stage, changes = ASKED[request.param]
    recipe = runs.load(folder / "recipe.yaml", stage, **changes)
    runs.run(recipe, store, folder / "run")
    return recipe, folder / "run"


def assert_same_files(first: Path, second: Path, stage: str) -> None:
    """All checkpoints and all lines."""
    names = [sorted(path.name for path in (run / stage / "checkpoints").iterdir()) for run in (first, second)]
    assert names[0] == names[1]
    for name in names[0]:
        one, two = (torch.load(run / stage / "checkpoints" / name, weights_only=True) for run in (first, second))
        assert runs.flatten(one) == runs.flatten(two), name
    runs.assert_same_runs(first, second, stage)


@pytest.mark.parametrize("stops", [(1,), (2, 4, 5)], ids=str)
def test_stopped_run_continues_bit_for_bit(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    recipe, whole = undisturbed
    name = recipe.stages[0].name
    for done in stops:
        stopped = stop(recipe, store, tmp_path / "run", done)
        assert (stopped.exit_code, stopped.step) == (128 + signal.SIGTERM, done)
    runs.run(recipe, store, tmp_path / "run")
    assert_same_files(whole, tmp_path / "run", name)


def test_run_without_time_makes_a_step_each_time(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path
) -> None:
    recipe, whole = undisturbed
    stage, run = recipe.stages[0], tmp_path / "run"
    run_folder.prepare(run, recipe)
    step = 0
    while not (step and runs.content(run, stage.name)[METADATA]["finished"]):
        with pytest.raises(Stopped) as stopped:
            stages.run_stage(recipe, stage, store, run, runs.HARDWARE, deadline=time.monotonic())
        step += 1
        assert (stopped.value.exit_code, stopped.value.step) == (TIME_IS_UP, step)
        assert stopped.value.reason == "the time limit"
    assert_same_files(whole, run, stage.name)


def test_run_with_time_enough_is_not_stopped(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2})
    run_folder.prepare(tmp_path / "run", recipe)
    deadline = time.monotonic() + 3600
    assert stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE, deadline)


def test_crash_in_the_middle_of_a_step_repeats_the_step(
    undisturbed: tuple[Recipe, Path], store: VideoStore, tmp_path: Path
) -> None:
    """With the best checkpoint of a step that is lost already written."""
    recipe, whole = undisturbed
    passes: list[int] = []

    def crash(method: InfoNCE, batch: Any) -> None:
        passes.append(method.global_step)
        if len(passes) == 4 * recipe.accumulate:  # the last pass of step 4; step 3 is not in last.ckpt
            raise ZeroDivisionError

    with runs.in_step(crash), pytest.raises(ZeroDivisionError):
        runs.run(recipe, store, tmp_path / "run")
    assert runs.content(tmp_path / "run", recipe.stages[0].name)[METADATA]["step"] == 2
    runs.run(recipe, store, tmp_path / "run")
    assert_same_files(whole, tmp_path / "run", recipe.stages[0].name)


def test_accumulating_runs_use_whole_steps(store: VideoStore, tmp_path: Path) -> None:
    """13 videos: two steps of three passes of two videos an epoch, one video over."""
    stage = INFONCE | {"epochs": 2}
    recipe = runs.load(tmp_path / "recipe.yaml", stage, batch=2, accumulate=3, checkpoint_every=3, keep_every=2)
    seen: list[tuple[int, int, list[int]]] = []
    with runs.in_step(
        lambda method, batch: seen.append((method.global_step, method.current_epoch, batch.index.tolist()))
    ):
        runs.run(recipe, store, tmp_path / "run")
    assert [step for step, _, _ in seen] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [epoch for _, epoch, _ in seen] == [0] * 6 + [1] * 6
    for epoch in (seen[:6], seen[6:]):
        videos = [video for _, _, batch in epoch for video in batch]
        assert len(videos) == len(set(videos)) == 12
    lines = runs.lines(tmp_path / "run", stage["name"])
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    content = runs.content(tmp_path / "run", stage["name"])
    assert content[METADATA]["step"] == 4
    assert content["state_dict"]["pair.queue.pointer"] == 4 * 3 * 2 % 8
    kept = sorted(path.name for path in last(tmp_path / "run", stage).parent.iterdir())
    assert kept == ["last.ckpt", "step-2.ckpt", "step-4.ckpt"]
    assert checkpoints.metadata(last(tmp_path / "run", stage).with_name("step-2.ckpt"))["step"] == 2


def test_too_few_videos_for_a_step_fail(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, accumulate=4)
    with pytest.raises(Refusal, match="13 videos for training: fewer than one batch of 4, accumulated 4 times"):
        runs.run(recipe, store, tmp_path / "run")


@pytest.mark.parametrize(("metric", "mode"), [("loss", min), ("contrast_top5", max)])
def test_best_checkpoint_is_that_of_the_best_line(
    store: VideoStore, tmp_path: Path, metric: str, mode: Callable[..., Any]
) -> None:
    keep = {"metric": metric, "mode": mode.__name__}
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, keep_best=keep)
    runs.run(recipe, store, tmp_path / "run")
    lines = runs.lines(tmp_path / "run", "pixels")
    best = mode(line[metric] for line in lines)
    first = next(line["step"] for line in lines if line[metric] == best)
    assert checkpoints.metadata(last(tmp_path / "run").with_name("best.ckpt"))["step"] == first
    assert last(tmp_path / "run").exists()


def test_best_by_what_is_no_number_is_never_kept(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = InfoNCE.training_step
    monkeypatch.setattr(InfoNCE, "training_step", lambda *a: step(*a) | {"contrast_top1": torch.tensor(math.nan)})
    keep = {"metric": "contrast_top1", "mode": "max"}
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2}, keep_best=keep)
    runs.run(recipe, store, tmp_path / "run")
    assert not last(tmp_path / "run").with_name("best.ckpt").exists()


@pytest.mark.parametrize("name", ["contrast_top", "step_time"])
def test_best_by_what_is_not_measured_fails(store: VideoStore, tmp_path: Path, name: str) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, keep_best={"metric": name, "mode": "max"})
    with pytest.raises(Refusal, match=f'(?s)unknown metric "{name}".*keep_best.metric.*known: loss, contrast_top1,'):
        runs.run(recipe, store, tmp_path / "run")


class Probe(Callback):
    """Measures something now and then, as an online evaluation does."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step in (3, 7):
            self.metrics.note({"probe": trainer.global_step / 10}, 0.0)


def test_best_by_what_is_measured_now_and_then(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets lines of its own, before which the name is known already."""
    usual = stages._callbacks

    def with_probe(*arguments: Any) -> list[Callback]:
        callbacks = usual(*arguments)
        [metrics] = [callback for callback in callbacks if isinstance(callback, Metrics)]
        metrics.also = ("probe",)
        return [Probe(metrics), *callbacks]

    monkeypatch.setattr(stages, "_callbacks", with_probe)
    keep = {"metric": "probe", "mode": "max"}
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, log_every=2, keep_best=keep)
    runs.run(recipe, store, tmp_path / "whole")
    lines = runs.lines(tmp_path / "whole", "pixels")
    assert [(line["step"], line.get("probe")) for line in lines] == [
        *((2, None), (3, 0.3), (4, None), (6, None), (7, 0.7), (8, None))
    ]
    assert checkpoints.metadata(last(tmp_path / "whole").with_name("best.ckpt"))["step"] == 7
    for done in (3, 5):
        stop(recipe, store, tmp_path / "run", done)
    runs.run(recipe, store, tmp_path / "run")
    assert_same_files(tmp_path / "whole", tmp_path / "run", "pixels")


@pytest.mark.remedy("continue with the versions that wrote it, or give another RUN= to start anew")
def test_other_versions_are_told_or_refused(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 4})
    run = tmp_path / "run"
    stop(recipe, store, run, 1)

    def written_by(**versions: str) -> None:
        content = runs.content(run, "pixels")
        content[METADATA]["versions"] |= versions
        torch.save(content, last(run))

    capsys.readouterr()
    written_by(torch="2.1.0", ptlflow="0.0.1")
    stop(recipe, store, run, 2)
    told = capsys.readouterr().err
    assert f"the checkpoint was written with torch 2.1.0, now {torch.__version__.split('+')[0]}" in told
    assert "not bit for bit" in told and "ptlflow" not in told
    stop(recipe, store, run, 3)
    assert "was written with" not in capsys.readouterr().err
    written_by(torch="1.13.1")
    before = last(run).read_bytes()
    with pytest.raises(Refusal, match="(?s)written with torch 1.13.1, now 2.*last.ckpt.*another RUN="):
        runs.run(recipe, store, run)
    assert last(run).read_bytes() == before
    written_by(torch=torch.__version__.split("+")[0])  # the versions that wrote it
    stop(recipe, store, run, 4)
    stop(recipe, store, tmp_path / "another", 1)


def test_numbered_checkpoint_continues_in_the_place_of_the_last(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", INFONCE, keep_every=5, log_every=2)
    runs.run(recipe, store, tmp_path / "whole")
    runs.run(recipe, store, tmp_path / "run")
    path = last(tmp_path / "run", INFONCE)
    path.write_bytes(path.with_name("step-5.ckpt").read_bytes())
    runs.run(recipe, store, tmp_path / "run")
    assert_same_files(tmp_path / "whole", tmp_path / "run", INFONCE["name"])


def test_lines_are_means_since_the_last_one(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH)
    runs.run(recipe, store, tmp_path / "each")
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, log_every=3)
    runs.run(recipe, store, tmp_path / "third")
    each = runs.lines(tmp_path / "each", "pixels")
    lines = runs.lines(tmp_path / "third", "pixels")
    for line, steps in zip(lines, (each[:3], each[3:6], each[6:]), strict=True):
        for name in ("loss", "contrast_top1", "contrast_top5"):
            assert line[name] == pytest.approx(sum(step[name] for step in steps) / len(steps), rel=1e-12)
        assert [line[name] for name in ("step", "lr")] == [steps[-1][name] for name in ("step", "lr")]
    assert json.loads(json.dumps(lines)) == lines


def test_clipping_bounds_a_step(store: VideoStore, tmp_path: Path) -> None:
    """Plain gradient descent with a bounded gradient cannot move the weights further than lr x norm."""
    stage = json.loads(json.dumps(IN_BATCH)) | {"steps": 1}
    stage["settings"]["optimiser"] = {"name": "sgd", "lr": 1.0, "weight_decay": 0.0}
    moved = {}
    for norm in (0.0, 1e-3):
        recipe = runs.load(tmp_path / "recipe.yaml", stage, clip_gradients=norm)
        runs.run(recipe, store, tmp_path / f"run {norm}")
        path = last(tmp_path / f"run {norm}")
        before, after = checkpoints.untrained(path), checkpoints.load_method(path)
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        moved[norm] = math.sqrt(sum(float(((one - two).detach() ** 2).sum()) for one, two in pairs))
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert moved[0.0] > 1e-2
