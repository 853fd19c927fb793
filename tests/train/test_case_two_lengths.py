"""A toy method with clips of two lengths in a sample: read, trained, stopped, continued and evaluated as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.oracle import clip_plan, plain
from tests.train.stores import write_store
from tests.train.toy_method import TOY, Toy, stage
from train import provenance
from train.checkpoints import metadata
from train.clips import sliding_windows
from train.methods import METHODS
from train.methods.method import Method
from train.run_folder import checkpoint_path

RECIPE: dict[str, Any] = {
    "clips": {"length": 8, "stride": 2, "size": [16, 20]},
    "sampling": {"name": "multiscale", "longer": 2, "shorter": 3, "shorter_length": 4, "apart": 3},
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoStore:
    monkeypatch.setitem(METHODS.entries, "toy", TOY)
    return write_store(tmp_path / "store", {f"v{number}": (20 + number, 20, 24) for number in range(9)})


def test_clips_of_two_lengths_are_read_and_trained_on(store: VideoStore, tmp_path: Path) -> None:
    """Each row of each clip is what a plain loop makes of its frames, and none is read that nobody looks at."""
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0, 1, 4], "flow": [1, 2]}), **RECIPE)
    steps = []

    def look(method: Method, batch: Any) -> None:
        loader = method.trainer.train_dataloader
        lengths = {(stream, n): batch.view(stream, n).shape[2:] for stream in batch.parts for n in batch.parts[stream]}
        long, short = (8, 16, 20), (4, 16, 20)
        assert lengths == {
            ("rgb", 0): long, ("rgb", 1): long, ("rgb", 4): short, ("flow", 1): long, ("flow", 2): short,
        }  # fmt: skip
        epoch, samples = loader.order.share(method.global_step)
        for row, sample in enumerate(samples.tolist()):
            for (stream, number), _ in lengths.items():
                made = loader.planner.plans(sample, epoch)[number][stream]
                whole = clip_plan(made.video_id, made.frames, made.pixels.window)
                [expected] = plain(store, stream, [whole], (16, 20))
                assert np.array_equal(batch.parts[stream][number][0].clips[row].numpy(), expected)
        steps.append(method.global_step)

    with runs.in_step(look, Toy):
        runs.run(recipe, store, tmp_path / "run")
    assert steps == [0, 1, 2, 3]


def test_a_run_continues_at_every_step(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0, 3]}), **RECIPE)
    runs.run(recipe, store, tmp_path / "whole")
    for done in range(1, 4):
        with runs.signalled(done - 1, also=(Toy,)), pytest.raises(runs.Stopped):
            runs.run(recipe, store, tmp_path / "parts")
    runs.run(recipe, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "toy")


def test_evaluation_shows_the_long_clips(store: VideoStore, tmp_path: Path) -> None:
    runs.run(runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0]}), **RECIPE), store, tmp_path / "run")
    path = checkpoint_path(tmp_path / "run", "toy")
    clips, sampling = provenance.clips_of(metadata(path), path)
    np.testing.assert_array_equal(sampling.windows(clips, 20), sliding_windows(20, 8, 2))
    np.testing.assert_array_equal(sampling.windows(clips, 12), sliding_windows(12, 8, 1))
