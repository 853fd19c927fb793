"""Executors against a plain loop over decoded frames, and against each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import zarr
from nvidia.dali import Pipeline

from pipeline.errors import Refusal, UsageError
from pipeline.flow.quantisation import Mapping
from pipeline.store import VideoStore, open_store, shard
from pipeline.views.codec import Chroma
from tests.train.drawing import pixels
from tests.train.oracle import MOST, SIZE, assert_close, clip_plan, plain
from tests.train.stores import write_store
from train import reader
from train.augment import ClipPlan, pixel_window
from train.clips import random_clip
from train.reader.dali import DaliExecutor
from train.reader.jpeg import WindowDecoder
from train.reader.opencv import OpenCVExecutor
from train.reader.shard import ShardReader

VIDEOS = {
    "wide/a": (40, 60, 80),
    "wide/b": (30, 72, 96),
    "tall": (25, 90, 64),
    "long": (300, 30, 42),
    "short": (6, 60, 80),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("reader") / "store", VIDEOS)


@pytest.fixture(scope="module")
def plans(store: VideoStore) -> list[ClipPlan]:
    rng, made = np.random.default_rng(0), []
    for video_id in [*store.videos, *store.videos]:
        info = store.info(video_id)
        frames = random_clip(info.length - 1, 8, 3, rng)
        drawn = pixels("small", rng, (info.height, info.width), flip=0.5)["rgb"]
        made.append(clip_plan(video_id, frames, drawn.window, drawn.flip))
    assert {made.pixels.flip for made in made} == {True, False}
    return made


@pytest.fixture
def executor(request: pytest.FixtureRequest, store: VideoStore, on_cpu: None) -> Iterator[reader.Executor]:
    made = reader.create(request.param, store, threads=2)
    yield made
    made.close()


both = pytest.mark.parametrize("executor", ["opencv", "dali"], indirect=True)
views = pytest.mark.parametrize("view", ["rgb", "flow"])


@views
@pytest.mark.parametrize("executor", ["opencv"], indirect=True)
def test_opencv_equals_a_plain_loop(executor: reader.Executor, store: VideoStore, plans: list, view: str) -> None:
    clips = executor.run(view, plans, SIZE)
    assert clips.dtype == torch.uint8 and clips.shape == (len(plans), 3 if view == "rgb" else 2, 8, *SIZE)
    np.testing.assert_array_equal(clips.numpy(), plain(store, view, plans))


@views
@pytest.mark.parametrize("executor", ["dali"], indirect=True)
def test_dali_agrees_with_a_plain_loop(executor: reader.Executor, store: VideoStore, plans: list, view: str) -> None:
    """Frames of five sizes in one batch."""
    clips = executor.run(view, plans, SIZE)
    assert clips.dtype == torch.uint8 and clips.shape == (len(plans), 3 if view == "rgb" else 2, 8, *SIZE)
    assert_close(clips, plain(store, view, plans))


@views
@pytest.mark.parametrize("size", [(24, 20), (96, 128)], ids=["shrunk", "enlarged"])
def test_executors_agree_at_other_sizes(
    store: VideoStore, plans: list, view: str, size: tuple[int, int], on_cpu: None
) -> None:
    for made in (DaliExecutor(store, 1), OpenCVExecutor(store, 1)):
        assert_close(made.run(view, plans, size), plain(store, view, plans, size))
        made.close()


@pytest.mark.parametrize(("view", "chroma"), [("rgb", "4:2:0"), ("rgb", "4:4:4"), ("flow", "4:2:0")])
@pytest.mark.parametrize("kind", [OpenCVExecutor, DaliExecutor])
def test_whole_frames_equal_what_zarr_reads_bit_for_bit(
    tmp_path: Path, view: str, chroma: Chroma, kind: type, on_cpu: None
) -> None:
    """Nothing but the shard reader and the decoder: a window of the whole frame, resized to its own size."""
    store = write_store(tmp_path, {"wide/b": VIDEOS["wide/b"]}, chroma=chroma)
    array = zarr.open_array(store.path("wide/b", view), mode="r")
    height, width = array.shape[1:3] if view == "rgb" else array.shape[2:]
    executor = kind(store, 1)
    (clip,) = executor.run(view, [clip_plan("wide/b", np.arange(20))], (height, width))
    frames = clip.permute(1, 2, 3, 0) if view == "rgb" else clip.transpose(0, 1)
    np.testing.assert_array_equal(frames.numpy(), array[:20])
    executor.close()


@pytest.mark.parametrize(("mapping", "codec"), [("linear", "zstd"), ("sqrt", "jpeg"), ("sqrt", "zstd")])
@pytest.mark.parametrize("kind", [OpenCVExecutor, DaliExecutor])
def test_other_ways_to_store_flow_are_resized_in_even_steps(
    tmp_path: Path, mapping: Mapping, codec: str, kind: type, on_cpu: None
) -> None:
    """Against flow in pixels from the store, cut and resized in floats."""
    store = write_store(tmp_path, {"wide/b": VIDEOS["wide/b"]}, mapping=mapping, codec=codec)
    window, number = (0.1, 0.2, 0.7, 0.6), 5
    pixels = store.flow("wide/b", [number])[0]
    top, left, height, width = pixel_window(window, *pixels.shape[1:])
    cut = pixels[:, top : top + height, left : left + width]
    expected = np.stack([cv2.resize(plane, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for plane in cut])
    executor = kind(store, 1)
    for flip in (False, True):
        (clip,) = executor.run("flow", [clip_plan("wide/b", [number], window, flip)], SIZE)
        assert clip.dtype == (torch.uint8 if mapping == "linear" else torch.float32)
        found = clip[:, 0].numpy() * np.float32(40 / 255) - 20
        if flip:
            found = found[:, :, ::-1]
        tolerance = 0.16 if mapping == "linear" else 1e-3  # a byte, or rounding
        np.testing.assert_allclose(found, expected, atol=tolerance)
    executor.close()


@views
@both
def test_batches_may_grow_shrink_and_be_kept(executor: reader.Executor, plans: list, view: str) -> None:
    whole = executor.run(view, plans, SIZE).clone()
    parts = [
        executor.run(view, plans[:1], SIZE),
        executor.run(view, plans[1:4], SIZE),
        executor.run(view, plans[4:], SIZE),
    ]
    bigger = executor.run(view, [*plans, *plans], SIZE)
    assert torch.equal(torch.cat(parts), whole), "a kept batch was overwritten, or depends on its neighbours"
    assert torch.equal(bigger, torch.cat([whole, whole]))


@views
@pytest.mark.parametrize("kind", [OpenCVExecutor, DaliExecutor])
def test_threads_do_not_change_a_pixel(store: VideoStore, plans: list, view: str, kind: type, on_cpu: None) -> None:
    one, two = kind(store, 1), kind(store, 2)
    assert torch.equal(one.run(view, plans, SIZE), two.run(view, plans, SIZE))
    one.close(), two.close()


@both
def test_a_flip_mirrors_each_plane(executor: reader.Executor, store: VideoStore) -> None:
    straight, mirrored = (clip_plan("wide/a", range(8), flip=flip) for flip in (False, True))
    rgb = executor.run("rgb", [straight, mirrored], SIZE).int()
    flow = executor.run("flow", [straight, mirrored], SIZE).int()
    assert (rgb[1] - rgb[0].flip(-1)).abs().max() <= MOST
    assert (flow[1] - flow[0].flip(-1)).abs().max() <= MOST


@views
@both
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_blur_is_that_of_the_clip_alone(
    executor: reader.Executor, store: VideoStore, view: str, sigma: float
) -> None:
    sharp, blurred = clip_plan("wide/b", range(8)), clip_plan("wide/b", range(8), flip=True, blur=sigma)
    clips = executor.run(view, [sharp, blurred], SIZE)
    assert torch.equal(clips[:1], executor.run(view, [sharp], SIZE))
    assert_close(clips, plain(store, view, [sharp, blurred]))
    assert not torch.equal(clips[1], clips[0].flip(-1))


@views
@both
def test_a_short_video_repeats_its_first_frame(executor: reader.Executor, store: VideoStore, view: str) -> None:
    made = clip_plan("short", random_clip(5, 8, 1, np.random.default_rng(0)))
    assert made.frames.tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    clips = executor.run(view, [made], SIZE)
    assert torch.equal(clips[:, :, 0], clips[:, :, 3]) and not torch.equal(clips[:, :, 3], clips[:, :, 4])
    assert_close(clips, plain(store, view, [made]))


@both
def test_frames_may_come_in_any_order(executor: reader.Executor, store: VideoStore) -> None:
    made = clip_plan("long", np.array([299, 0, 255, 256, 257, 0]))
    assert_close(executor.run("rgb", [made], SIZE), plain(store, "rgb", [made]))


@views
@both
@pytest.mark.parametrize("piece", [3, 32])
def test_a_frame_is_decoded_once_for_all_clips_that_show_it(
    executor: reader.Executor, store: VideoStore, view: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips of two lengths and sizes, that overlap at even and odd distances, twice the same, and with a repeated
    frame: bit for bit those that are read alone."""
    monkeypatch.setattr("train.reader.opencv.PIECE", piece)
    long = [
        clip_plan("wide/a", np.arange(2, 18, 2), (0.1, 0.2, 0.7, 0.6)),
        clip_plan("wide/b", np.arange(5, 13), flip=True),
        clip_plan("wide/a", np.arange(2, 18, 2), flip=True, blur=0.7),
        clip_plan("wide/a", np.arange(5, 21, 2)),
        clip_plan("short", [0, 0, 0, 0, 1, 2, 3, 4], flip=True),
    ]
    small = [clip_plan("wide/a", np.arange(8, 12)), clip_plan("short", [0, 0, 1, 3], (0.0, 0.5, 0.5, 0.5), blur=1.0)]
    groups = [(long, SIZE), (small, (24, 20)), (long[:2], (24, 20))]
    alone = [torch.cat([executor.run(view, [plan], size) for plan in plans]) for plans, size in groups]
    distinct = {(plan.video_id, int(frame)) for plans, _ in groups for plan in plans for frame in plan.frames}
    decoded = 0
    run, decode = Pipeline.run, WindowDecoder.__call__

    def by_dali(pipeline: Pipeline, **inputs: Any) -> Any:
        nonlocal decoded
        decoded += len(inputs.get("streams", ()))
        return run(pipeline, **inputs)

    def on_cpu(decoder: WindowDecoder, streams: Sequence[np.ndarray]) -> list[np.ndarray]:
        nonlocal decoded
        decoded += len(streams)
        return decode(decoder, streams)

    monkeypatch.setattr(Pipeline, "run", by_dali)
    monkeypatch.setattr(WindowDecoder, "__call__", on_cpu)
    for found, expected in zip(executor.read(view, groups), alone, strict=True):
        assert torch.equal(found, expected)
    assert decoded == len(distinct) < sum(len(plan.frames) for plans, _ in groups for plan in plans)


