"""Which pair of frames a flow picture is of, where there are as many of both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import Refusal
from pipeline.existing import open_source
from pipeline.existing.bring import Existing
from pipeline.flow.quantisation import quantise
from pipeline.store import catalogue, layout, open_store
from tests.pipeline.existing import HEIGHT, WIDTH, coclr_flow, encoded, pack, write_folder

Run = Callable[..., tuple[int, str, str]]


def moving(steps: list[int], seed: int = 0) -> tuple[list[bytes], np.ndarray]:
    """Frames of a texture that moves so many px to the right from each frame to the next, and bytes of that flow."""
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, 200)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    starts = 100 - np.cumsum([0, *steps])
    frames = [encoded(cv2.cvtColor(texture[:, at : at + WIDTH], cv2.COLOR_GRAY2BGR)) for at in starts]
    flow = np.zeros((len(steps), 2, HEIGHT, WIDTH), np.float32)
    flow[:, 0] = np.array(steps)[:, None, None]
    return frames, quantise(flow)


def mean_steps(store: Path, video: str) -> list[int]:
    """The flow of each pair, in whole px."""
    return np.rint(open_store(store).flow(video, slice(None))[:, 0].mean(axis=(1, 2))).astype(int).tolist()


STEPS = [1, 2, 3, 4, 5, 6, 7]


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
