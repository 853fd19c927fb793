"""A toy method that is given a view at 224 pixels and another one at 64 in the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.store import VideoStore
from pipeline.views import VIEWS
from tests.toy_view import TOY as VIEW
from tests.train import batches, runs
from tests.train.oracle import assert_close, clip_plan, plain
from tests.train.stores import write_store
from tests.train.toy_method import TOY, Toy, stage
from train.augment import policy
from train.clips.spec import ClipSpec, StreamSettings
from train.methods import METHODS
from train.methods.method import Method

SIZES = {"rgb": (224, 224), "toy": (64, 64)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoStore:
    monkeypatch.setitem(METHODS.entries, "toy", TOY)
    monkeypatch.setitem(VIEWS, VIEW.name, VIEW)
    return write_store(tmp_path / "store", {f"v{number}": (7, 60, 80) for number in range(4)}, planes=17)


def test_streams_of_two_sizes_are_trained_on(store: VideoStore, tmp_path: Path) -> None:
    clips = {"length": 2, "stride": 1, "size": [224, 224], "streams": {"toy": {"size": [64, 64]}}}
    recipe = runs.load(tmp_path / "recipe.yaml", stage({"rgb": [0], "toy": [0]}), clips=clips, batch=2)
    steps = []

    def look(method: Method, batch: Any) -> None:
        assert batch.view("rgb", 0).shape == (2, 3, 2, 224, 224)
        assert batch.view("toy", 0).shape == (2, 17, 2, 64, 64)
        steps.append(method.global_step)

    with runs.in_step(look, Toy):
        runs.run(recipe, store, tmp_path / "run")
    assert steps == [0, 1, 2, 3]


@pytest.mark.parametrize("executor", ["opencv", "dali"])
def test_executors_read_both_sizes_of_a_batch(store: VideoStore, executor: str, on_cpu: None) -> None:
    """In turn, batch after batch, from the same windows; a view that is read beside changes none of them."""
    clips = ClipSpec(length=4, stride=1, size=(224, 224), streams={"toy": StreamSettings(size=(64, 64))})
    given: dict[str, Any] = {"clips": clips, "policy": policy("coclr"), "executor": executor}
    both = batches.make(store, reads={"rgb": (0, 1), "toy": (1,)}, **given)
    alone = batches.make(store, reads={"rgb": (0, 1)}, **given)
    for number in range(3):
        batch, epoch = both.load(number), number
        for row, sample in enumerate(both.order.share(number)[1].tolist()):
            planned = both.planner.plans(sample, epoch)
            assert planned[1]["toy"].pixels.window == planned[1]["rgb"].pixels.window
            for stream, clip in (("rgb", 0), ("toy", 1)):
                made = planned[clip][stream].pixels
                whole = clip_plan(planned[clip][stream].video_id, planned[clip][stream].frames, made.window, made.flip)
                found = batches.part(batch, stream, clip).clips[row]
                if not made.blur:
                    assert_close(found[None], plain(store, stream, [whole], SIZES[stream]))
        for clip in (0, 1):
            assert np.array_equal(batch.view("rgb", clip), alone.load(number).view("rgb", clip))
    both.close(), alone.close()
