"""Windows that are chosen by what is in them, as CoCon cuts flow, masks and key points: against plain loops."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from pipeline.views import VIEWS
from tests.toy_view import TOY
from tests.train.stores import write_frames, write_store
from train import reader
from train.augment import ClipPlan, Draws, Pixels, pixel_window, policy
from train.clips.spec import ClipSpec
from train.clips.streams import StoreStreams
from train.reader.dali import DaliExecutor
from train.reader.opencv import OpenCVExecutor, clips_of
from train.show import preview

SIZE = (20, 24)
SPEC = ClipSpec(
    length=4, stride=2, size=SIZE, streams={"flow": {"input": "signed", "mirror": "never"}}, pixels="published"
)
CUT = {"together": False, "fullest": {"flow": 127, "toy": 0}, "crops": {"toy": 0.8, "rgb": 0.5}}
FRAMES = np.array([0, 3, 3, 7])  # one twice, as in short videos


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VIEWS, TOY.name, TOY)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, toy: None) -> VideoStore:
    root = tmp_path_factory.mktemp("fullest") / "store"
    return write_store(root, {"wide": (10, 60, 80), "tall": (9, 90, 64)}, planes=3)


@pytest.fixture(params=[OpenCVExecutor, DaliExecutor], ids=["opencv", "dali"])
def executor(request: pytest.FixtureRequest, store: VideoStore, on_cpu: None) -> Iterator[reader.Executor]:
    made = request.param(store, 2)
    yield made
    made.close()


def drawn(store: VideoStore, sample: int, spec: ClipSpec = SPEC, **settings: object) -> dict[str, ClipPlan]:
    video = store.videos[sample % 2]
    info, streams = store.info(video), StoreStreams(map(spec.stream, ("rgb", "flow", "toy")), store.settings)
    made = policy("cocon", **CUT | settings).pixels(streams.own, (info.height, info.width), 4, Draws(5, sample))
    return {name: ClipPlan(video, FRAMES, streams.own[name].stream, pixels) for name, pixels in made.items()}


def fullest(frames: np.ndarray, pixels: Pixels, empty: int) -> int:
    """The number of the window, by a loop over all bytes of stacked frames (T, P, H, W)."""
    means = []
    for window in pixels.windows:
        top, left, height, width = pixel_window(window, *frames.shape[2:])
        total = count = 0
        for value in frames[:, :, top : top + height, left : left + width].ravel().tolist():
            total, count = total + abs(value - empty), count + 1
        means.append(total / count)
    return max(range(len(means)), key=lambda number: (means[number], -number))


def cut(frames: np.ndarray, pixels: Pixels, number: int) -> np.ndarray:
    """A clip (P, T, h, w) at that window, by Pillow's nearest pixel."""
    top, left, height, width = pixel_window(pixels.windows[number], *frames.shape[2:])
    resized = [
        [
            Image.fromarray(plane[top : top + height, left : left + width]).resize(SIZE[::-1], Image.NEAREST)
            for plane in frame
        ]
        for frame in frames
    ]
    clip = np.array([[np.asarray(plane) for plane in frame] for frame in resized]).swapaxes(0, 1)
    return clip[..., ::-1] if pixels.flip else clip


def placed(plan: ClipPlan, number: int) -> ClipPlan:
    """The same with that window alone."""
    return replace(plan, pixels=replace(plan.pixels, window=plan.pixels.windows[number], choice=None))


@pytest.mark.parametrize(("view", "empty"), [("flow", 127), ("toy", 0)])
def test_a_clip_is_cut_where_most_is(executor: reader.Executor, store: VideoStore, view: str, empty: int) -> None:
    """Each for itself in a batch, beside clips of the same video that are cut elsewhere or anywhere."""
    plans = [drawn(store, sample)[view] for sample in range(8)]
    plans += [placed(plan, 0) for plan in plans[:2]]
    frames = [store.read(plan.video_id, view, plan.frames) for plan in plans]
    taken = [fullest(shown, plan.pixels, empty) for plan, shown in zip(plans, frames, strict=True)]
    assert set(taken) == {0, 1, 2}
    clips = executor.run(view, plans, SIZE)
    alone = [placed(plan, number) for plan, number in zip(plans, taken, strict=True)]
    assert torch.equal(clips, executor.run(view, alone, SIZE))
    if isinstance(executor, OpenCVExecutor):
        for clip, shown, plan, number in zip(clips.numpy(), frames, plans, taken, strict=True):
            np.testing.assert_array_equal(clip, cut(shown, plan.pixels, number))
        if view == "flow":
            of_array = clips_of(store.read(plans[0].video_id, view, slice(None)), view, {}, plans[:1], SIZE)
            assert torch.equal(of_array[0], clips[0])


