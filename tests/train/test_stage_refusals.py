"""Runs that cannot be meant or cannot work: refused by name, before anything is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, open_store
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE, last, stop
from tests.train.steps import CHANNELS
from tests.train.stores import write_store
from train import methods, provenance, run_folder, stages
from train.batches.planning import PLANS
from train.checkpoints import METADATA
from train.hardware import Hardware
from train.methods.infonce import InfoNCESettings
from train.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return runs.load(tmp_path / "recipe.yaml", IN_BATCH)


@pytest.mark.remedy("give another RUN=, or the recipe that it was started with")
def test_run_of_another_recipe_fails(recipe: Recipe, tmp_path: Path) -> None:
    run_folder.prepare(tmp_path / "run", recipe)
    written = (tmp_path / "run" / "recipe.yaml").read_bytes()
    run_folder.prepare(tmp_path / "run", recipe)
    other = runs.load(
        tmp_path / "other.yaml", IN_BATCH | {"steps": 9}, batch=6, clips={"length": 5, "stride": 1, "size": [16, 16]}
    )
    with pytest.raises(Refusal) as refusal:
        run_folder.prepare(tmp_path / "run", other)
    for field in ("batch: stored 4, asked 6", "clips.length: stored 4, asked 5", "stages", "nothing was changed"):
        assert field in str(refusal.value)
    assert "seed" not in refusal.value.what
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == written
    run_folder.prepare(tmp_path / "another", other)
    run_folder.prepare(tmp_path / "run", recipe)


@pytest.mark.parametrize(
    ("key", "before", "value"),
    [("precision", '"32-true"', "bf16-mixed"), ("accumulate", 1, 2), ("clip_gradients", 0.0, 1.0), ("seed", 3, 4)],
)
def test_run_is_not_continued_in_another_way(
    recipe: Recipe, tmp_path: Path, key: str, before: object, value: object
) -> None:
    run_folder.prepare(tmp_path / "run", recipe)
    other = runs.load(tmp_path / "other.yaml", IN_BATCH, **{key: value})
    with pytest.raises(Refusal, match=re.escape(f"{key}: stored {before}, asked {json.dumps(value)}")):
        run_folder.prepare(tmp_path / "run", other)


def test_run_is_not_continued_with_other_batches(
    stopped: tuple[Recipe, Path], store: VideoStore, tmp_path: Path
) -> None:
    recipe, source = stopped
    shutil.copytree(source, tmp_path / "run")
    other = runs.load(tmp_path / "other.yaml", IN_BATCH | {"batch": 6})
    with pytest.raises(Refusal, match=r"stages.0.batch: stored 0, asked 6"):
        run_folder.prepare(tmp_path / "run", other)
    with pytest.raises(Refusal, match="(?s)made with another recipe.*last.ckpt"):
        stages.run_stage(other, other.stages[0], store, tmp_path / "run", runs.HARDWARE)
    run_folder.prepare(tmp_path / "run", recipe)


@pytest.mark.remedy("give another RUN=; nothing was changed")
def test_runs_of_other_plans_are_not_continued(
    stopped: tuple[Recipe, Path], store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, source = stopped
    shutil.copytree(source, tmp_path / "run")
    monkeypatch.setattr(provenance, "PLANS", PLANS + 1)
    with pytest.raises(Refusal, match=f"(?s)plans of version {PLANS}: .*version {PLANS + 1} draws other.*last.ckpt"):
        stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE)
    older = tmp_path / "run" / "recipe.yaml"
    older.write_text(older.read_text().replace("sampling:\n  name: random\n  short: pad\n", ""))
    with pytest.raises(Refusal, match="(?s)older costream.*no `sampling`.*recipe.yaml.*give another RUN="):
        run_folder.prepare(tmp_path / "run", recipe)
    run_folder.prepare(tmp_path / "another", recipe)


@pytest.mark.remedy("give a new folder as RUN=", "give another RUN=")
def test_folders_that_are_no_runs_fail(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(Refusal, match="(?s)not empty and not a run.*mine"):
        run_folder.prepare(tmp_path / "mine", recipe)
    assert [item.name for item in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    run_folder.prepare(tmp_path / "new", recipe)
    (tmp_path / "run").mkdir()
    for damage in (b"", b"\xff\xfe", b"a: [", b"- 1"):
        (tmp_path / "run" / "recipe.yaml").write_bytes(damage)
        with pytest.raises(Refusal, match="(?s)recipe (cannot be read|is damaged).*recipe.yaml"):
            run_folder.prepare(tmp_path / "run", recipe)
        assert (tmp_path / "run" / "recipe.yaml").read_bytes() == damage
    run_folder.prepare(tmp_path / "another", recipe)


def test_folder_of_a_run_killed_at_its_start_is_taken(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml.partial").write_text("title: a ti")
    run_folder.prepare(tmp_path / "run", recipe)
    assert [item.name for item in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


@pytest.fixture(scope="module")
def stopped(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A run of `IN_BATCH`, stopped after two steps; for copying."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = runs.load(folder / "recipe.yaml", IN_BATCH)
    stop(recipe, store, folder / "run", 2)
    return recipe, folder / "run"


@pytest.mark.remedy("continue with what it was made with, or give another RUN= to start anew")
def test_run_on_other_data_fails(
    stopped: tuple[Recipe, Path], store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = stopped
    checkpoint = last(run).read_bytes()
    videos = dict(runs.VIDEOS)
    changed = write_store(tmp_path / "changed", {**videos, "v00": (9, 20, 24)})
    with pytest.raises(
        Refusal, match="(?s)other videos, labels or recordings.*have changed since.*last.ckpt.*another RUN="
    ):
        runs.run(recipe, changed, run)
    grown = write_store(tmp_path / "grown", {**videos, "w": (9, 20, 24)})
    with pytest.raises(Refusal, match="other videos"):
        runs.run(recipe, grown, run)
    stop(recipe, grown, tmp_path / "another", 1)
    other = open_store(store.root)
    assert other.videos == store.videos  # listed before the store's settings change below, not as a mixture of both
    monkeypatch.setattr(other, "settings_hash", "0123456789abcdef")
    with pytest.raises(Refusal, match="a store with other settings"):
        runs.run(recipe, other, run)
    assert last(run).read_bytes() == checkpoint
    stop(recipe, store, Path(shutil.copytree(run, tmp_path / "same")), 3)  # what it was made with


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_checkpoints_of_something_else_fail(stopped: tuple[Recipe, Path], store: VideoStore, tmp_path: Path) -> None:
    recipe, source = stopped

    def refusal(damage: Callable[[Path], object]) -> str:
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(source, run)
        damage(last(run))
        before = last(run).read_bytes()
        with pytest.raises(Refusal) as refused:
            runs.run(recipe, store, run)
        assert last(run).read_bytes() == before
        assert str(last(run)) in str(refused.value)
        return str(refused.value)

    key = "pair.query.head.0.weight"
    text = refusal(lambda path: rewrite(path, lambda content: content["state_dict"].pop(key)))
    assert "another network" in text and f"missing {key}" in text
    text = refusal(lambda path: rewrite(path, lambda content: content["state_dict"].update(extra=torch.zeros(1))))
    assert "unexpected extra" in text
    text = refusal(lambda path: rewrite(path, lambda content: content["state_dict"].update({key: torch.zeros(2, 3)})))
    assert f"{key} is (2, 3), the network's is (" in text
    text = refusal(lambda path: rewrite(path, lambda content: content[METADATA].update(recipe_hash="0")))
    assert "made with another recipe" in text
    text = refusal(lambda path: rewrite(path, lambda content: content[METADATA].update(stage="other")))
    assert "made with another stage" in text
    text = refusal(lambda path: path.write_bytes(path.read_bytes()[:5000]))
    assert "cannot be read" in text
    text = refusal(lambda path: torch.save({"state_dict": {}}, path))
    assert "not a checkpoint of costream" in text


def test_what_no_stage_can_do_fails_before_anything_is_written(store: VideoStore, tmp_path: Path) -> None:
    def refused(
        message: str,
        *listed: dict[str, Any],
        on: VideoStore = store,
        hardware: Hardware = runs.HARDWARE,
        **changes: Any,
    ) -> None:
        recipe = runs.load(tmp_path / "recipe.yaml", *listed, **changes)
        with pytest.raises(Refusal, match=message):
            runs.run(recipe, on, tmp_path / "run", hardware)
        assert not (tmp_path / "run").exists()

    clips = {"length": 5, "stride": 2, "size": [16, 16]}
    refused("(?s)a clip needs 10 frames.*the longest video has 8.*shorter clips", IN_BATCH, clips=clips)
    refused("13 videos for training: fewer than one batch of 14", IN_BATCH, batch=14)
    refused("(?s)no video of the splits.*its videos are of the splits train", IN_BATCH, splits=["test"])
    refused('(?s)unknown reader.*did you mean "opencv"', IN_BATCH, hardware=Hardware(reader="opencvv"))
    several = Hardware(reader="opencv", accelerator="cpu", devices=3)
    refused("batch of 4 cannot be shared evenly by 3", IN_BATCH, hardware=several)
    with mock.patch.object(InfoNCESettings, "reads", {"rgb": (0, 1, 2)}):
        refused("(?s)draws 2 clips of a video and a sample has 3", IN_BATCH, augmentation={"name": "coclr"})
    without_flow = open_store(store.root)
    assert without_flow.videos  # listed with it
    del without_flow.settings["flow"]
    refused("(?s)no view 'flow'.*VIEWS=flow` adds", IN_BATCH, INFONCE, on=without_flow)


def test_hardware_that_is_not_there_fails(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    for wrong in ({"threads": 0}, {"devices": 0}, {"devices": True}):
        with pytest.raises(UsageError, match=f"hardware.{next(iter(wrong))}"):
            stages.check(recipe, store, Hardware(**wrong))
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, precision="16-mixed")
    with pytest.raises(UsageError, match="a CPU does not train in precision 16-mixed"):
        runs.run(recipe, store, tmp_path / "run")
    recipe = runs.load(tmp_path / "recipe.yaml", INFONCE, IN_BATCH | {"precision": "16-mixed"})
    with pytest.raises(UsageError, match="a CPU does not train in precision 16-mixed"):
        runs.run(recipe, store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_synchronised_batch_norm_keeps_the_names_of_weights() -> None:
    method = methods.create("infonce", INFONCE["settings"], CHANNELS)
    before = list(method.state_dict())
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    assert any(isinstance(part, torch.nn.SyncBatchNorm) for part in converted.modules())
    assert list(converted.state_dict()) == before


def test_synchronised_batch_norm_needs_gpus_or_one_device(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    synchronised = runs.load(tmp_path / "recipe.yaml", IN_BATCH, sync_batchnorm=True)
    two = Hardware(reader="opencv", threads=1, accelerator="cpu", devices=2)
    with pytest.raises(UsageError, match="(?s)works on GPUs only, these are 2 CPU.*sync_batchnorm.*devices 1"):
        runs.run(synchronised, store, tmp_path / "two", two)
    assert not (tmp_path / "two").exists()
    runs.run(recipe, store, tmp_path / "each")
    runs.run(synchronised, store, tmp_path / "one")
    assert runs.lines(tmp_path / "each", "pixels") == runs.lines(tmp_path / "one", "pixels")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without an NVIDIA GPU")
def test_gpu_that_is_not_there_fails(recipe: Recipe, store: VideoStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="(?s)gpu.*where: hardware"):
        runs.run(recipe, store, tmp_path / "run", Hardware(accelerator="gpu"))
