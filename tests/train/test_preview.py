"""Film strips: the pixels and words of the very batches that a network is trained on."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.commands import console
from pipeline.store import VideoStore
from pipeline.views.colour import colour_code, full_colour
from pipeline.views.flow import FLOW
from tests.train import batches, runs
from tests.train.drawing import spec_of
from tests.train.runs import IN_BATCH, INFONCE
from tests.train.stores import write_store
from train.__main__ import COMMANDS
from train.augment import policy
from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.clips.spec import ClipSpec
from train.show import preview
from train.show.preview import GAP, Shown, Strip, shown_videos

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("preview") / "store", runs.VIDEOS | {"<b>": (9, 20, 24)})


def make(
    store: VideoStore, name: str, length: int = 4, views: int = 2, videos: Any = None, **settings: Any
) -> ClipLoader:
    clips = spec_of(settings, length, 1).changed(size=(16, 20))
    reads = dict.fromkeys(("rgb", "flow"), range(views))
    given = {"videos": videos, "reads": reads, "clips": clips, "policy": policy(name, **settings)}
    return batches.make(store, batch=min(4, len(videos or store.videos)), **given)


def decoded(uri: str) -> np.ndarray:
    """RGBA (H, W, 4) of a picture in the page."""
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)
    return picture[..., [2, 1, 0, 3]]


def frames(strip: Strip) -> np.ndarray:
    """Its pictures, (N, H, W, 3); between them nothing is drawn."""
    tiles = np.split(decoded(strip.uri), strip.frames, axis=1)
    assert all(tile.shape == (strip.height, strip.width + GAP, 4) for tile in tiles)
    assert all((tile[:, strip.width :, 3] == 0).all() and (tile[:, : strip.width, 3] == 255).all() for tile in tiles)
    return np.stack([tile[:, : strip.width, :3] for tile in tiles])


def as_pictures(seen: np.ndarray) -> np.ndarray:
    """A network's input (3, T, H, W) as bytes (T, H, W, 3), pixel by pixel."""
    return np.clip(np.rint((seen.transpose(1, 2, 3, 0) * STD + MEAN) * 255), 0, 255).astype(np.uint8)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """float32 may round a half to either side."""
    assert np.abs(found.astype(int) - expected).max() <= 1 and (found != expected).mean() < 1e-3


@pytest.mark.parametrize("name", ["coclr", "cocon", "small"])
@pytest.mark.parametrize(("epoch", "number"), [(0, 0), (2, 1)])
def test_strips_are_the_batch_of_the_loader(store: VideoStore, name: str, epoch: int, number: int) -> None:
    flow = {"flow": "signed"} if name == "cocon" else {}
    loader = make(store, name, **flow)
    batch = loader.load(epoch * len(loader) + number)
    shown = shown_videos(loader, store, epoch, number, videos=3)
    assert [video.video_id for video in shown] == [store.videos[index] for index in batch.index[:3]]
    assert [video.label for video in shown] == [store.info(video.video_id).label for video in shown]
    for row, video in enumerate(shown):
        motion = [view[row].numpy() * 2.5 for view in batch.views("flow")]
        if name == "cocon":  # the bytes in -.5..0.5
            motion = [view / 2.5 * 40 for view in motion]
        longest = full_colour(np.concatenate([view.transpose(1, 0, 2, 3) for view in motion]))
        for clip, rgb, flow in zip(video.clips, batch.views("rgb"), motion, strict=True):
            shown_rgb, shown_flow = clip.strips
            assert (shown_rgb.stream, shown_flow.stream) == ("rgb", "flow")
            assert_alike(frames(shown_rgb), as_pictures(rgb[row].numpy()))
            assert_alike(frames(shown_flow), colour_code(flow.transpose(1, 0, 2, 3), longest))
            assert shown_flow.facts[-1] == f"full colour at {longest:.1f} px"
    loader.close()


