"""The feature bank against a plain loop over windows, and what makes it stale."""

from __future__ import annotations

import dataclasses
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rich.console import Console

from eval import features
from eval.features import FeatureBank, Request, Seen
from eval.protocols import PROTOCOLS, Look
from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.faults.disk import the_disk
from train import reader
from train.augment import ClipPlan
from train.clips import sliding_windows
from train.clips.spec import ClipSpec
from train.networks.network import Network
from train.reader import Executor
from train.sampling.blocks import Blocks

OURS = dataclasses.replace(PROTOCOLS["coclr"].features, pixels="ours")
LOOKS = {"clean": PROTOCOLS["clean"].features, "coclr": OURS, "published": PROTOCOLS["coclr"].features}
CLIP = ClipSpec(length=4, stride=2, size=(16, 16))


@pytest.fixture
def executor(store: VideoStore) -> Iterator[Executor]:
    made = reader.create("opencv", store, threads=1)
    yield made
    made.close()


def network(stream: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network("small", {"rgb": 3, "flow": 2}[stream], {"width": 0.25}, head_settings={"dim": 8})


def plans_of(store: VideoStore, video: str, stream: str, protocol: str, seed: int = 0) -> list[ClipPlan]:
    return Seen(stream, CLIP).plans(store, video, LOOKS[protocol], seed)


def request(store: VideoStore, **changes) -> Request:
    same = Request(
        checkpoint="c0ffee", network="trained", seen=Seen("rgb", CLIP), layer="backbone", look=Look(), seed=0,
        store_settings=store.settings_hash, videos=features.videos_digest(store, store.videos),
        contents=features.contents_digest(store, store.videos), sides="", reader="opencv",
    )  # fmt: skip
    return dataclasses.replace(same, **changes)


def compute(
    store: VideoStore, executor: Executor, stream: str, protocol: str, seed: int = 0, layer: str = "backbone"
) -> np.ndarray:
    look = LOOKS[protocol]
    return rows_of(store, store.videos, executor, network(stream), Seen(stream, CLIP), layer, look, seed)


def rows_of(
    store: VideoStore,
    videos: list[str],
    executor: Executor,
    made: Network,
    seen: Seen,
    layer: str,
    look: Look,
    seed: int = 0,
    done: int = 0,
) -> np.ndarray:
    found = features.compute([made], seen, layer, store, videos, look, executor, seed=seed, title="test", done=done)
    return np.concatenate([block for (block,) in found])


@pytest.mark.parametrize(("stream", "layer"), [("rgb", "backbone"), ("flow", "backbone"), ("rgb", "head")])
def test_clean_features_are_the_mean_of_unit_features_of_all_windows(
    store: VideoStore, executor: Executor, stream: str, layer: str
) -> None:
    made = network(stream).eval()
    found = compute(store, executor, stream, "clean", layer=layer)
    assert found.shape == (18, {"backbone": 32, "head": 8}[layer]) and found.dtype == np.float32
    affine = CLIP.stream(stream).bound(store.settings).affine(False).astype(np.float32)
    for row in (0, 7, 17):
        video = store.videos[row]
        windows = sliding_windows(store.info(video).shapes[stream][0], CLIP.length, CLIP.stride)
        assert len(windows) > 1
        units = []
        for window in windows:
            plan = plans_of(store, video, stream, "clean", 0)[len(units)]
            np.testing.assert_array_equal(plan.frames, window)
            assert plan.pixels.window == (0, 0, 1, 1) and not plan.pixels.flip
            pixels = executor.run(stream, [plan], CLIP.size).numpy()[0].astype(np.float64)
            channels = len(affine)
            clip = np.einsum("ij,jthw->ithw", affine[:, :channels], pixels) + affine[:, channels, None, None, None]
            with torch.no_grad():
                feature = made.embed(torch.from_numpy(clip[None]).float(), layer)[0].numpy()
            units.append(feature / np.linalg.norm(feature))
        np.testing.assert_allclose(found[row], np.mean(units, axis=0), atol=1e-5)


def test_coclr_protocol_is_one_random_clip_of_training_videos_and_all_windows_of_test_videos(store: VideoStore) -> None:
    plans = {v: plans_of(store, v, "rgb", "coclr", 3) for v in store.videos}
    for video, made in plans.items():
        windows = sliding_windows(store.info(video).length, CLIP.length, CLIP.stride)
        if store.info(video).split == "train":
            assert len(made) == 1
        else:
            np.testing.assert_array_equal([plan.frames for plan in made], windows)
            assert all(np.array_equal(plan.pixels.colour, made[0].pixels.colour) for plan in made)  # one draw per video
    starts = {int(plans[v][0].frames[0]) for v in plans if store.info(v).split == "train"}
    assert len(starts) > 3
    base = CLIP.stream("rgb").bound(store.settings).affine(False).astype(np.float32)
    jittered = [not np.array_equal(made[0].pixels.colour[0], base) for made in plans.values()]
    assert 0 < sum(jittered) < len(jittered)
    for video, made in plans.items():
        published = plans_of(store, video, "rgb", "published", 3)
        np.testing.assert_array_equal([plan.frames for plan in published], [plan.frames for plan in made])
        coloured = not np.array_equal(made[0].pixels.colour[0], base)
        assert all(bool(plan.pixels.published.steps) == coloured for plan in published)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_protocols_differ_in_the_clips_of_training_videos_and_in_jitter_alone(store: VideoStore, stream: str) -> None:
    """Flow in pixels is no picture and has none; videos that the coin spares look the same in both."""
    coloured = []
    for video in store.videos:
        clean, coclr = (plans_of(store, video, stream, p, 3) for p in ("clean", "coclr"))
        if store.info(video).split == "test":
            np.testing.assert_array_equal([plan.frames for plan in clean], [plan.frames for plan in coclr])
        one, other = clean[0].pixels, coclr[0].pixels
        assert (one.window, one.flip, one.blur) == (other.window, other.flip, other.blur)
        coloured.append(not np.array_equal(one.colour, other.colour))
    assert 0 < sum(coloured) < len(coloured) if stream == "rgb" else not any(coloured)


def test_the_seed_decides_the_coclr_protocol_and_not_the_clean_one(store: VideoStore, executor: Executor) -> None:
    first, again, other = (compute(store, executor, "rgb", "coclr", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(*(compute(store, executor, "rgb", "clean", seed) for seed in (0, 1)))


def test_a_videos_draw_does_not_depend_on_the_other_videos(store: VideoStore) -> None:
    video = store.videos[-1]
    one, two = (plans_of(store, video, "flow", "coclr", 0) for _ in range(2))
    np.testing.assert_array_equal(one[0].frames, two[0].frames)


def test_the_network_comes_back_in_the_mode_it_was_in(store: VideoStore, executor: Executor) -> None:
    made = network("rgb").train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    rows_of(store, store.videos[:2], executor, made, Seen("rgb", CLIP), "backbone", Look())
    assert made.training
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_store_without_the_stream_fails(unlabelled_store: VideoStore) -> None:
    with pytest.raises(Refusal, match="no view 'flow'"):
        plans_of(unlabelled_store, unlabelled_store.videos[0], "flow", "clean")


def get_bank(path: Path, wanted: Request, store: VideoStore, executor: Executor | None = None) -> FeatureBank:
    made = features.banks({path: wanted}, lambda asked: network(asked.stream), store, store.videos, executor)  # type: ignore[arg-type]
    return FeatureBank.load(made[wanted])


def test_bank_survives_a_file_and_is_used_again(
    store: VideoStore, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features" / "bank.h5"
    made = get_bank(path, request(store), store, executor)
    assert [p.name for p in path.parent.iterdir()] == ["bank.h5"]
    with h5py.File(path) as file:
        assert file["rgb"].dtype == np.float32 and file.attrs["checkpoint"] == "c0ffee"
        assert file["label"].dtype == np.int64 and file["video_id"].asstr()[0] == store.videos[0]
    monkeypatch.setattr(features, "compute", lambda *_, **__: pytest.fail("computed again"))
    again = get_bank(path, request(store), store, executor)
    np.testing.assert_array_equal(made.features, again.features)
    np.testing.assert_array_equal(made.labels, again.labels)
    assert (made.video_ids, made.splits, made.attributes) == (again.video_ids, again.splits, again.attributes)
    assert len(again.rows("train")) == 12 and len(again.rows("test")) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "other"},
        {"network": "untrained"},
        {"layer": "head"},
        {"look": OURS},
        {"seen": Seen("rgb", CLIP.changed(crop=0.875))},
        {"seen": Seen("rgb", CLIP.changed(size=(18, 18)))},
        {"seen": Seen("rgb", CLIP, Blocks(blocks=2))},
        {"seed": 1},
        {"contents": "other"},
        {"sides": "other"},
        {"store_settings": "other"},
        {"reader": "dali"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_request_computes_again_and_says_why(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: dict
) -> None:
    path, computed = tmp_path / "bank.h5", []

    def counted(networks: list[Network], seen: Seen, layer: str, *_: object, **__: object) -> list[list[np.ndarray]]:
        computed.append(1)
        return [[np.full((18, networks[0].size(layer)), len(computed), np.float32)]]

    monkeypatch.setattr(features, "compute", counted)
    get_bank(path, request(store), store)
    with caplog.at_level(logging.INFO):
        made = get_bank(path, request(store, **change), store)
    assert len(computed) == 2 and made.features[0, 0] == 2
    named = {"seen": r"clip\.|sampling\."}.get(next(iter(change)), next(iter(change)))
    assert len(caplog.records) == 1 and re.search(named, caplog.text)
    assert FeatureBank.load(path).attributes == request(store, **change).attributes()


def test_equal_requests_are_computed_once_and_clips_are_read_once(
    store: VideoStore, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read, run = [], [], executor.run
    monkeypatch.setattr(executor, "run", lambda view, plans, size: read.extend(plans) or run(view, plans, size))

    def asked_for(of: Request) -> Network:
        asked.append(of)
        return network("rgb", seed=len(asked))

    trained, fresh = request(store), request(store, network="untrained", checkpoint="fresh")
    wanted = {tmp_path / "a.h5": trained, tmp_path / "b.h5": fresh, tmp_path / "c.h5": fresh}
    made = features.banks(wanted, asked_for, store, store.videos, executor)
    windows = [plans_of(store, v, "rgb", "clean", 0) for v in store.videos]
    assert asked == [trained, fresh] and len(read) == sum(map(len, windows))
    alone = rows_of(store, store.videos, executor, network("rgb", seed=2), trained.seen, "backbone", Look())
    np.testing.assert_array_equal(FeatureBank.load(made[fresh]).features, alone)
    before = {path: path.read_bytes() for path in wanted}
    (tmp_path / "b.h5").unlink()
    read.clear()
    features.banks(wanted, asked_for, store, store.videos, executor)
    assert asked == [trained, fresh] and not read
    for path, of in wanted.items():
        assert FeatureBank.load(path).attributes == of.attributes()
        assert path.read_bytes() == before[path]


def test_a_damaged_bank_is_computed_again_but_never_read(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bank.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(Refusal, match="not a feature bank"):
        FeatureBank.load(path)
    monkeypatch.setattr(features, "compute", lambda *_, **__: [[np.ones((18, 32), np.float32)]])
    with caplog.at_level(logging.INFO):
        get_bank(path, request(store), store)
    assert "computed again" in caplog.text and FeatureBank.load(path).features.shape == (18, 32)


def test_videos_digest_follows_labels_and_members(store: VideoStore, unlabelled_store: VideoStore) -> None:
    whole = features.videos_digest(store, store.videos)
    assert whole == features.videos_digest(store, store.videos)
    assert whole != features.videos_digest(store, store.videos[:-1])
    assert features.label_indices(unlabelled_store, unlabelled_store.videos).tolist() == [-1, -1, -1]
    assert set(features.label_indices(store, store.videos)) == {0, 1, 2}


def test_refreshed_batchnorm_has_the_statistics_of_the_clips() -> None:
    made = network("rgb").eval()
    before = {name: value.clone() for name, value in made.named_parameters()}
    clips = [torch.randn(6, 3, 4, 16, 16, generator=torch.Generator().manual_seed(i)) * 3 + 1 for i in range(3)]
    features.refresh_batchnorm(made, iter(clips))
    stem, first = made.backbone.layers[0], made.backbone.layers[1]
    with torch.no_grad():
        maps = [stem(clip) for clip in clips]
    expected = torch.stack([m.mean((0, 2, 3, 4)) for m in maps]).mean(0)
    spread = torch.stack([m.transpose(0, 1).flatten(1).var(1) for m in maps]).mean(0)
    torch.testing.assert_close(first.running_mean, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.running_var, spread, atol=1e-3, rtol=1e-3)
    assert not made.training and first.momentum == 0.1
    assert all(torch.equal(value, before[name]) for name, value in made.named_parameters())


def test_batch_norm_of_heads_is_refreshed_too() -> None:
    made = Network("small", 3, {"width": 0.25}, head="slic", head_settings={"dim": 4, "hidden": 6}).eval()
    clips = torch.randn(6, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    features.refresh_batchnorm(made, [clips])
    with torch.no_grad():
        rows = made.head[0](made.train().embed(clips, "backbone"))
    torch.testing.assert_close(made.head[1].running_mean, rows.mean(0))
    torch.testing.assert_close(made.head[1].running_var, rows.var(0))


def test_training_clips_come_from_the_training_split_and_the_seed(store: VideoStore, executor: Executor) -> None:
    device = torch.device("cpu")
    first, again, other = (
        list(features.training_clips(store, store.videos, Seen("flow", CLIP), executor, device, seed))
        for seed in (0, 0, 1)
    )
    assert [tuple(batch.shape) for batch in first] == [(12, 2, 4, 16, 16)]
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])


def test_any_changed_byte_of_a_bank_is_found_and_it_is_computed_again(
    store: VideoStore, executor: Executor, tmp_path: Path
) -> None:
    path = tmp_path / "bank.h5"
    get_bank(path, request(store), store, executor)
    content = path.read_bytes()
    step = len(content) // 40
    for place in (*range(0, len(content), step), *range(len(content) - 80, len(content), 7)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(Refusal, match="(?s)not a feature bank.*evaluate again"):
            FeatureBank.load(path)
    get_bank(path, request(store), store, executor)
    assert path.read_bytes() == content


def test_a_bank_that_does_not_fit_on_the_disk_is_refused(store: VideoStore, executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "bank.h5"
    get_bank(path, request(store), store, executor)
    before = path.read_bytes()
    the_disk().fill(tmp_path, 0)
    try:
        with pytest.raises(Refusal, match="(?s)features cannot be written: No space left.*make room"):
            get_bank(path, request(store, seed=1), store, executor)
    finally:
        the_disk().folder = None
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["bank.h5"]


@pytest.mark.parametrize("width", [60, 120])
def test_the_bar_is_one_line_that_a_narrow_terminal_cuts_at_its_end(width: int) -> None:
    console = Console(file=(told := io.StringIO()), width=width)
    bar = features._progress(console)
    bar.add_task("features 3/4, vicc-flow", total=13320, completed=4000, clips=40_000)
    console.print(bar.get_renderable())
    [line] = told.getvalue().splitlines()
    assert re.match(r"features 3/4, vicc-flow ━+ +-:--:-- left  4000/13320", line)
    assert line.rstrip().endswith("clips/s") or width == 60
