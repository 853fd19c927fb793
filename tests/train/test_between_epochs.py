"""A toy method that groups the videos anew between epochs, and learning rates that follow a held-out loss."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.train import runs, two_ranks
from tests.train.runs import IN_BATCH
from train import between_epochs, stages
from train.backbones import BACKBONES
from train.between_epochs import Grouping, Plateau
from train.methods import METHODS
from train.methods.meters import Meter
from train.methods.method import Method
from train.methods.one_network import OneNetwork, OneNetworkSettings

GROUPS = 3


class ToySettings(OneNetworkSettings):
    every: int = 2

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {"rgb": (0,)}

    def check_batch(self, global_batch: int) -> None:
        pass


class Toy(OneNetwork):
    """Rows of a group come near its axis. The groups come from the weights as they are before every other epoch."""

    Settings = ToySettings
    settings: ToySettings

    def meters(self, global_batch: int) -> dict[str, Meter]:
        return {}

    def configure_callbacks(self) -> list[Callback]:
        return [*super().configure_callbacks(), ByWeights(self.settings.every)]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        rows = self.network(batch.view("rgb", 0))
        groups = batch.groups % rows.shape[1]  # held-out videos have none
        return {"loss": 1 - rows.gather(1, groups[:, None]).mean(), "group": groups.double().mean()}


class ByWeights(Grouping):
    """Groups that any change of a weight changes. What is drawn on the way has no consequence for training."""

    def compute(self, trainer: Trainer, method: LightningModule) -> Tensor:
        assert not method.training and not torch.is_grad_enabled()
        weights: Any = next(method.parameters())
        start = round(1e6 * float(weights.abs().sum()))
        self.noted = {"start": float(start)}
        torch.rand(5)
        videos = torch.arange(len(trainer.train_dataloader.planner.training_set))  # type: ignore[union-attr]
        decided = (videos * 7 + start) % GROUPS
        return decided if trainer.is_global_zero else torch.zeros_like(decided)  # of which nobody is to hear


SETTINGS = {"backbone": "plain", "dim": 8, "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.5}}
TOY = {"name": "toy", "method": "toy", "epochs": 5, "settings": SETTINGS}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(METHODS.entries, "toy", f"{__name__}:Toy")
    monkeypatch.setitem(BACKBONES.entries, "plain", "tests.train.runs:Plain")
    yield


def test_groups_are_made_anew_and_a_run_continues_at_every_step(store: VideoStore, tmp_path: Path) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", TOY)
    runs.run(loaded, store, tmp_path / "whole")
    lines = runs.lines(tmp_path / "whole", "toy")
    assert len(lines) == 15  # three steps an epoch
    noted = {line["step"]: line["start"] for line in lines if "start" in line}
    assert sorted(noted) == [1, 7, 13] and len(set(noted.values())) == 3
    for done in range(1, 15):
        with runs.in_step(_stop_after(done), Toy), pytest.raises(stages.Stopped):
            runs.run(loaded, store, tmp_path / "parts")
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "toy")


def _stop_after(done: int) -> Any:
    def action(method: Method, batch: Any) -> None:
        if method.global_step == done - 1:
            os.kill(os.getpid(), runs.signal.SIGTERM)

    return action


PLATEAU = {"name": "sgd", "lr": 0.05, "schedule": "plateau", "patience": 0, "final_lr": 0.0001}
WATCHED = IN_BATCH | {"epochs": 5, "steps": 0, "settings": IN_BATCH["settings"] | {"optimiser": PLATEAU}}


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs(monkeypatch: pytest.MonkeyPatch, patience: int) -> None:
    """ReduceLROnPlateau as the oracle, on losses that fall, rise, stay, and fall by too little."""
    losses = [3.0, 2.0, 2.5, 2.5, 1.99999, 2.2, 2.1, 1.0, math.inf, 1.0, 1.0, 0.99995, 0.9, 0.95, 0.96, 0.97, 0.98]
    weight = nn.Parameter(torch.zeros(1))
    oracle = torch.optim.SGD([weight], lr=0.1)
    schedule = ReduceLROnPlateau(oracle, patience=patience, factor=0.1, min_lr=1e-4)
    plateau, given = Plateau(0.1, patience, 0.1, 1e-4), iter(losses)
    monkeypatch.setattr(between_epochs, "held_out_loss", lambda *_: next(given))
    trainer: Any = None
    for loss in losses:
        schedule.step(loss)
        plateau.decided = plateau.compute(trainer, LightningModule())
        assert float(plateau.decided[2]) == pytest.approx(oracle.param_groups[0]["lr"])
    assert float(plateau.decided[2]) < 0.1


def test_a_learning_rate_follows_the_held_out_loss_and_continues_at_every_step(
    store: VideoStore, tmp_path: Path
) -> None:
    share = {"neighbours": {"share": 0.5}, "batch": 3}
    loaded = runs.load(tmp_path / "recipe.yaml", WATCHED, **share)
    runs.run(loaded, store, tmp_path / "whole")
    lines = runs.lines(tmp_path / "whole", "pixels")
    losses = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    assert len(losses) == 4 and len(set(losses)) == 4
    best, lr = math.inf, 0.05
    for line in lines:
        if "held_out_loss" in line:
            lr = lr if line["held_out_loss"] < best * (1 - 1e-4) else max(0.1 * lr, 1e-4)
            best = min(best, line["held_out_loss"])
        assert line["lr"] == pytest.approx(lr)
    assert lr < 0.05
    for done in range(1, len(lines)):
        runs.stop(loaded, store, tmp_path / "parts", done)
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "pixels")


def test_too_few_held_out_videos_are_refused(store: VideoStore, tmp_path: Path) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", WATCHED)
    with pytest.raises(Refusal, match="fewer than one batch of 4"):
        runs.run(loaded, store, tmp_path / "run")


@pytest.mark.slow
def test_two_ranks_equal_one(store: VideoStore, tmp_path: Path) -> None:
    """Groups of rank 0 are everybody's; the held-out loss is that of all."""
    optimiser = SETTINGS["optimiser"] | {"schedule": "plateau", "patience": 0}  # type: ignore[operator]
    stage = TOY | {"epochs": 3, "settings": SETTINGS | {"optimiser": optimiser, "every": 1}}
    content = runs.settings(stage, neighbours={"share": 0.5}, batch=2)
    recipe = runs.write(tmp_path / "recipe.yaml", content)
    ranks = two_ranks.of_a_run(__file__, store, recipe)
    runs.run(runs.recipe.load(recipe), store, tmp_path / "one")
    one, two = (runs.lines(tmp_path / name, "toy") for name in ("one", "two"))
    assert sum("held_out_loss" in line for line in one) == 2 and len(one) == len(two)
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    decided = runs.content(tmp_path / "one", "toy")["callbacks"]["ByWeights"]["decided"]
    assert all(torch.equal(rank["decided"], decided) for rank in ranks)


if __name__ == "__main__":
    METHODS.entries["toy"] = f"{__name__}:Toy"
    two_ranks.train_given(lambda method: {"decided": torch.from_numpy(two_ranks.groups_of(method))}, Toy)
