"""A toy method whose prototypes go from stage to stage, beside its network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import runs
from train import run_folder, stages
from train.clustering.prototypes import Prototypes
from train.methods import METHODS
from train.methods.meters import Meter
from train.methods.method import Method, Start
from train.methods.one_network import OneNetwork, OneNetworkSettings
from train.optim import configured


class ToySettings(OneNetworkSettings):
    """prototypes: how many; 0: none. takes: whether a stage may start without them."""

    prototypes: int = 3
    may_lack: bool = False

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {"rgb": (0,)}

    @property
    def gives(self) -> Mapping[str, tuple[int, ...]]:
        return {"prototypes": (self.prototypes, self.dim)} if self.prototypes else {}

    @property
    def starts(self) -> dict[str, Start]:
        takes = ("backbone", "head", "prototypes")
        return {"network": Start("rgb", self, takes, ("prototypes",) if self.may_lack else ())}

    def check_batch(self, global_batch: int) -> None:
        pass


class Toy(OneNetwork):
    """Clips come near their nearest prototype."""

    Settings = ToySettings
    settings: ToySettings

    def __init__(self, settings: ToySettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.prototypes = Prototypes(max(settings.prototypes, 1), settings.dim)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"prototypes": self.prototypes} if self.settings.prototypes else {}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return {"network": [{**self.network.parts, "prototypes": self.prototypes}]}

    def meters(self, global_batch: int) -> dict[str, Meter]:
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": 1 - self.prototypes(self.network(batch.view("rgb", 0))).max(dim=1).values.mean()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return configured(self.settings.optimiser, self.parameters(), self.trainer)


SETTINGS = {
    "backbone": "small",
    "backbone_settings": {"width": 0.25},
    "dim": 8,
    "optimiser": {"name": "sgd", "lr": 0.01},
}


def stage(name: str, start: dict[str, str], **settings: Any) -> dict[str, Any]:
    return {"name": name, "method": "toy", "steps": 2, "start": start, "settings": SETTINGS | settings}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(METHODS.entries, "toy", f"{__name__}:Toy")
    yield


def test_prototypes_go_on_from_stage_to_stage(store: VideoStore, tmp_path: Path) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", stage("one", {}), stage("two", {"network": "one"}))
    first: list[Tensor] = []

    def keep(method: Method, batch: Any) -> None:
        first.append(method.state_dict()["prototypes.weight"].clone())

    with runs.in_step(keep, Toy):
        runs.run(loaded, store, tmp_path / "run")
    ended = runs.content(tmp_path / "run", "one")["state_dict"]["prototypes.weight"]
    assert torch.equal(first[2], ended) and not torch.equal(first[0], ended)
    assert set(stages.starting_weights(loaded, loaded.stages[1], tmp_path / "run")["network"]) == {
        "backbone",
        "head",
        "prototypes",
    }


def test_a_stage_without_the_prototypes_is_no_start_before_anything_runs(tmp_path: Path) -> None:
    listed = stage("one", {}, prototypes=0), stage("two", {"network": "one"})
    with pytest.raises(UsageError, match=r"(?s)'one' has no prototypes.*stages\[1\].start: network.*backbone, head"):
        runs.load(tmp_path / "recipe.yaml", *listed)


def test_a_file_without_the_prototypes_is_refused(store: VideoStore, tmp_path: Path) -> None:
    runs.run(runs.load(tmp_path / "one.yaml", stage("one", {}, prototypes=0)), store, tmp_path / "one")
    start = {"network": str(run_folder.checkpoint_path(tmp_path / "one", "one"))}
    with pytest.raises(Refusal, match="no prototypes.*would stay random"):
        runs.run(runs.load(tmp_path / "two.yaml", stage("two", start)), store, tmp_path / "two")


def test_where_they_may_be_fresh_it_is_told(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = stage("one", {}, prototypes=0), stage("two", {"network": "one"}, may_lack=True)
    runs.run(runs.load(tmp_path / "recipe.yaml", *listed), store, tmp_path / "run")
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "stage two: one has no prototypes like this network's: network starts with a fresh one, from the seed 3" in told
    )


def test_prototypes_of_another_number_are_refused(store: VideoStore, tmp_path: Path) -> None:
    listed = stage("one", {}), stage("two", {"network": "one"}, prototypes=4)
    with pytest.raises(Refusal, match=r"prototypes.weight is \(3, 8\), the network's is \(4, 8\)"):
        runs.run(runs.load(tmp_path / "recipe.yaml", *listed), store, tmp_path / "run")
