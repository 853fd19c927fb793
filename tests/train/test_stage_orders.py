"""Runs whose epochs are not every video once: how long they are, and how they are continued."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE, stop
from tests.train.stores import write_store
from train import checkpoints
from train.methods.infonce import InfoNCE
from train.stage_data import training_set_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("orders") / "store", runs.VIDEOS)


def batches(store: VideoStore, folder: Path, **changes: Any) -> list[tuple[int, list[int]]]:
    """Epoch and videos of each step of a run of two epochs."""
    seen: list[tuple[int, list[int]]] = []

    def look(method: InfoNCE, batch: Any) -> None:
        seen.append((method.current_epoch, batch.index.tolist()))

    recipe = runs.load(folder / "recipe.yaml", INFONCE | {"epochs": 2}, **changes)
    with runs.in_step(look):
        runs.run(recipe, store, folder / "run")
    assert checkpoints.metadata(runs.last(folder / "run", INFONCE))["finished"]
    return seen


@pytest.mark.parametrize(
    ("order", "sizes"),
    [
        ({"limit": 10, "last": "keep"}, [4, 4, 2]),
        ({"limit": 10, "repeat": 2}, [4] * 5),
        ({"balanced": True, "last": "keep"}, [4, 4, 4, 2]),  # of the 13 videos seven are of one class
        ({"block": 2, "last": "keep"}, [4, 4, 4, 1]),
    ],
    ids=str,
)
def test_epochs_have_as_many_steps_as_their_order_says(
    store: VideoStore, tmp_path: Path, order: dict[str, Any], sizes: list[int]
) -> None:
    seen = batches(store, tmp_path, order=order)
    assert [(epoch, len(videos)) for epoch, videos in seen] == [(epoch, size) for epoch in (0, 1) for size in sizes]
    videos = {video for _, found in seen for video in found}
    assert len(videos) == order.get("limit", 13)


def test_stages_train_with_batches_of_their_own(store: VideoStore, tmp_path: Path) -> None:
    """Two epochs of 13 videos by six, then two by four; stopped in both and continued."""
    listed = (IN_BATCH | {"steps": 0, "epochs": 2}, INFONCE | {"epochs": 2, "batch": 4})
    recipe = runs.load(tmp_path / "recipe.yaml", *listed, batch=6)
    seen: list[tuple[int, int]] = []
    with runs.in_step(lambda method, batch: seen.append((method.current_epoch, len(batch.index)))):
        runs.run(recipe, store, tmp_path / "whole")
    assert seen == [(0, 6)] * 2 + [(1, 6)] * 2 + [(0, 4)] * 3 + [(1, 4)] * 3
    for done in (3, 5):
        stop(recipe, store, tmp_path / "run", done)
    runs.run(recipe, store, tmp_path / "run")
    for stage in listed:
        runs.assert_same_runs(tmp_path / "whole", tmp_path / "run", stage["name"])


def test_dropped_videos_are_not_trained_on(store: VideoStore, tmp_path: Path) -> None:
    """Of the 13 videos five have seven frames, hence six of flow, and a clip spans seven."""
    clips = {"length": 7, "stride": 1, "size": [16, 16]}
    seen = batches(store, tmp_path, clips=clips, sampling={"short": "drop"})
    assert [epoch for epoch, _ in seen] == [0, 0, 1, 1]
    recipe = runs.load(tmp_path / "recipe.yaml", INFONCE, clips=clips)
    training_set = training_set_of(recipe, recipe.stages[0], store)
    assert len(training_set) == 13 and training_set.short == 5
    assert training_set.told_of_short(recipe.sampling) == (
        "5 of 13 videos are shorter than a clip: their first frame is repeated in front (sampling.short: pad)"
    )


def test_run_that_keeps_last_batches_continues_at_the_exact_step(store: VideoStore, tmp_path: Path) -> None:
    """Behind a whole batch, behind the last one of an epoch, and behind the first one of the next."""
    order = {"limit": 5, "repeat": 2, "last": "keep"}
    recipe = runs.load(tmp_path / "recipe.yaml", INFONCE, order=order)
    runs.run(recipe, store, tmp_path / "whole")
    for done in (2, 3, 4):
        stop(recipe, store, tmp_path / "run", done)
    runs.run(recipe, store, tmp_path / "run")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "run", INFONCE["name"])


@pytest.mark.parametrize(
    ("stage", "order", "message"),
    [
        (IN_BATCH, {}, "of 1 video, does not suit the method of stage 'pixels'.*at least two videos"),
        (INFONCE, {"limit": 11}, "of 3 videos, does not suit the method of stage 'motion'.*queue of 8 keys"),
    ],
)
def test_last_batches_that_a_method_cannot_work_with_fail(
    store: VideoStore, tmp_path: Path, stage: dict[str, Any], order: dict[str, Any], message: str
) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", stage, order={"last": "keep", **order})
    with pytest.raises(UsageError, match=f"(?s)last batch of an epoch, {message}.*order.last.*drop in the recipe"):
        runs.run(recipe, store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_balancing_without_labels_fails_by_name(tmp_path: Path) -> None:
    unlabelled = write_store(tmp_path / "store", runs.VIDEOS)
    labels = unlabelled.annotated.labels.copy()
    labels[[4, 9]] = -1
    unlabelled.annotated = dataclasses.replace(unlabelled.annotated, labels=labels)
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, order={"balanced": True})
    with pytest.raises(Refusal, match="(?s)2 videos have no class to balance by, the first of them is 'v04'.*false"):
        runs.run(recipe, unlabelled, tmp_path / "run")
    assert not (tmp_path / "run").exists()
