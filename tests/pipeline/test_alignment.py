"""Which pair of frames a flow picture is of, where there are as many of both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import flow
from pipeline.errors import Refusal
from pipeline.existing import open_source
from pipeline.existing.bring import Existing
from pipeline.flow.quantisation import quantise
from pipeline.store import catalogue, layout, open_store
from pipeline.video.decode import DecodeSettings, decode
from tests.pipeline.existing import HEIGHT, WIDTH, coclr_flow, encoded, pack, write_folder

Run = Callable[..., tuple[int, str, str]]


def moving(steps: list[int], seed: int = 0, anew: int = 0) -> tuple[list[bytes], np.ndarray]:
    """Frames of a texture that moves so many px to the right from each frame to the next, and bytes of that flow.

    anew: after each so many frames all becomes brighter or darker, as it changes where an encoder begins anew.
    """
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, 200)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    starts = 100 - np.cumsum([0, *steps])
    pictures = [texture[:, at : at + WIDTH] for at in starts]
    if anew:
        pictures = [cv2.add(one // 2, 120 * (k // anew % 2)) for k, one in enumerate(pictures)]
    frames = [encoded(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)) for picture in pictures]
    flow = np.zeros((len(steps), 2, HEIGHT, WIDTH), np.float32)
    flow[:, 0] = np.array(steps)[:, None, None]
    return frames, quantise(flow)


def mean_steps(store: Path, video: str) -> list[int]:
    """The flow of each pair, in whole px."""
    return np.rint(open_store(store).flow(video, slice(None))[:, 0].mean(axis=(1, 2))).astype(int).tolist()


STEPS = [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.remedy("as the pictures tell, each flow picture {} (--alignment {})", told=True)
@pytest.mark.parametrize("convention", ["first", "second"])
@pytest.mark.parametrize("layout_of", ["folders", "lmdb"])
def test_the_pictures_tell_which_pair_flow_is_of(convention: str, layout_of: str, run: Run, tmp_path: Path) -> None:
    # Flow of a last frame leads nowhere; TSN's dense_flow leaves the first frame out.
    whole, flow = moving(STEPS)
    frames, expected = (whole[:-1], STEPS[:6]) if convention == "first" else (whole[1:], STEPS[1:])
    assert len(frames) == len(flow) == 7
    if layout_of == "folders":
        sources: tuple[object, ...] = (write_folder(tmp_path / "raw", {"Walk/a": frames}, {"Walk/a": flow}),) * 2
    else:
        sources = (
            pack(tmp_path / "frame.lmdb", {"Walk/a": frames}),
            pack(tmp_path / "flow.lmdb", {"Walk/a": coclr_flow(flow)}),
        )
    command = ("bring", "--frames", sources[0], "--flow", sources[1], "--store", tmp_path / "store")
    code, _, err = run(*command)
    assert code == 0
    assert "as the pictures tell, each flow picture leads to" in err or convention == "first"
    assert f"(--alignment {convention})" in err
    assert mean_steps(tmp_path / "store", "Walk/a") == expected
    store = open_store(tmp_path / "store")
    assert store.settings["flow"]["parameters"].get("alignment", "first") == convention
    record = catalogue.read_record(layout.record_path(store.root, "Walk/a")) or {}
    assert ("first frame" if convention == "second" else "last frame") in next(iter(record["notes"]))
    other = {"first": "second", "second": "first"}[convention]
    assert run(*command, "--alignment", convention)[0] == 0
    assert run(*command, "--alignment", other)[0] == 1  # the store has the one
    assert run(*command, "--alignment", other, "--overwrite", "true")[0] == 0
    assert mean_steps(tmp_path / "store", "Walk/a") == (STEPS[1:] if other == "second" else STEPS[:6])


@pytest.mark.parametrize("steps", [[0] * 7, [3] * 7], ids=["still", "even"])
@pytest.mark.remedy("`--alignment first` where flow picture k leads")
def test_pictures_that_do_not_tell_are_asked_about_and_both_remedies_work(
    steps: list[int], run: Run, tmp_path: Path
) -> None:
    frames, flow = moving(steps)
    root = write_folder(tmp_path / "raw", {"Walk/a": frames[:-1]}, {"Walk/a": flow})
    command = ("bring", "--frames", root, "--flow", root, "--store")
    code, _, err = run(*command, tmp_path / "store")
    assert code == 1
    assert not (tmp_path / "store").exists()
    remedies = re.findall(r"`(--alignment \w+)`", err)
    assert remedies == ["--alignment first", "--alignment second"]
    for remedy in remedies:
        assert run(*command, tmp_path / remedy, *remedy.split())[0] == 0
        assert mean_steps(tmp_path / remedy, "Walk/a") == steps[:6]


def test_one_less_flow_picture_than_frames_is_no_question(run: Run, tmp_path: Path) -> None:
    frames, flow = moving([0] * 4)
    root = write_folder(tmp_path / "raw", {"Walk/a": frames}, {"Walk/a": flow})
    code, _, err = run("bring", "--frames", root, "--flow", root, "--store", tmp_path / "store")
    assert code == 0
    assert "--alignment" not in err


@pytest.mark.parametrize("convention", ["first", "second"])
def test_a_few_misleading_videos_do_not_decide_and_many_leave_it_open(convention: str, tmp_path: Path) -> None:
    def source(honest: int, misleading: int) -> Existing:
        videos, planes = {}, {}
        for number in range(honest + misleading):
            whole, flow = moving(STEPS, number)
            of_first = (convention == "first") == (number < honest)
            videos[f"a/{number}"], planes[f"a/{number}"] = (whole[:-1] if of_first else whole[1:]), flow
        top = tmp_path / f"{honest}-{misleading}"
        opened = open_source(write_folder(top, videos, planes))
        return Existing(opened, opened)

    assert source(6, 1).aligned == convention
    with pytest.raises(Refusal, match="do not tell"):
        source(2, 2).aligned


@pytest.mark.parametrize("convention", ["first", "second"])
@pytest.mark.parametrize("anew", [3, 4, 6])
def test_places_where_an_encoder_begins_anew_mislead_nobody(convention: str, anew: int, tmp_path: Path) -> None:
    """No flow fits there; every third pair is looked at, so that these may be all of those or none."""
    videos, planes = {}, {}
    steps = [0, 1, 0, 0, 1, 0, 2, 0, 1] * 3
    for number in range(4):
        whole, planes[f"a/{number}"] = moving(steps[:24], number, anew)
        videos[f"a/{number}"] = whole[:-1] if convention == "first" else whole[1:]
    opened = open_source(write_folder(tmp_path / "raw", videos, planes))
    assert Existing(opened, opened).aligned == convention


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["first", "second"])
def test_real_clips_of_small_motion_and_strong_key_frames(convention: str, shared: Path, tmp_path: Path) -> None:
    """What pairs differ in besides their flow once decided here, against what the flow itself tells."""
    clips = sorted((shared / "data" / "actions" / "ut-interaction-other").rglob("*.mp4"))[::8]
    estimator, videos, planes = flow.create("dis"), {}, {}
    for number, path in enumerate(clips):
        pictures = next(decode(path, DecodeSettings(max_frames=45), max_block=45))[19:45]
        planes[f"a/{number}"] = quantise(estimator.estimate(pictures[:-1], pictures[1:]))
        kept = pictures[:-1] if convention == "first" else pictures[1:]
        videos[f"a/{number}"] = [encoded(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)) for picture in kept]
    opened = open_source(write_folder(tmp_path / "raw", videos, planes))
    assert Existing(opened, opened).aligned == convention
