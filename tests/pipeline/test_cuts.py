"""Cuts between shots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import synthetic
from pipeline.store import catalogue, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views.cuts import CutFinder
from tests.pipeline.reference import extract_here

DARK, BRIGHT = np.array([40, 60, 50]), np.array([210, 150, 120])


def shot(colour: np.ndarray, frames: int, speed: int = 2) -> np.ndarray:
    """A texture about a colour that moves: uint8 (frames, 48, 64, 3)."""
    texture = np.random.default_rng(int(colour[0])).integers(-30, 31, (48, 64, 1))
    moved = np.stack([np.roll(texture, speed * t, axis=1) for t in range(frames)])
    return np.clip(moved + colour, 0, 255).astype(np.uint8)


def cuts(frames: np.ndarray, block: int = 1000) -> list[int]:
    finder = CutFinder()
    for start in range(0, len(frames), block):
        finder.add(frames[max(0, start - 1) : start + block])
    return finder.found()


def test_cuts_are_found_where_they_are() -> None:
    frames = np.concatenate([shot(DARK, 7), shot(BRIGHT, 1), shot(DARK, 12, 5), shot(BRIGHT, 6)])
    assert cuts(frames) == [6, 7, 19]


@pytest.mark.parametrize("block", [1, 2, 7, 8])
def test_blocks_do_not_show(block: int) -> None:
    frames = np.concatenate([shot(DARK, 7), shot(BRIGHT, 9)])
    assert cuts(frames, block) == cuts(frames) == [6]


@pytest.mark.parametrize(
    "frames", [shot(DARK, 20, 9), shot(DARK, 1), shot(DARK, 20)[:, :, ::-1], np.zeros((0, 48, 64, 3), np.uint8)]
)
def test_motion_is_no_cut(frames: np.ndarray) -> None:
    assert cuts(frames) == []


def test_a_change_that_goes_on_is_no_cut() -> None:
    """Flicker and fades change much in each frame."""
    levels = np.linspace(0, 1, 12)
    assert cuts(np.concatenate([shot((DARK * (1 - t) + BRIGHT * t).astype(int), 1) for t in levels])) == []
    assert cuts(np.concatenate([shot(DARK if t % 2 else BRIGHT, 1) for t in range(12)])) == []


def test_the_store_keeps_the_cuts_of_a_video(tmp_path: Path, extraction_settings: ExtractionSettings) -> None:
    (tmp_path / "videos").mkdir()
    frames = np.concatenate([shot(DARK, 9), shot(BRIGHT, 8)])
    synthetic.write_mp4(tmp_path / "videos" / "cut.mp4", frames)
    synthetic.write_mp4(tmp_path / "videos" / "whole.mp4", shot(DARK, 9))
    store = extract_here(tmp_path / "videos", tmp_path / "store", extraction_settings)
    assert store.info("cut").cuts == (8,)
    assert store.info("whole").cuts == ()
    assert catalogue.read_record(layout.record_path(store.root, "cut"))["cuts"] == [8]
    assert open_store(store.root).infos == store.infos
