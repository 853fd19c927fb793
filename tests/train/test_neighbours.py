"""Videos held out of training, and what their nearest neighbours say of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch)

# isort: split
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.train import batches, runs
from tests.train.oracle import clip_plan
from tests.train.stores import write_store
from train import embedding, reader
from train.callbacks.metrics import Metrics
from train.callbacks.neighbours import Neighbours
from train.callbacks.watching import WatchedClips
from train.clips.spec import ClipSpec
from train.networks.network import Network
from train.recipe import NeighbourSettings
from train.sampling.random import Random
from train.stage_data import training_set_of

CLIPS = ClipSpec(length=4, stride=2, size=(16, 16))
WATCHED = NeighbourSettings(every=1, share=0.25, gallery=6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """Twelve videos of six recordings: a0 and a1 are of one, and so on."""
    videos = {f"{name}{part}": (14 + part, 20, 24) for name in "abcdef" for part in range(2)}
    made = write_store(tmp_path_factory.mktemp("neighbours") / "store", videos)
    recorded = np.repeat(np.arange(6, dtype=np.int32), 2)
    made.annotated = dataclasses.replace(made.annotated, recordings=list("abcdef"), recorded=recorded)
    return made


@pytest.fixture
def executor(store: VideoStore) -> Iterator[reader.Executor]:
    made = reader.create("opencv", store, threads=1)
    yield made
    made.close()


def made() -> Network:
    torch.manual_seed(0)
    return Network("small", 3, {"width": 0.25}, head_settings={"dim": 8})


def split(store: VideoStore, share: float, seed: int, videos: list[str] | None = None) -> tuple[list[str], list[str]]:
    """Videos that are trained on, and videos that are held out."""
    made = batches.training_set(store, videos, share=share, seed=seed)
    return list(made.videos.ids), list(made.held_out.ids)


def watching(store: VideoStore, layer: str = "backbone") -> Neighbours:
    training_set = batches.training_set(store, share=WATCHED.share, seed=0)
    metrics = Metrics(Path("unused"), 1)
    return Neighbours(WATCHED, training_set, WatchedClips(CLIPS, Random(), ["rgb"], store.settings), 0, layer, metrics)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 0.5))
def test_recordings_are_held_out_whole_and_every_video_is_on_one_side(
    store: VideoStore, seed: int, share: float
) -> None:
    kept, held = split(store, share, seed)
    assert sorted(kept + held) == store.videos and kept == sorted(kept) and held == sorted(held)
    assert not {video[0] for video in kept} & {video[0] for video in held}
    assert max(2, share * 12) <= len(held) < max(2, share * 12) + 2


def test_the_seed_decides_who_is_held_out(store: VideoStore) -> None:
    drawn = [tuple(split(store, WATCHED.share, seed)[1]) for seed in (0, 0, *range(1, 6))]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2


def test_nothing_is_held_out_where_nobody_looks(store: VideoStore) -> None:
    assert split(store, 0.0, 0) == (store.videos, [])


def test_too_few_recordings_are_refused(store: VideoStore) -> None:
    with pytest.raises(Refusal, match=r"(?s)1 recordings are too few.*every: 0"):
        split(store, WATCHED.share, 0, ["a0", "a1"])


def window(
    store: VideoStore, video: str, place: float, executor: reader.Executor, network: Network, layer: str
) -> np.ndarray:
    """The unit row of a layer, of one window of a video, at this place of all of them, made one at a time."""
    length = store.info(video).shapes["flow"][0]
    starts = list(range(0, length - 8 + 1, 3))
    frames = starts[round((len(starts) - 1) * place)] + 2 * np.arange(4)
    affine = CLIPS.stream("rgb").bound(store.settings).affine(False)
    pixels = executor.run("rgb", [clip_plan(video, frames)], CLIPS.size).numpy()[0].astype(np.float64)
    clip = np.einsum("ij,jthw->ithw", affine[:, :3], pixels) + affine[:, 3, None, None, None]
    with torch.no_grad():
        feature = network.eval().embed(torch.from_numpy(clip[None]).float(), layer)[0].numpy()
    return feature / np.linalg.norm(feature)


@pytest.mark.parametrize("layer", ["backbone", "head"])
def test_the_number_is_that_of_a_plain_loop(store: VideoStore, executor: reader.Executor, layer: str) -> None:
    network, watched = made(), watching(store, layer=layer)
    gallery = {video: window(store, video, 0.5, executor, network, layer) for video in watched.gallery.ids}
    right = 0
    for query in watched.held_out.ids:
        feature = window(store, query, 0.5, executor, network, layer)
        best = max(gallery, key=lambda video: feature @ gallery[video])
        right += store.info(best).label == store.info(query).label
    assert len(watched.gallery) == 6 and not set(watched.gallery.ids) & set(watched.held_out.ids)
    assert watched.look(network, "rgb", executor) == [right / len(watched.held_out)]
    (meter,) = watched.meters.values()
    assert (
        list(watched.meters) == ["knn_top1"]
        and "4 videos held out" in meter.meaning
        and "nearest of 6" in meter.meaning
    )


def test_without_labels_a_video_is_to_find_itself(
    store: VideoStore, executor: reader.Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlabelled = dataclasses.replace(store.annotated, labels=np.full(12, -1))
    monkeypatch.setattr(store, "annotated", unlabelled)
    watched, network = watching(store), made()
    held = watched.held_out.ids
    first, last = (
        [window(store, video, place, executor, network, "backbone") for video in held] for place in (0.0, 1.0)
    )
    right = sum(int(np.argmax([query @ key for key in first])) == place for place, query in enumerate(last))
    assert watched.look(network, "rgb", executor) == [right / len(held)]
    (meter,) = watched.meters.values()
    assert list(watched.meters) == ["same_video_top1"] and "guessing gives 25 %" in meter.meaning


def test_looking_leaves_the_network_and_random_numbers_alone(store: VideoStore, executor: reader.Executor) -> None:
    network = made().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    watching(store).look(network, "rgb", executor)
    assert network.training and torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_run_notes_its_neighbours_and_never_trains_on_them(tmp_path: Path) -> None:
    """Stopped and continued like any other."""
    store = write_store(tmp_path / "store", runs.VIDEOS)
    recipe = runs.load(tmp_path / "recipe.yaml", runs.IN_BATCH, neighbours={"every": 3, "share": 0.2, "gallery": 5})
    training_set = training_set_of(recipe, recipe.stages[0], store)
    kept, held = list(training_set.videos.ids), list(training_set.held_out.ids)
    assert sorted(kept + held) == store.videos and len(held) == 3
    seen: set[str] = set()

    def look(method: Any, batch: Any) -> None:
        seen.update(kept[place] for place in batch.index.tolist())

    with runs.in_step(look):
        runs.run(recipe, store, tmp_path / "whole")
    assert seen == set(kept)
    lines = runs.lines(tmp_path / "whole", "pixels")
    assert [line["step"] for line in lines if "knn_top1" in line] == [3, 6, 8]
    assert all(round(3 * line["knn_top1"], 9) in (0, 1, 2, 3) for line in lines if "knn_top1" in line)
    runs.stop(recipe, store, tmp_path / "parts", 3)
    runs.run(recipe, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "pixels")


def test_ranks_share_the_clips_and_get_the_same_features(
    store: VideoStore, executor: reader.Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four ranks in one process, six clips: what each would send, put together in rank order."""
    network, watched = made(), watching(store)
    clips = watched.clips.of(watched.gallery, "rgb", 0.5)
    alone = embedding.rows_of(network, clips, executor, "backbone")
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(embedding, "world_size", lambda: 4)
    monkeypatch.setattr(embedding, "gather_rows", lambda rows: sent.append(rows) or torch.cat(sent))
    for rank in range(4):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        found = embedding.rows_of(network, clips, executor, "backbone")
    assert [len(rows) for rows in sent] == [2, 2, 2, 2]
    torch.testing.assert_close(found, alone)
