"""Executors and what is stored: views of any number of planes, frames of which only a window is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.views import VIEWS
from pipeline.views.codec import Chroma
from tests.toy_view import ToyView
from tests.train.oracle import SIZE, assert_close, clip_plan, plain
from tests.train.stores import write_store
from train.augment import WHOLE, pixel_window
from train.reader.dali import DaliExecutor
from train.reader.opencv import OpenCVExecutor

SIZES = {"wide": (30, 72, 96), "tall": (25, 90, 64), "short": (6, 60, 80)}


@pytest.mark.parametrize("planes", [1, 5, 17])
@pytest.mark.parametrize("kind", [OpenCVExecutor, DaliExecutor])
def test_a_view_of_any_number_of_planes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planes: int, kind: type, on_cpu: None
) -> None:
    monkeypatch.setitem(VIEWS, "toy", ToyView(planes))
    store = write_store(tmp_path, SIZES, planes=planes)
    plans = [
        clip_plan("wide", range(3, 11), (0.1, 0.2, 0.7, 0.6)),
        clip_plan("tall", range(8), WHOLE, True, 0.7),
        clip_plan("short", [0, 0, 0, 0, 1, 2, 3, 4], (0.0, 0.5, 0.5, 0.5), True),
    ]
    executor = kind(store, 2)
    clips = executor.run("toy", plans, SIZE)
    assert clips.dtype == torch.uint8 and clips.shape == (3, planes, 8, *SIZE)
    assert_close(clips, plain(store, "toy", plans))
    executor.close()


@pytest.mark.parametrize("chroma", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("kind", [OpenCVExecutor, DaliExecutor])
def test_a_window_has_the_pixels_of_the_whole_frame_bit_for_bit(
    tmp_path: Path, chroma: Chroma, kind: type, on_cpu: None
) -> None:
    """Also where only the window is decoded: windows of the clip's own size, at even and odd places, at all edges."""
    sizes = {"large": (3, 256, 340), "small": (3, 60, 80)}
    store = write_store(tmp_path, sizes, chroma=chroma)
    executor = kind(store, 1)
    height, width = SIZE
    for video_id, (_, tall, wide) in sizes.items():
        for top, left in ((0, 0), (tall - height, wide - width), (7, 13), (16, 16), (1, wide - width)):
            window = (top / tall, left / wide, height / tall, width / wide)
            assert pixel_window(window, tall, wide) == (top, left, height, width)
            (clip,) = executor.run("rgb", [clip_plan(video_id, range(3), window)], SIZE)
            whole = store.read(video_id, "rgb", slice(None))
            expected = whole[:, top : top + height, left : left + width]
            np.testing.assert_array_equal(clip.permute(1, 2, 3, 0).numpy(), expected)
    executor.close()
