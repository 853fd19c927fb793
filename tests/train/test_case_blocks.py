"""A toy method on eight blocks of five frames, a fraction of a frame apart where the video is short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.stores import write_store
from tests.train.toy_method import TOY, Toy, stage
from train.methods import METHODS
from train.methods.method import Method

FRAMES = {"long": 125, "just long": 122, "fits": 120, "short": 60, "shorter": 42, "shortest": 11}
RECIPE: dict[str, Any] = {
    "clips": {"length": 40, "stride": 3, "size": [16, 16]},
    "sampling": {"name": "blocks", "blocks": 8},
    "batch": 3,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoStore:
    monkeypatch.setitem(METHODS.entries, "toy", TOY)
    return write_store(tmp_path / "store", {name: (frames, 12, 16) for name, frames in FRAMES.items()})


def test_blocks_are_trained_on(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0], "flow": [0]}, epochs=4), **RECIPE)
    starts: dict[str, set[int]] = {}

    def look(method: Method, batch: Any) -> None:
        assert batch.view("rgb", 0).shape == (3, 3, 40, 16, 16) and batch.view("flow", 0).shape == (3, 2, 40, 16, 16)
        loader = method.trainer.train_dataloader
        epoch, samples = loader.order.share(method.global_step)
        for sample in samples.tolist():
            made = loader.planner.plans(sample, epoch)[0]["rgb"]
            usable = FRAMES[made.video_id] - 1  # as many as flow has
            distance = 3 if usable > 120 else 0.9 * (usable - 1) / 40
            start = int(made.frames[0])
            expected = [int(start + distance * (5 * block + frame)) for block in range(8) for frame in range(5)]
            assert made.frames.tolist() == expected and expected[-1] < usable
            starts.setdefault(made.video_id, set()).add(start)

    with runs.in_step(look, Toy):
        runs.run(recipe, store, tmp_path / "run")
    assert set(starts) == set(FRAMES) and max(map(len, starts.values())) > 1


def test_short_videos_are_dropped_when_asked_for(store: VideoStore, tmp_path: Path) -> None:
    sampling = RECIPE["sampling"] | {"short": "drop"}
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0]}), **RECIPE | {"sampling": sampling, "batch": 2})
    seen: set[str] = set()

    def look(method: Method, batch: Any) -> None:
        videos = method.trainer.train_dataloader.planner.training_set.videos
        seen.update(videos.id(number) for number in batch.index.tolist())

    with runs.in_step(look, Toy):
        runs.run(recipe, store, tmp_path / "run")
    assert seen == {"long", "just long"}


def test_what_does_not_suit_blocks_fails_before_anything_is_written(store: VideoStore, tmp_path: Path) -> None:
    uneven = RECIPE | {"clips": {"length": 39, "stride": 3, "size": [16, 16]}}
    for looks_at, changes, message in (
        ({"rgb": [0]}, uneven, "clip of 39 frames is not 8 blocks"),
        ({"rgb": [0, 1]}, RECIPE, "reads clip 2 of a sample, which has 1"),
    ):
        recipe = runs.load(tmp_path / "recipe.yaml", stage(looks_at), **changes)
        with pytest.raises(UsageError, match=message):
            runs.run(recipe, store, tmp_path / "run")
        assert not (tmp_path / "run").exists()