def test_clips_that_are_not_read_are_not_shown(store: VideoStore) -> None:
    loader = batches.make(store, reads={"rgb": (0, 1), "flow": (1,)})
    batch = loader.load(0)
    for row, video in enumerate(shown_videos(loader, store, 0, 0, 4)):
        assert [[strip.stream for strip in clip.strips] for clip in video.clips] == [["rgb"], ["rgb", "flow"]]
        for number, clip in enumerate(video.clips):
            assert_alike(frames(clip.strips[0]), as_pictures(batch.view("rgb", number)[row].numpy()))
    loader.close()


@pytest.mark.parametrize("kind", ["image", "u"])
def test_flow_that_is_given_as_an_image_is_shown_as_that_image(store: VideoStore, kind: str) -> None:
    loader = make(store, "slic", flow=kind)
    batch = loader.load(0)
    for row, video in enumerate(shown_videos(loader, store, 0, 0, 4)):
        for clip, flow in zip(video.clips, batch.views("flow"), strict=True):
            assert_alike(frames(clip.strips[1]), as_pictures(flow[row].numpy()))
    loader.close()


def test_without_augmentation_strips_are_the_bytes_that_were_read(store: VideoStore) -> None:
    loader = make(store, "evaluate")
    batch = loader.load(0)
    for row, video in enumerate(shown_videos(loader, store, 0, 0, 4)):
        for number, clip in enumerate(video.clips):
            stored = batches.part(batch, "rgb", number).clips[row].numpy().transpose(1, 2, 3, 0)
            np.testing.assert_array_equal(frames(clip.strips[0]), stored)
            assert clip.strips[0].colours == clip.strips[1].colours == ["as stored"]
            assert clip.strips[0].facts[1:] == ["not mirrored", "no blur", "0 % of values cut"]
    loader.close()


def test_long_clips_are_shown_by_frames_evenly_over_them(tmp_path: Path) -> None:
    store = write_store(tmp_path, {"long": (40, 20, 24)})
    loader = make(store, "evaluate", length=31, views=1)
    seen = batches.part(loader.load(0), "rgb", 0).clips[0].numpy().transpose(1, 2, 3, 0)
    [strip, _] = shown_videos(loader, store, 0, 0, 1)[0].clips[0].strips
    np.testing.assert_array_equal(frames(strip), seen[::2])
    loader.close()


def shown(store: VideoStore, name: str, **settings: Any) -> list[Shown]:
    loader = make(store, name, **settings)
    made = shown_videos(loader, store, 0, 0, 4)
    loader.close()
    return made


def strips(store: VideoStore, stream: str, **settings: Any) -> list[Strip]:
    found = [strip for video in shown(store, "slic", **settings) for clip in video.clips for strip in clip.strips]
    return [strip for strip in found if strip.stream == stream]


def test_what_was_drawn_stands_beside_the_strip(store: VideoStore) -> None:
    loader = make(store, "slic", blur=0.5, sigma=(0.5, 0.5))
    [index, *_] = loader.order.share(0)[1]
    plans = loader.planner.plans(int(index), 0)[1]
    [rgb, flow] = shown_videos(loader, store, 0, 0, 1)[0].clips[1].strips
    loader.close()
    for strip, (height, width) in ((rgb, (20, 24)), (flow, (13, 16))):
        found = re.fullmatch(
            r"window (\d+)x(\d+) of (\d+)x(\d+) \((\d+)%\), (\d+) from the left, (\d+) from the top", strip.facts[0]
        )
        assert found
        wide, tall, of_wide, of_tall, share, left, top = map(int, found.groups())
        assert (of_wide, of_tall) == (width, height)
        window = plans[strip.stream].pixels.window
        assert (left, top) == (round(window[1] * width), round(window[0] * height))
        assert wide == round((window[1] + window[3]) * width) - left
        assert tall == round((window[0] + window[2]) * height) - top
        assert share == round(100 * wide * tall / width / height)
    assert rgb.facts[1] == flow.facts[1] == ("mirrored" if plans["rgb"].pixels.flip else "not mirrored")
    assert rgb.facts[2] == ("blur 0.50 px" if plans["rgb"].pixels.blur else "no blur") and flow.facts[2] == "no blur"