@both
def test_several_threads_may_share_an_executor(executor: reader.Executor, plans: list) -> None:
    expected = {view: executor.run(view, plans, SIZE).clone() for view in ("rgb", "flow")}
    wrong: list[str] = []

    def work(view: str) -> None:
        if not all(torch.equal(executor.run(view, plans, SIZE), expected[view]) for _ in range(3)):
            wrong.append(view)

    threads = [threading.Thread(target=work, args=(view,)) for view in ("rgb", "flow", "rgb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def damage(store: VideoStore, video_id: str, view: str, change: dict[int, bytes]) -> None:
    path = shard.path(store.path(video_id, view), 0, 4)
    data = bytearray(path.read_bytes())
    for place, replacement in change.items():
        data[place : place + len(replacement)] = replacement
    path.write_bytes(data)


@views
@pytest.mark.parametrize("name", ["opencv", "dali"])
def test_a_flipped_bit_fails_by_name(name: str, view: str, tmp_path: Path, on_cpu: None) -> None:
    store = write_store(tmp_path / "store", {"good": (9, 30, 40), "bad one": (9, 30, 40)})
    path = shard.path(store.path("bad one", view), 0, 4)
    damage(store, "bad one", view, {400: bytes([path.read_bytes()[400] ^ 4])})
    executor = reader.create(name, store, threads=1)
    whole = [clip_plan(v, range(8)) for v in store.videos]
    with pytest.raises(Refusal, match=r"'bad one' is damaged.*checksum"):
        executor.run(view, whole, SIZE)
    assert executor.run(view, [made for made in whole if made.video_id == "good"], SIZE).shape[0] == 1
    executor.close()


@pytest.mark.parametrize("name", ["opencv", "dali"])
def test_frames_that_do_not_decode_fail_by_name(name: str, tmp_path: Path, on_cpu: None) -> None:
    """Bytes that are what was written and no JPEG of the recorded size all the same."""
    store = write_store(tmp_path / "store", {"good": (4, 30, 40), "bad one": (4, 30, 40)})
    path = shard.path(store.path("bad one", "rgb"), 0, 4)
    streams = store.encoded("bad one", "rgb", range(4))
    path.write_bytes(shard.pack([*streams[:3], streams[3][:60]], 4, shard.mark("bad one", "rgb", 0)))
    whole = [clip_plan(v, range(4)) for v in store.videos]
    executor = reader.create(name, store, threads=1)
    with pytest.raises(Refusal, match=r"'bad one' is damaged.*should hold a frame of shape \(30, 40, 3\)"):
        executor.run("rgb", whole, SIZE)
    good = [made for made in whole if made.video_id == "good"]
    np.testing.assert_allclose(executor.run("rgb", good, SIZE).int().numpy(), plain(store, "rgb", good), atol=MOST)
    executor.close()


@pytest.mark.parametrize("name", ["opencv", "dali"])
def test_frames_of_another_size_fail_by_name(name: str, tmp_path: Path, on_cpu: None) -> None:
    store = write_store(tmp_path / "store", {"good": (4, 60, 80), "bad one": (4, 30, 40)})
    path = shard.path(store.path("bad one", "rgb"), 0, 4)
    path.write_bytes(shard.pack(store.encoded("good", "rgb", range(4)), 4, shard.mark("bad one", "rgb", 0)))
    whole = [clip_plan(v, range(4)) for v in store.videos]
    executor = reader.create(name, store, threads=1)
    with pytest.raises(Refusal, match=r"'bad one' is damaged.*should hold a frame of shape \(30, 40, 3\)"):
        executor.run("rgb", whole, SIZE)
    executor.close()


@both
def test_missing_frames_views_videos_and_uneven_clips_fail(executor: reader.Executor) -> None:
    made = clip_plan("tall", np.array([23, 24]))
    with pytest.raises(IndexError, match="frame 24 of view 'flow' of 'tall'"):
        executor.run("flow", [made], SIZE)
    with pytest.raises(Refusal, match="'tall' has no view 'pose'"):
        executor.run("pose", [made], SIZE)
    with pytest.raises(Refusal, match="'tal' is not in the store"):
        executor.run("rgb", [clip_plan("tal", made.frames)], SIZE)
    with pytest.raises(ValueError, match=r"one length, not \[2, 3\] frames"):
        executor.run("rgb", [made, clip_plan("tall", range(3))], SIZE)


def test_shards_are_kept_open_up_to_a_number(store: VideoStore) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    shards = ShardReader(store, capacity=2)
    for _ in range(2):
        for video_id in store.videos:
            for view in ("rgb", "flow"):
                numbers = list(range(5)) if video_id == "short" else [3, 1, 22, 3]
                found = shards.encoded(video_id, view, numbers)
                assert list(found) == sorted(set(numbers))
                for number, stream in zip(numbers, store.encoded(video_id, view, numbers), strict=True):
                    np.testing.assert_array_equal(found[number], stream)
    assert open_files() == before + 2
    shards.close()
    assert open_files() == before


def test_a_shard_of_another_store_is_not_taken_for_an_open_one(tmp_path: Path) -> None:
    first, second = (
        write_store(tmp_path / "1", {"a": (3, 30, 40)}, 1),
        write_store(tmp_path / "2", {"a": (3, 30, 40)}, 2),
    )
    streams = [ShardReader(open_store(store.root)).encoded("a", "rgb", [0])[0] for store in (first, second)]
    assert not np.array_equal(*streams)


def test_auto_is_opencv_without_cuda(store: VideoStore, on_cpu: None) -> None:
    made = reader.create("auto", store, threads=1)
    assert isinstance(made, OpenCVExecutor)
    made.close()


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("opencvv", 1), {}, ['"opencvv"', '"opencv"']),
        (("opencv", 0), {}, ["threads", "at least 1"]),
        (("opencv", 1), {"decoder_load": 0.5}, ['unknown setting "decoder_load"', '"opencv"']),
        (("dali", 1), {"decoder_load": 1.5}, ["decoder_load", "at most 1"]),
        (("dali", 1), {"preallocate": 256}, ["256 is no height and width", "[256, 341]"]),
        (("dali", 1), {"preallocate": [256, -1]}, ["preallocate", "at least 0"]),
    ],
)
def test_unusable_arguments_fail(store: VideoStore, arguments: tuple, settings: dict, words: list[str]) -> None:
    name, threads = arguments
    with pytest.raises(UsageError) as caught:
        reader.create(name, store, threads, **settings)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("REQUIRE_GPU") != "1", reason="needs an NVIDIA GPU"
)
@views
def test_dali_on_a_gpu_agrees_with_a_plain_loop(store: VideoStore, plans: list, view: str) -> None:
    """nvJPEG's inverse transform and colour conversion round differently from libjpeg-turbo's."""
    executor = reader.create("dali", store, threads=2)
    kept = [executor.run(view, plans, SIZE) for _ in range(3)]
    assert kept[0].is_cuda
    small = (24, 20)
    long, short = executor.read(
        view, [(plans, SIZE), ([plans[0], plans[0]], small)]
    )  # frames are decoded once for both
    assert torch.equal(long, kept[0]) and torch.equal(
        short, executor.run(view, [plans[0]], small).expand(2, -1, -1, -1, -1)
    )
    distance = np.abs(kept[0].cpu().numpy().astype(int) - plain(store, view, plans))
    assert distance.max() <= 8 and distance.mean() <= 1.0, f"most {distance.max()}, mean {distance.mean():.4f}"
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], kept[2])
    executor.close()
