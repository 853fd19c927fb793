"""A toy method whose second clip is another video of its group, and may show flow in the place of RGB; groups are made
anew between epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from pipeline.store import VideoStore
from tests.train import batches, runs
from tests.train.stores import write_store
from tests.train.toy_method import Toy, stage
from train.augment import policy
from train.batches.planning import Planner
from train.between_epochs import Grouping
from train.clips.spec import ClipSpec, StreamSettings
from train.methods import METHODS
from train.reader.affine import normalise
from train.sampling.cluster import Cluster
from train.sampling.groups import Groups

U = {"view": "flow", "input": "u", "mirror": "plain"}
RECIPE: dict[str, Any] = {
    "clips": {"length": 4, "stride": 1, "size": [16, 16]},
    "sampling": {"name": "cluster", "same_video": 0.2, "replaced": 0.5, "replacements": {"rgb": [U]}},
}


class ByEpoch(Grouping):
    """Three groups, which are others in every epoch, whatever was there before."""

    def compute(self, trainer: Trainer, method: LightningModule) -> Tensor:
        return torch.arange(len(trainer.train_dataloader.planner.training_set)) * (1 + trainer.current_epoch) % 3  # type: ignore[union-attr]


class Grouped(Toy):
    def configure_callbacks(self) -> list[Any]:
        return [*super().configure_callbacks(), ByEpoch()]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoStore:
    monkeypatch.setitem(METHODS.entries, "toy", f"{__name__}:Grouped")
    return write_store(tmp_path / "store", {f"v{number}": (9 + number % 3, 20, 24) for number in range(9)})


def test_positives_are_of_the_groups_of_their_epoch(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are planned ahead of the steps, but never ahead of their epoch's groups."""
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0, 1, 2]}, epochs=6), **RECIPE)
    pairs: dict[int, list[tuple[int, int]]] = {}
    plans = Planner.plans

    def watched(planner: Planner, sample: int, epoch: int) -> Any:
        made = plans(planner, sample, epoch)
        videos = [store.videos.index(clip["rgb"].video_id) for clip in made]
        assert videos[0] == videos[2] == sample % 9
        pairs.setdefault(epoch, []).append((videos[0], videos[1]))
        return made

    monkeypatch.setattr(Planner, "plans", watched)
    runs.run(recipe, store, tmp_path / "run")
    assert [len(found) for found in pairs.values()] == [8] * 6
    other = 0
    for epoch, found in pairs.items():
        group = [video * (1 + epoch) % 3 for video in range(9)]
        assert all(group[one] == group[two] for one, two in found)
        other += sum(one != two for one, two in found)
    assert other > 24  # about .8 of 48, but for those alone


def test_a_run_continues_at_every_step(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0, 1]}, epochs=3), **RECIPE)
    runs.run(recipe, store, tmp_path / "whole")
    for done in range(1, 6):
        with runs.signalled(done - 1, also=(Grouped,)), pytest.raises(runs.Stopped):
            runs.run(recipe, store, tmp_path / "parts")
    runs.run(recipe, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "toy")


def test_another_view_is_shown_row_by_row(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has a part of each view; put together, each row is what its own plan makes of its own view."""
    sampling = Cluster(replaced=0.5, replacements={"rgb": [StreamSettings(**U)]})
    clips = ClipSpec(length=4, stride=1, size=(16, 16))
    loader = batches.make(
        store, clips=clips, sampling=sampling, reads={"rgb": (0, 1, 2)}, policy=policy("slic"), batch=9, seed=1
    )
    loader.planner.training_set.groups = Groups(np.arange(9) % 2)
    batch = loader.load(0)
    epoch, samples = loader.order.share(0)
    plans = [loader.planner.plans(int(sample), epoch) for sample in samples]
    views = {number: [sample[number]["rgb"].stream.view for sample in plans] for number in range(3)}
    assert set(views[0]) == {"rgb"} and set(views[1]) == set(views[2]) == {"rgb", "flow"} and views[1] != views[2]
    assert batch.groups.tolist() == (batch.index % 2).tolist()
    monkeypatch.setattr("train.batches.batch.world_size", lambda: 2)
    for number in range(3):
        assert sorted(torch.cat([part.rows for part in batch.parts["rgb"][number]]).tolist()) == list(range(9))
        seen = batch.view("rgb", number)
        assert all(torch.equal(sent, seen) for sent in batch.to_send("rgb", number))  # ranks differ in their parts
        assert seen.shape == (9, 3, 4, 16, 16)
        for row, sample in enumerate(plans):
            made = sample[number]["rgb"]
            read = loader.executor.run(made.stream.view, [made], (16, 16))
            [expected] = normalise(read, torch.from_numpy(made.pixels.colour)[None])
            torch.testing.assert_close(seen[row], expected)
            if made.stream.view == "flow" and len(made.pixels.colour) == 1:
                weights = made.pixels.colour[0, :, 1]
                assert not weights.any()  # of v nothing is seen
    loader.close()


def test_a_method_sees_no_groups_before_there_are_any(store: VideoStore) -> None:
    loader = batches.make(store, sampling=Cluster(), clips=ClipSpec(length=4, stride=1, size=(16, 16)))
    assert set(loader.load(0).groups.tolist()) == {-1}
    loader.close()