def test_colours_are_told_as_formulas(store: VideoStore) -> None:
    plain = {"jitter": 0.0, "gray": 0.0, "flip": 1.0}
    luma = "R = G = B = 0.30 R + 0.59 G + 0.11 B"
    assert {tuple(strip.colours) for strip in strips(store, "rgb", **(plain | {"gray": 1.0}))} == {
        (luma, "that is: gray")
    }
    copies = {"gray": 1.0, "gray_kind": "channel"}
    told = {strip.colours[0] for strip in strips(store, "rgb", **(plain | copies))}
    assert told <= {f"of each frame its own, of the first R = G = B = {name}" for name in "RGB"} and len(told) > 1
    assert {tuple(strip.colours) for strip in strips(store, "flow", **plain)} == {
        ("u = -u", "v = v", "that is: left and right changed")
    }
    image = {"flow": "image", "flow_mirror": "plain"}
    told_of_image = {tuple(strip.colours) for strip in strips(store, "flow", **(plain | image))}
    assert told_of_image == {("R = 128.00", "G = v", "B = u")}
    assert {strip.colours[0] for strip in strips(store, "flow", **plain, flow="u")} == {"R = G = B = -u + 255.00"}


def test_values_that_no_picture_can_show_are_cut_and_counted(store: VideoStore) -> None:
    loader = make(store, "slic", brightness=1.0, jitter=1.0)
    batch = loader.load(0)
    cut = 0
    for row, video in enumerate(shown_videos(loader, store, 0, 0, 4)):
        for clip, rgb in zip(video.clips, batch.views("rgb"), strict=True):
            levels = np.rint((rgb[row].numpy().transpose(1, 2, 3, 0) * STD + MEAN) * 255)
            share = 100 * np.mean((levels < 0) | (levels > 255))
            assert clip.strips[0].facts[-1] == f"{share:.2g} % of values cut"
            cut += share > 0
    assert cut > 1
    loader.close()


def test_frames_are_told_in_words(store: VideoStore, tmp_path: Path) -> None:
    for video in shown(store, "coclr", one_clip=1.0):
        first, second = (clip.words for clip in video.clips)
        assert re.fullmatch(r"clip 1: frames \d+ to \d+", first)
        assert second == first.replace("clip 1", "clip 2") + ", the same as clip 1"
    short = write_store(tmp_path / "short", {"long": (12, 20, 24), "short": (4, 20, 24)})
    loader = make(short, "slic", length=6, views=1)
    words = {video.video_id: video.clips[0].words for video in shown_videos(loader, short, 0, 0, 2)}
    loader.close()
    assert words["short"] == "clip 1: frames 0 to 2, frame 0 repeated 3 times in front because the video is short"
    clips = ClipSpec(length=3, stride=2, size=(16, 20))
    apart = batches.make(short, videos=["long"], reads={"rgb": (0,)}, clips=clips, policy=policy("slic"), batch=1)
    assert shown_videos(apart, short, 0, 0, 1)[0].clips[0].words.endswith(", 2 apart")
    apart.close()


def test_a_page_shows_what_training_sees(store: VideoStore, tmp_path: Path) -> None:
    """The batch of a step in mid-training, as its network was given it."""
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 6}, augmentation={"name": "coclr"})
    given: dict[int, list[np.ndarray]] = {}

    def watch(method: Any, batch: Batch) -> None:
        given[method.global_step] = [view.numpy().copy() for view in batch.views("rgb")]

    with runs.in_step(watch):
        runs.run(recipe, store, tmp_path / "run")
    steps_an_epoch = len(store.videos) // recipe.batch
    step = steps_an_epoch + 1
    out = tmp_path / "pages" / "page.html"
    assert preview.write_preview(recipe, "", store, 1, 1, 4, out) == ("pixels", 4)
    found = [decoded(uri) for uri in re.findall(r"url\((data:[^)]*)\)", out.read_text())]
    assert len(found) == 8
    for row in range(4):
        for view in range(2):
            expected = as_pictures(given[step][view][row])
            tiles = np.split(found[2 * row + view][..., :3], len(expected), axis=1)
            assert_alike(np.stack([tile[:, :-GAP] for tile in tiles]), expected)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    return console.main(COMMANDS, "", "train")


