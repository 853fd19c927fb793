"""Videos held out of training, and what their nearest neighbours say of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import train  # noqa: F401  (before torch)

# isort: split
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.train.stores import write_store
from train import augment, reader
from train.augment import base_affine
from train.encoder import Encoder
from train.loader import ClipSettings
from train.neighbours import Neighbours, NeighbourSettings, hold_out

CLIPS = ClipSettings(length=4, stride=2, size=(16, 16))
WATCHED = NeighbourSettings(every=1, share=0.25, gallery=6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """Twelve videos of six recordings: a0 and a1 are of one, and so on."""
    videos = {f"{name}{part}": (14 + part, 20, 24) for name in "abcdef" for part in range(2)}
    made = write_store(tmp_path_factory.mktemp("neighbours") / "store", videos)
    for video, info in list(made.infos.items()):
        made.infos[video] = dataclasses.replace(info, source=video[0])
    return made


@pytest.fixture
def executor(store: VideoStore) -> Iterator[reader.Executor]:
    made = reader.create("opencv", store, CLIPS.size, threads=1)
    yield made
    made.close()


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder("small", 3, dim=8, backbone_settings={"width": 0.25})


def watching(store: VideoStore, settings: NeighbourSettings = WATCHED) -> Neighbours:
    kept, held = hold_out(store, store.videos, settings, seed=0)
    return Neighbours(settings, store, kept, held, CLIPS, augment.policy("evaluate"), seed=0)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 0.7))
def test_recordings_are_held_out_whole_and_every_video_is_on_one_side(
    store: VideoStore, seed: int, share: float
) -> None:
    kept, held = hold_out(store, store.videos, NeighbourSettings(every=1, share=share), seed)
    assert sorted(kept + held) == store.videos and kept == sorted(kept) and held == sorted(held)
    assert not {video[0] for video in kept} & {video[0] for video in held}
    assert max(2, share * 12) <= len(held) < max(2, share * 12) + 2


def test_the_seed_decides_who_is_held_out(store: VideoStore) -> None:
    drawn = [tuple(hold_out(store, store.videos, WATCHED, seed)[1]) for seed in (0, 0, *range(1, 6))]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2


def test_nothing_is_held_out_where_nobody_looks(store: VideoStore) -> None:
    assert hold_out(store, store.videos, NeighbourSettings(), 0) == (store.videos, [])


def test_too_few_recordings_are_refused(store: VideoStore) -> None:
    with pytest.raises(Refusal, match=r"(?s)1 recordings are too few.*every: 0"):
        hold_out(store, ["a0", "a1"], WATCHED, 0)


def window(store: VideoStore, video: str, place: float, executor: reader.Executor, network: Encoder) -> np.ndarray:
    """The unit feature of one window of a video, at this place of all of them, made one at a time."""
    length = store.info(video).shapes["flow"][0]
    starts = list(range(0, length - 8 + 1, 3))
    frames = starts[round((len(starts) - 1) * place)] + 2 * np.arange(4)
    affine = base_affine()["rgb"]
    whole = augment.Pixels(augment.WHOLE, False, affine[None].astype(np.float32))
    pixels = executor.run("rgb", [augment.ClipPlan(video, frames, {"rgb": whole})]).numpy()[0].astype(np.float64)
    clip = np.einsum("ij,jthw->ithw", affine[:, :3], pixels) + affine[:, 3, None, None, None]
    with torch.no_grad():
        feature = network.eval().features(torch.from_numpy(clip[None]).float())[0].numpy()
    return feature / np.linalg.norm(feature)


def test_the_number_is_that_of_a_plain_loop(store: VideoStore, executor: reader.Executor) -> None:
    network, watched = encoder(), watching(store)
    gallery = {video: window(store, video, 0.5, executor, network) for video in watched.gallery}
    right = 0
    for query in watched.held_out:
        feature = window(store, query, 0.5, executor, network)
        best = max(gallery, key=lambda video: feature @ gallery[video])
        right += store.info(best).label == store.info(query).label
    assert len(watched.gallery) == 6 and not set(watched.gallery) & set(watched.held_out)
    assert watched.look(network, "rgb", executor) == ("knn_top1", right / len(watched.held_out))
    assert "4 videos held out" in watched.described and "2 classes" in watched.described


def test_without_labels_a_video_is_to_find_itself(
    store: VideoStore, executor: reader.Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for video, info in list(store.infos.items()):
        monkeypatch.setitem(store.infos, video, dataclasses.replace(info, label=""))
    watched, network = watching(store), encoder()
    held = watched.held_out
    first, last = ([window(store, video, place, executor, network) for video in held] for place in (0.0, 1.0))
    right = sum(int(np.argmax([query @ key for key in first])) == place for place, query in enumerate(last))
    assert watched.look(network, "rgb", executor) == ("same_video_top1", right / len(held))
    assert "guessing 25.0%" in watched.described


def test_looking_leaves_the_network_and_random_numbers_alone(store: VideoStore, executor: reader.Executor) -> None:
    network = encoder().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    watching(store).look(network, "rgb", executor)
    assert network.training and torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
