"""Protocols as data: each look against plain loops, and what follows from them when a run is evaluated."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval import commands, evaluate, features, fusion, linear, results, retrieval
from eval.bank import FeatureBank
from eval.compare import compare
from eval.features import Seen
from eval.protocols import PROTOCOLS, Look, Protocol, Windows
from eval.results import Record
from eval.runs import bank_path
from pipeline.errors import Refusal, UsageError
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, annotation, open_store
from pipeline.store.annotation import AnnotationSet
from train import reader
from train.augment import ClipPlan, pixel_window
from train.clips import sliding_windows
from train.clips.spec import ClipSpec
from train.networks.network import Network
from train.reader import Executor
from train.sampling.blocks import Blocks

CLIP = ClipSpec(length=4, stride=2, size=(16, 16), crop=0.75)


@pytest.fixture
def executor(store: VideoStore) -> Iterator[Executor]:
    made = reader.create("opencv", store, threads=1)
    yield made
    made.close()


def network(stream: str) -> Network:
    torch.manual_seed(0)
    return Network(
        "small", {"rgb": 3, "flow": 2}[stream], {"width": 0.25}, head="slic", head_settings={"dim": 8}
    ).eval()


def plans(store: VideoStore, look: Look, row: int = 0, stream: str = "rgb", clips: ClipSpec = CLIP) -> list[ClipPlan]:
    return Seen(stream, clips).plans(store, store.videos[row], look, 0)


def test_a_protocol_is_found_by_its_own_name_and_says_what_it_does() -> None:
    assert list(PROTOCOLS) == ["clean", "coclr", "vicc", "goca", "slic", "cocon"]
    assert all(name == protocol.name and protocol.words.endswith((".", ")")) for name, protocol in PROTOCOLS.items())
    assert PROTOCOLS["clean"] == Protocol("clean", PROTOCOLS["clean"].words)
    assert PROTOCOLS["vicc"].features == PROTOCOLS["coclr"].features  # whose banks it takes
    assert PROTOCOLS["cocon"].weights_of(["rgb", "segmentation", "flow"]) == [2, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_uniform_and_centre_windows(store: VideoStore, count: int) -> None:
    frames, span = store.info(store.videos[0]).length, CLIP.length * CLIP.stride
    look = Look(Windows("uniform", count), Windows("uniform", count), crops=1)
    centre = (frames - span) // 2
    expected = [centre] if count == 1 else [int(i * (frames - span) / (count - 1)) for i in range(count)]
    for found, start in zip(plans(store, look), expected, strict=True):
        assert found.frames.tolist() == [start + CLIP.stride * i for i in range(CLIP.length)]
    [middle] = plans(store, Look(Windows("centre"), Windows("centre")))
    assert middle.frames[0] == centre


def test_a_video_that_is_shorter_than_a_clip_gives_what_its_sampling_makes_of_it(store: VideoStore) -> None:
    long = CLIP.changed(length=40, stride=1)
    for kind in ("uniform", "centre"):
        [found] = plans(store, Look(Windows(kind, 3), Windows(kind, 3)), clips=long)
        np.testing.assert_array_equal(found.frames, sliding_windows(21, 40, 1)[0])
    video = store.videos[0]
    [spread] = Seen("rgb", long, Blocks()).plans(store, video, PROTOCOLS["goca"].features, 0)[:1]
    np.testing.assert_array_equal(spread.frames, Blocks().windows(long, 21)[0])


def test_random_windows_differ_and_follow_from_the_seed(store: VideoStore) -> None:
    look = Look(Windows("random", 4), Windows("random", 4))
    starts = [plan.frames[0] for plan in plans(store, look)]
    assert len(starts) == 4 and len(set(starts)) > 1
    assert starts == [plan.frames[0] for plan in plans(store, look)]
    assert starts[0] == plans(store, Look(Windows("random"), Windows("random")))[0].frames[0]


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32)])
def test_crops_lie_where_the_papers_have_them(height: int, width: int) -> None:
    from train.augment.windows import crops

    side = 24
    down, across = height - side, width - side
    corners = [(0, 0), (0, across), (down, 0), (down, across)]
    five = [(down // 2, across // 2), *corners]
    for count, places in (
        (1, five[:1]),
        (3, [(0, across // 2), five[0], (down, across // 2)] if height > width
            else [(down // 2, 0), five[0], (down // 2, across)]),
        (10, five + five),
    ):  # fmt: skip
        found = crops((height, width), 0.75, count)
        assert [pixel_window(window, height, width) for window, _ in found] == [(*p, side, side) for p in places]
        assert [mirrored for _, mirrored in found] == [count == 10 and i >= 5 for i in range(count)]
    with pytest.raises(ValueError, match="not 5"):
        crops((height, width), 0.75, 5)


def test_mirrored_crops_turn_flow_and_leave_a_stream_that_has_no_mirror(store: VideoStore) -> None:
    look = Look(Windows("centre"), Windows("centre"), crops=10)
    turned = plans(store, look, stream="flow")
    assert [plan.pixels.flip for plan in turned] == [False] * 5 + [True] * 5
    affine = CLIP.stream("flow").bound(store.settings).affine(True)
    np.testing.assert_array_equal(turned[7].pixels.colour[0], affine.astype(np.float32))
    never = ClipSpec(**dict(CLIP) | {"streams": {"flow": {"mirror": "never"}}})
    assert not any(plan.pixels.flip for plan in plans(store, look, stream="flow", clips=never))


def test_frames_are_scaled_before_they_are_cut(store: VideoStore) -> None:
    """Frames of 32x48 shown as 128x171: three quarters of the width, all of the height."""
    [plan] = plans(store, Look(Windows("centre"), Windows("centre"), crop=1.0, scaled=(128, 171)))
    assert plan.pixels.window == pytest.approx((0, (1 - 128 / 171) / 2, 1, 128 / 171))


def test_several_crops_of_the_whole_frame_fail(store: VideoStore) -> None:
    with pytest.raises(UsageError, match="(?s)10 crops.*whole frame.*clips.crop"):
        plans(store, Look(crops=10), clips=CLIP.changed(crop="whole"))


def test_frames_stride_and_size_are_the_looks_where_it_says_so(store: VideoStore) -> None:
    [plan] = plans(store, Look(Windows("centre"), Windows("centre"), frames=3, stride=5, size=(8, 12)))
    assert plan.frames.tolist() == [3, 8, 13] and plan.stream.size == (8, 12)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("layer", ["backbone", "head"])
def test_features_are_the_mean_over_windows_and_crops(
    store: VideoStore, executor: Executor, layer: str, unit: bool
) -> None:
    look = Look(Windows("uniform", 3), Windows("uniform", 3), crops=10, unit=unit)
    made = network("flow")
    arguments = [made], Seen("flow", CLIP), layer, store, store.videos[:2], look, executor
    found = np.concatenate([block for (block,) in features.compute(*arguments, seed=0, title="test")])
    for row in range(2):
        rows = []
        for plan in plans(store, look, row, "flow"):
            stored = executor.run("flow", [plan], CLIP.size).numpy()[0].astype(np.float64)
            affine = plan.pixels.colour[0]
            clip = np.einsum("ij,jthw->ithw", affine[:, :2], stored) + affine[:, 2, None, None, None]
            with torch.no_grad():
                rows.append(made.embed(torch.from_numpy(clip[None]).float(), layer)[0].numpy())
        assert len(rows) == 30
        if unit:
            rows = [each / np.linalg.norm(each) for each in rows]
        np.testing.assert_allclose(found[row], np.mean(rows, axis=0), atol=1e-5)


def test_features_depend_neither_on_the_batch_nor_on_the_order_of_the_videos(
    store: VideoStore, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = PROTOCOLS["coclr"].features

    def computed(videos: list[str]) -> dict[str, np.ndarray]:
        arguments = [network("rgb")], Seen("rgb", CLIP), "backbone", store, videos, look, executor
        rows = [row for (block,) in features.compute(*arguments, seed=0, title="test") for row in block]
        return dict(zip(videos, rows, strict=True))

    videos = store.videos[:8]
    first, turned = computed(videos), computed(videos[::-1])
    monkeypatch.setattr("eval.features.BATCH", 5)
    small = computed(videos)
    for video in videos:
        np.testing.assert_allclose(turned[video], first[video], atol=1e-6)
        np.testing.assert_allclose(small[video], first[video], atol=1e-6)


def test_a_layer_that_the_network_lacks_is_refused_by_name(run: Path, store: VideoStore) -> None:
    with pytest.raises(UsageError, match="(?s)no layer 'context'; it has backbone, head.*protocol cocon.*another"):
        evaluate.evaluate(run, store, ["cocon"], "opencv", 1)


def test_runs_are_evaluated_by_their_papers_protocol_and_the_clean_one() -> None:
    assert [p.name for p in evaluate.of_methods(["infonce", "coclr"])] == ["clean", "coclr"]
    assert [p.name for p in evaluate.of_methods(["slic"])] == ["clean", "slic"]
    assert [p.name for p in evaluate.of_methods(["a method of ones own"])] == ["clean"]


def bank(seed: int, width: int = 6) -> FeatureBank:
    rng = np.random.default_rng(seed)
    labels, splits = np.arange(24) % 3, ["train"] * 18 + ["test"] * 6
    return FeatureBank(
        "rgb", rng.normal(size=(24, width)) + 1, [f"v{i}" for i in range(24)], labels, splits, {"seed": 0}
    )


def test_streams_are_put_together_as_the_protocol_says(tmp_path: Path) -> None:
    banks = [bank(0), bank(1), bank(2)]
    names, weights = ["rgb", "flow", "toy"], [2.0, 2.0, 1.0]
    kept = tmp_path / "linear.h5"
    parts = [evaluate.measure(one, True, kept) for one in banks]
    protocol = dataclasses.replace(PROTOCOLS["cocon"], fusion="similarities")
    tested, gallery = banks[0].rows("test"), banks[0].rows("train")
    alone = [retrieval.similarity(one.features[tested], one.features[gallery]) for one in banks]
    summed = evaluate.fuse(protocol, names, banks, parts, kept)
    assert summed.ranks is not None
    matrix = fusion.fuse_similarities(*alone, weights=weights)
    assert retrieval.shares(summed.ranks) == retrieval.recall(matrix, summed.wanted, summed.have)
    probabilities = fusion.fuse_probabilities(*(part.probabilities for part in parts), weights=weights)
    np.testing.assert_array_equal(summed.probabilities, probabilities)

    classes_alone = evaluate.fuse(PROTOCOLS["cocon"], names, banks, parts, kept)
    assert classes_alone.ranks is None
    np.testing.assert_array_equal(classes_alone.probabilities, probabilities)

    mean = dataclasses.replace(banks[0], features=sum(one.features for one in banks) / 3)
    expected = evaluate.measure(mean, False, kept)
    found = evaluate.fuse(PROTOCOLS["goca"], names, banks, parts, tmp_path / "fused.h5")
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    with pytest.raises(Refusal, match="same rows and columns"):
        evaluate.fuse(PROTOCOLS["goca"], names[:2], [bank(0), bank(1, width=7)], parts[:2], kept)


def test_a_probe_is_fitted_again_only_if_something_that_it_follows_from_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kept, fitted, probe = bank(0), tmp_path / "run" / "linear.h5", [0], linear.probe

    def counted(*given: Any, **more: Any) -> linear.LinearResult:
        fitted[0] += 1
        return probe(*given, **more)

    def probabilities(of: FeatureBank) -> Any:
        return evaluate.measure(of, True, kept).probabilities

    monkeypatch.setattr(linear, "probe", counted)
    once = probabilities(first)
    tested, gallery = first.rows("test"), first.rows("train")
    given = (first.features[gallery], first.labels[gallery], first.features[tested], first.labels[tested])
    np.testing.assert_array_equal(once, probe(*given).probabilities.astype(np.float32))
    np.testing.assert_array_equal(probabilities(first), once)
    assert fitted == [1]
    moved = first.features.copy()
    moved[-1] += 1  # of a test video
    for number, changed in enumerate((
        {"features": moved}, {"labels": first.labels[::-1].copy()}, {"attributes": {"seed": 1}},
        {"video_ids": first.video_ids[::-1]}, {},
    ), 2):  # fmt: skip
        probabilities(dataclasses.replace(first, **changed))
        assert fitted == [number], changed
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(probabilities(first), once)
    monkeypatch.setitem(linear.MADE_BY, "scikit-learn", "another")
    np.testing.assert_array_equal(probabilities(first), once)
    assert fitted == [8]


def with_sets(store: VideoStore, folder: Path, name: str) -> Path:
    """A copy of the store with the annotation sets one and two, which have other training videos."""
    root = folder / name
    shutil.copytree(store.root, root)
    for number, given in enumerate(("one", "two")):
        rows = []
        for i, video in enumerate(store.videos):
            split = "test" if (i + number) % 3 == 0 else "train"
            rows.append(Video(video, f"{video}.mp4", label=store.info(video).label, split=split))
        annotation.save(root, given, AnnotationSet.of_manifest(Manifest(rows, list(store.classes))))
    return root


def test_splits_share_what_does_not_depend_on_them_and_have_a_mean(
    run: Path, store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = with_sets(store, tmp_path, "tiny101")
    shutil.rmtree(run / "flow")  # one stage is enough here
    commands.evaluate(run, str(root), protocols=["clean"], threads=1, annotations=["one", "two"])
    shown = capsys.readouterr()
    assert "mean of one, two" in shown.out
    # Of its training videos, which another set has, each of these tests some.
    assert " ".join(shown.err.split()).count("stage rgb was trained on 4 of the 6 test videos") == 2
    found = results.read(run / "results.json")
    assert {r.set_name for r in found} == {"one", "two", "mean of one, two"}
    by_set = {(r.set_name, r.network, r.metric): r.value for r in found}
    for (name, kind, metric), value in by_set.items():
        if name.startswith("mean"):
            assert value == pytest.approx((by_set["one", kind, metric] + by_set["two", kind, metric]) / 2)
    line = next(line for line in compare([run]).lines if line.network == "trained")
    assert line.values["R@1"] == (by_set["mean of one, two", "trained", "R@1"],)
    assert compare([run], annotations="two").lines[0].values["R@1"] in [
        (by_set["two", kind, "R@1"],) for kind in ("trained", "untrained")
    ]

    sets = {name: open_store(root, name) for name in ("one", "two")}
    paths = {name: bank_path(run, opened, "rgb", "trained", "clean", "rgb") for name, opened in sets.items()}
    banks = {name: FeatureBank.load(path) for name, path in paths.items()}
    assert banks["one"].splits != banks["two"].splits
    np.testing.assert_array_equal(banks["one"].features, banks["two"].features)
    # The trained network's rows of one set serve the other, which labels them anew.
    shutil.copy(paths["one"], paths["two"])
    monkeypatch.setattr(features, "compute", lambda *_, **__: pytest.fail("computed again"))
    evaluate.evaluate(run, sets["two"], ["clean"], "opencv", 1)
    assert FeatureBank.load(paths["two"]).attributes == banks["two"].attributes
    assert FeatureBank.load(paths["two"]).splits == banks["two"].splits
    # An untrained network's batch norm has seen the training videos of its own set.
    untrained = {name: path.with_name("untrained-clean-rgb.h5") for name, path in paths.items()}
    shutil.copy(untrained["one"], untrained["two"])
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        evaluate.evaluate(run, sets["two"], ["clean"], "opencv", 1)


def test_training_videos_that_are_looked_at_otherwise_are_computed_anew_for_another_split(
    store: VideoStore, tmp_path: Path
) -> None:
    root = with_sets(store, tmp_path, "tiny")
    opened = [open_store(root, name) for name in ("one", "two")]
    for look, network_kind, differ in (
        (Look(), "trained", False),
        (PROTOCOLS["coclr"].features, "trained", True),
        (Look(), "untrained", True),
    ):
        one, two = (features.sides_digest(each, each.videos, look, network_kind) for each in opened)
        assert (one != two) == differ and bool(one) == differ
    assert features.contents_digest(opened[0], opened[0].videos) == features.contents_digest(
        opened[1], opened[1].videos
    )
    assert features.videos_digest(opened[0], opened[0].videos) != features.videos_digest(opened[1], opened[1].videos)


def test_results_on_another_store_stay_beside_those_of_the_first(
    evaluated: Path, store: VideoStore, tmp_path: Path
) -> None:
    """Trained on one set, tested on another."""
    before = results.read(evaluated / "results.json")
    other = tmp_path / "other"
    shutil.copytree(store.root, other)
    evaluate.evaluate(evaluated, open_store(other), ["clean"], "opencv", 1)
    found = results.read(evaluated / "results.json")
    assert [r for r in found if r.data == store.root.name] == before
    assert {r.data for r in found} == {store.root.name, "other"}
    with pytest.raises(UsageError, match="(?s)2 stores and annotation sets.*other by extraction"):
        compare([evaluated])
    assert compare([evaluated], data="other").data == "other"
    evaluate.evaluate(evaluated, store, ["clean", "coclr"], "opencv", 1)
    assert results.read(evaluated / "results.json") == found
    stale = [dataclasses.replace(r, checkpoint="another") for r in found if r.data == "other"]
    results.write(evaluated / "results.json", [*before, *stale])
    evaluate.evaluate(evaluated, store, ["clean", "coclr"], "opencv", 1)
    assert results.read(evaluated / "results.json") == before  # those of another checkpoint are gone


def test_a_mean_needs_every_set_and_is_of_one_measurement() -> None:
    made = Record(
        metric="R@1", value=0.2, protocol="clean", stream="rgb", network="trained", stage="s", split="test",
        data="tiny", checkpoint="c", annotations="one 11", chance=0.1,
    )  # fmt: skip
    other = dataclasses.replace(made, value=0.4, annotations="two 22", chance=0.2)
    alone = dataclasses.replace(made, metric="R@5")
    [mean] = results.means([made, alone, other], ["one", "two"])
    assert mean.value == pytest.approx(0.3) and mean.chance == pytest.approx(0.15)
    assert mean.set_name == "mean of one, two"
    assert results.means([made], ["one", "two"]) == []


@pytest.mark.parametrize("crops", [1, 3, 10])
def test_all_crops_of_a_window_are_read_at_once(
    store: VideoStore, executor: Executor, crops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its frames are decoded once, whatever the batch."""
    read: list[list[ClipPlan]] = []
    run = executor.run
    monkeypatch.setattr(executor, "run", lambda view, made, size: (read.append(made), run(view, made, size))[1])
    monkeypatch.setattr("eval.features.BATCH", 7)
    look = Look(crops=crops)
    arguments = [network("rgb")], Seen("rgb", CLIP), "backbone", store, store.videos[:3], look, executor
    list(features.compute(*arguments, seed=0, title="test"))
    windows = [(plan.video_id, plan.frames.tobytes()) for made in read for plan in made[::crops]]
    assert len(windows) == len(set(windows)) == sum(map(len, read)) // crops and len(read) > 1