def test_colours_are_looked_at_alike(executor: reader.Executor, store: VideoStore) -> None:
    """Of interleaved pixels, which are made as ours."""
    plans = [drawn(store, sample, SPEC.changed(pixels="ours"), fullest={"rgb": 200})["rgb"] for sample in range(8)]
    planes = [store.read(plan.video_id, "rgb", plan.frames).transpose(0, 3, 1, 2) for plan in plans]
    taken = [fullest(frames, plan.pixels, 200) for frames, plan in zip(planes, plans, strict=True)]
    assert set(taken) == {0, 1, 2}
    alone = [placed(plan, number) for plan, number in zip(plans, taken, strict=True)]
    assert torch.equal(executor.run("rgb", plans, SIZE), executor.run("rgb", alone, SIZE))


def test_where_nothing_is_the_first_window_is_taken(tmp_path: Path, on_cpu: None) -> None:
    frames = (
        np.zeros((9, 60, 80, 3), np.uint8),
        np.full((8, 2, 40, 60), 127, np.uint8),
        np.zeros((9, 3, 30, 40), np.uint8),
    )
    frames[0][:, :, :, 0] = np.arange(80)
    store = write_frames(tmp_path / "store", {"one": frames, "two": frames})
    plans = [drawn(store, sample, fullest={"flow": 127, "toy": 0, "rgb": 0}) for sample in range(6)]
    for kind in (OpenCVExecutor, DaliExecutor):
        executor = kind(store, 1)
        alone = [placed(plan["rgb"], 0) for plan in plans]
        assert not torch.equal(
            executor.run("rgb", [plan["rgb"] for plan in plans], SIZE), executor.run("rgb", alone, SIZE)
        )
        for view, byte in (("flow", 127), ("toy", 0)):
            assert (executor.run(view, [plan[view] for plan in plans], SIZE) == byte).all()
        executor.close()
    assert fullest(frames[1], plans[0]["flow"].pixels, 127) == 0


def test_windows_are_drawn_by_view_and_change_nothing_else(store: VideoStore) -> None:
    for sample in range(20):
        made, plain = drawn(store, sample), drawn(store, sample, fullest=None, crops=None)
        for view, plan in made.items():
            mine, other = plan.pixels, plain[view].pixels
            assert (mine.flip, mine.colour.tolist()) == (other.flip, other.colour.tolist())
            info = store.info(plan.video_id)
            short = min(info.height, info.width)
            side = {"flow": 224 / 240, "toy": 0.8, "rgb": 0.5}[view] * short
            assert len(set(mine.windows)) == (1 if view == "rgb" else 3) and mine.window == mine.windows[0]
            for top, left, height, width in mine.windows:
                assert (height * info.height, width * info.width) == pytest.approx((side, side))
                assert 0 <= top <= 1 - height and 0 <= left <= 1 - width
        alone = drawn(store, sample, fullest={"toy": 0}, crops=None)
        assert alone["flow"].pixels.window == plain["flow"].pixels.window != made["flow"].pixels.window


def test_a_preview_says_that_it_was_chosen(store: VideoStore) -> None:
    made = drawn(store, 0)
    assert re.fullmatch(r"window 39x40 of 42x60 .*, the fullest of 3", preview._facts(made["flow"], store)[1])
    assert preview._facts(placed(made["flow"], 1), store)[1].endswith("from the top")


def test_a_stream_is_cut_in_tests_as_it_says(store: VideoStore) -> None:
    spec = SPEC.changed(streams={**SPEC.streams, "toy": {"crop": 1.0}}, crop=0.5)
    streams = StoreStreams(map(spec.stream, ("rgb", "flow", "toy")), store.settings)
    for crops, name in ((1, "test"), (3, "three"), (10, "ten")):
        made = policy("evaluate", crop=spec.crop, crops=crops).each(streams.own, (60, 80), Draws(0))
        assert len(made) == crops, name
        for pixels in made:
            sides = {view: tuple(one.window[2:]) for view, one in pixels.items()}
            assert sides == {"rgb": (0.5, 0.375), "flow": (0.5, 0.375), "toy": (1.0, 0.75)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fullest": {"flow": 256}}, ["256", "fullest.flow", "at most 255"]),
        ({"fullest": {"flow": 0.5}}, ["fullest.flow", "whole"]),
        ({"crops": {"toy": 1.2}}, ["crops.toy", "at most 1"]),
        ({"crops": {"tyo": 0.8}}, ['unknown view "tyo"', 'did you mean "toy"']),
        ({"together": True}, ["flow, rgb, toy cannot be cut as the other views", "together: false"]),
    ],
)
def test_settings_that_cannot_be_meant_fail(settings: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        policy("cocon", **CUT | settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