def test_the_command_writes_a_page_of_its_own(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    motion = INFONCE | {"settings": {"stream": "flow", "backbone": "small", "queue": 0}, "batch": 14}
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH, motion))
    out, again = tmp_path / "page.html", tmp_path / "again.html"
    asked = ("preview", "--method", "infonce", "--recipe", recipe, "--store", store.root)
    assert call(monkeypatch, *asked, "--stage", "motion", "--videos", 14, "--out", out) == 0
    assert f"showed 14 videos of batch 0 of epoch 0, stage motion: {out}" in capsys.readouterr().out
    page = out.read_text()
    assert "the first 14 of 14 videos of batch 0" in page
    assert "http" not in page and page.count('class="strip"') == 28
    assert "<h2>&lt;b&gt; <span>" in page  # a video's name is text
    assert "flow_gain" in page and f"the colours of {FLOW.title}" in page
    assert call(monkeypatch, *asked, "--stage", "motion", "--videos", 14, "--out", again) == 0
    assert again.read_text() == page
    assert call(monkeypatch, *asked, "--stage", "motion", "--videos", 14, "--epoch", 1, "--out", again) == 0
    assert again.read_text() != page
    assert call(monkeypatch, *asked, "--out", again) == 0
    assert "stage pixels, motion:" in capsys.readouterr().out
    page = again.read_text()
    assert [page.count(f"Stage {name}</h2>") for name in ("pixels", "motion")] == [1, 1]


def test_a_stage_that_sees_what_an_earlier_one_sees_refers_to_it(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, IN_BATCH | {"name": "again"})
    out = tmp_path / "page.html"
    assert preview.write_preview(recipe, "", store, 0, 0, 2, out) == ("pixels, again", 2)
    page = out.read_text()
    assert page.count('class="strip"') == 4 and "the same clips as stage pixels, shown there" in page


def test_when_each_picture_is_stands_below_it(store: VideoStore) -> None:
    loader = make(store, "evaluate")
    plans = loader.planner.plans(int(loader.order.share(0)[1][0]), 0)
    [strip, _] = shown_videos(loader, store, 0, 0, 1)[0].clips[0].strips
    loader.close()
    frames = plans[0]["rgb"].frames.tolist()
    fps = store.info(plans[0]["rgb"].video_id).fps
    assert strip.places == [f"{frame} · {frame / fps:.2f} s" for frame in frames]


def test_what_cannot_be_shown_fails(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH, INFONCE))
    asked = ("preview", "--method", "infonce", "--recipe", recipe, "--store", store.root, "--out", tmp_path / "p.html")

    def refused(code: int, words: str, *changes: object) -> None:
        assert call(monkeypatch, *asked, *changes) == code
        assert re.search(words, capsys.readouterr().err, re.DOTALL)

    refused(2, 'unknown stage "motoin".*did you mean "motion".*pixels, motion', "--stage", "motoin")
    refused(2, "no batch 3 of epoch 0.*a batch from 0 to 2", "--batch", 3)
    refused(2, "epoch -1 is out of range", "--epoch", -1)
    refused(2, "videos 0 is out of range", "--videos", 0)
    refused(1, "the preview cannot be written.*recipe.yaml", "--out", recipe / "p.html")
    refused(
        1,
        "1 video for training: fewer than one batch of 4",
        "--store",
        write_store(tmp_path / "few", {"a": (9, 20, 24)}).root,
    )
    assert not (tmp_path / "p.html").exists()
