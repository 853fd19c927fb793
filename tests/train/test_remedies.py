"""What refusals of recipes, files of networks and numbers say is to be done helps: each is done here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import pytest
import torch

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests import remedies
from tests.remedies import helps
from tests.train import runs
from tests.train.runs import IN_BATCH
from train import published as files
from train import recipe
from train import verify as verification
from train.clips.spec import ClipSpec
from train.clustering.agreement import cluster_scores
from train.hardware import Hardware, device
from train.networks.settings import NetworkSettings
from train.optim import OptimiserSettings
from train.order import OrderSettings
from train.published import import_published
from train.published.networks import refuse_without
from train.sampling.blocks import Blocks
from train.sampling.random import Random
from train.settings import check_number, read

CLIPS = ClipSpec(length=4, stride=1, size=(16, 16))
NETWORK = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 8}


def optimiser(**given: Any) -> OptimiserSettings:
    return read(OptimiserSettings, given, "optimiser")


def network(**given: Any) -> NetworkSettings:
    return read(NetworkSettings, given, "network")


def loaded(folder: Path, *stages: dict[str, Any], **changes: Any) -> recipe.Recipe:
    return runs.load(folder / "recipe.yaml", *(stages or (IN_BATCH,)), **changes)


def stage(**settings: Any) -> dict[str, Any]:
    return IN_BATCH | {"settings": IN_BATCH["settings"] | settings}  # type: ignore[operator]


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


def cut(folder: Path) -> None:
    (folder / "whole.pth").write_bytes(saved(folder, {"a": torch.zeros(99)}).read_bytes())
    (folder / "file.pth").write_bytes((folder / "whole.pth").read_bytes()[:-99])
    files.files.load(folder / "file.pth", "")


def copied(folder: Path) -> None:
    shutil.copy(folder / "whole.pth", folder / "file.pth")
    files.files.load(folder / "file.pth", "")


class Code:
    def __reduce__(self) -> Any:
        return print, ("ran",)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give warm_up, in epochs",
            lambda folder: optimiser(schedule="cosine", warm_up_from=1e-4),
            lambda folder: optimiser(schedule="cosine", warm_up_from=1e-4, warm_up=1),
        ),
        remedies.case(
            "give one of the two",
            lambda folder: read(OrderSettings, {"balanced": True, "block": 4}, "order"),
            lambda folder: [read(OrderSettings, one, "order") for one in ({"balanced": True}, {"block": 4})],
        ),
        remedies.case(
            "name it",
            lambda folder: network(aggregation_settings={"block_length": 2}),
            lambda folder: network(aggregation="gru", aggregation_settings={"block_length": 2}),
        ),
        remedies.case(
            ", or another backbone",
            lambda folder: network(backbone="s3d").check_clips(1, (16, 16)),
            lambda folder: [
                network(backbone="s3d").check_clips(32, (128, 128)),
                network(backbone="small").check_clips(4, (16, 16)),
            ],
        ),
        remedies.case(
            "YAML reads 1e-3 as text: write 1.0e-3",
            lambda folder: check_number("lr", "1e-3"),
            lambda folder: check_number("lr", 1.0e-3),
        ),
        remedies.case(
            "give both, or none",
            lambda folder: loaded(folder, keep_best={"metric": "loss"}),
            lambda folder: [loaded(folder, keep_best={"metric": "loss", "mode": "min"}), loaded(folder)],
        ),
        remedies.case(
            "another sampling in the recipe, or another method",
            lambda folder: Blocks(blocks=2).check(CLIPS, 9),
            lambda folder: [
                Random().check(CLIPS, 9),
                Blocks(blocks=2).check(CLIPS, 1),
            ],
        ),
        remedies.case(
            "a sampling's name and settings",
            lambda folder: loaded(folder, sampling=[1]),
            lambda folder: loaded(folder, sampling={"name": "random"}),
        ),
        remedies.case(
            "name each class once",
            lambda folder: loaded(folder, classify(classes=["a", "a"])),
            lambda folder: loaded(folder, classify(classes=["a", "b"])),
        ),
    ],
)
def test_of_recipes(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


def classify(**given: Any) -> dict[str, Any]:
    return {"name": "c", "method": "classify", "steps": 1, "settings": NETWORK | given}


def loaded_path(folder: Path) -> Path:
    loaded(folder)
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "score the labelled videos alone",
            lambda folder: cluster_scores(np.array([0, 1, 1]), np.array([0, 1, -1])),
            lambda folder: cluster_scores(np.array([0, 1]), np.array([0, 1])),
        ),
        remedies.case(
            "give both for the same videos in the same order",
            lambda folder: cluster_scores(np.array([0, 1, 1]), np.array([0, 1])),
            lambda folder: cluster_scores(np.array([0, 1]), np.array([0, 1])),
        ),
        remedies.case("use a copy, or delete it and train (or fetch) it again", lambda folder: cut(folder), copied),
        remedies.case(
            "give another file; of one that you trust, load it elsewhere and save its state dict alone",
            lambda folder: files.files.load(saved(folder, {"state_dict": {"a": torch.zeros(1)}, "x": Code()}), ""),
            lambda folder: files.files.load(
                saved(folder, torch.load(folder / "file.pth", weights_only=False)["state_dict"]), ""
            ),
        ),
        remedies.case(
            "give a file with tensors by name",
            lambda folder: import_published([torch.zeros(1)]),
            lambda folder: helps_to_be_told_apart({"a": torch.zeros(1)}),
        ),
        remedies.case(
            "give a file with tensors, each under a name of its own",
            lambda folder: import_published({"a": 1}),
            lambda folder: helps_to_be_told_apart({"a": torch.zeros(1)}),
        ),
        remedies.case(
            "keep the file that it was read from",
            lambda folder: refuse_without("coclr", {"head": "classifier"}),
            lambda folder: shutil.copy(saved(folder, {"a": torch.zeros(1)}), folder / "kept.pth"),
        ),
        remedies.case(
            "--hardware.devices 1, GPUs, or sync_batchnorm: false in the recipe",
            lambda folder: device(Hardware(accelerator="cpu", devices=2), "32-true", True),
            lambda folder: [
                device(Hardware(accelerator="cpu", devices=1), "32-true", True),
                device(Hardware(accelerator="cpu", devices=2), "32-true", False),
            ],
        ),
    ],
)
def test_of_files_numbers_and_hardware(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


def helps_to_be_told_apart(state: dict[str, torch.Tensor]) -> None:
    """It is a state dict, though of none of the layouts."""
    with pytest.raises(Refusal, match="the layout of the checkpoint cannot be told"):
        import_published(state)


@pytest.fixture(scope="module")
def stopped(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its first checkpoint, and those of two and four steps."""
    folder = tmp_path_factory.mktemp("stopped")
    runs.run(runs.load(folder / "recipe.yaml", IN_BATCH | {"steps": 4}, keep_every=2), store, folder / "run")
    return folder / "run"


def test_a_damaged_checkpoint_is_replaced_or_deleted(stopped: Path, store: VideoStore, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    path, other = runs.last(run), runs.last(run).with_name("step-2.ckpt")
    loaded = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 4}, keep_every=2)

    def damaged(folder: Path) -> None:
        path.write_bytes(b"damaged")
        assert any(verification.verify(run))
        runs.run(loaded, store, run)

    helps(damaged, lambda folder: (path.write_bytes(other.read_bytes()), runs.run(loaded, store, run)), tmp_path)
    assert not any(verification.verify(run))
    helps(damaged, lambda folder: (path.unlink(), runs.run(loaded, store, run)), tmp_path)
    assert not any(verification.verify(run))


@pytest.mark.remedy("give the RUN= that `make pretrain` wrote")
def test_a_run_is_given(stopped: Path, tmp_path: Path) -> None:
    helps(lambda folder: list(verification.verify(folder)), lambda folder: list(verification.verify(stopped)), tmp_path)
