"""Crop windows: inside the frame whatever its size, and drawn as the papers draw them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.chances import assert_share, assert_uniform
from tests.train.drawing import pixels
from train.augment import WHOLE, pixel_window
from train.augment.windows import Window, random_resized

POLICIES = ["small", "evaluate", "coclr", "slic", "goca", "cocon"]
# Largest and smallest ratio of width and height, and the span between them.
LOW, HIGH = 3 / 4, 4 / 3
SPAN = HIGH - LOW


def windows(name: str, frame_size: tuple[int, int], count: int = 3000, **settings: object) -> np.ndarray:
    """(count, 4) as fractions of the frame."""
    rng = np.random.default_rng(0)
    return np.array([pixels(name, rng, frame_size, 1, **settings)["rgb"].window for _ in range(count)])


def missing_share(height: int, width: int, area: tuple[float, float], count: int = 400_000) -> float:
    """How many boxes do not fit, drawn in pixels as the papers' code does."""
    rng = np.random.default_rng(1)
    surface, ratio = rng.uniform(*area, count) * height * width, rng.uniform(LOW, HIGH, count)
    sides = np.sqrt(surface * ratio).astype(int), np.sqrt(surface / ratio).astype(int)
    swapped = rng.random(count) < 0.5
    wide, tall = np.where(swapped, sides[::-1], sides)
    return float(np.mean((wide > width) | (tall > height)))


@pytest.mark.parametrize("name", POLICIES)
@given(st.integers(0, 2**32), st.integers(1, 500), st.integers(1, 500))
def test_windows_lie_inside_frames_of_any_size(name: str, seed: int, height: int, width: int) -> None:
    drawn = pixels(name, np.random.default_rng(seed), (height, width), 3)
    for view in ("rgb", "flow"):
        top, left, tall, wide = drawn[view].window
        assert min(top, left) >= 0 and min(tall, wide) > 0
        assert top + tall <= 1 + 1e-12 and left + wide <= 1 + 1e-12
        top, left, tall, wide = pixel_window(drawn[view].window, height, width)
        assert 0 <= top < top + tall <= height and 0 <= left < left + wide <= width


@given(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.integers(1, 2000),
    st.integers(1, 2000),
)
def test_pixel_windows_hold_a_pixel_and_stay_inside(rows: list, columns: list, height: int, width: int) -> None:
    window = (rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0])
    top, left, tall, wide = pixel_window(window, height, width)
    assert 0 <= top < top + tall <= height and 0 <= left < left + wide <= width
    # rounding moves an edge by half a pixel, a window that holds none by up to one more
    assert abs(top - rows[0] * height) <= 1.5 and abs(top + tall - rows[1] * height) <= 1.5


@pytest.mark.parametrize("frame_size", [(20000, 20000), (24000, 32000), (32000, 24000)])
def test_boxes_that_always_fit_are_even_in_area_ratio_and_place(frame_size: tuple[int, int]) -> None:
    found = windows("coclr", frame_size, area=(0.1, 0.3), retry=False)
    top, left, tall, wide = found.T
    assert_uniform(tall * wide, 0.1, 0.3)
    ratio = wide * frame_size[1] / (tall * frame_size[0])
    # The share of boxes below a ratio: half of them drawn even, half of them swapped.
    assert_uniform(((ratio - LOW) / SPAN + (HIGH - 1 / ratio) / SPAN) / 2, 0, 1)
    assert_share(ratio > 1, 0.5)
    assert_uniform(top / (1 - tall), 0, 1)
    assert_uniform(left / (1 - wide), 0, 1)


@pytest.mark.parametrize("frame_size", [(240, 320), (256, 340), (128, 171)])
def test_without_retry_more_than_a_quarter_of_the_views_are_whole_frames(frame_size: tuple[int, int]) -> None:
    whole = (windows("coclr", frame_size, count=6000, retry=False) == WHOLE).all(axis=1)
    expected = missing_share(*frame_size, (0.2, 1.0))
    assert 0.285 <= expected <= 0.293  # measured on the released code
    assert_share(whole, expected)


def test_with_retry_hardly_any_view_is_a_whole_frame() -> None:
    found = windows("coclr", (240, 320))
    square = np.isclose(found, (0, 0.125, 1, 0.75)).all(axis=1)
    assert not (found == WHOLE).all(axis=1).any()
    assert square.mean() < 0.001  # ten boxes in a row that do not fit: one in 260,000
    area = found[:, 2] * found[:, 3]
    assert 0.195 <= area.min() < 0.21 and 0.9 < area.max() <= 1


def test_slic_shows_at_least_a_quarter_of_the_frame() -> None:
    found = windows("slic", (240, 320))
    assert 0.245 <= (found[:, 2] * found[:, 3]).min() < 0.26


def test_a_retry_ends_with_the_largest_square() -> None:
    rng = np.random.default_rng(0)

    def drawn(height: int, width: int, retry: bool) -> Window:
        return random_resized(rng, (height, width), (1.0, 1.0), retry=retry)

    assert drawn(100, 300, True) == pytest.approx((0, 1 / 3, 1, 1 / 3))
    assert drawn(300, 100, True) == pytest.approx((1 / 3, 0, 1 / 3, 1))
    assert drawn(100, 300, False) == WHOLE


@pytest.mark.parametrize(("settings", "low", "high"), [({}, 136, 190), ({"scale": (128, 160), "crop": 112}, 128, 160)])
@pytest.mark.parametrize("frame_size", [(240, 320), (320, 240), (190, 250)])
def test_goca_cuts_a_square_of_a_scaled_frame(
    settings: dict, low: float, high: float, frame_size: tuple[int, int]
) -> None:
    top, left, tall, wide = windows("goca", frame_size, **settings).T
    np.testing.assert_allclose(tall * frame_size[0], wide * frame_size[1])
    assert_uniform(settings.get("crop", 128) / (tall * frame_size[0] / min(frame_size)), low, high)
    assert_uniform(top / (1 - tall), 0, 1)
    assert_uniform(left / (1 - wide), 0, 1)


def test_cocon_cuts_a_square_of_most_of_the_frame() -> None:
    found = windows("cocon", (240, 320))
    top, left, tall, wide = found.T
    np.testing.assert_allclose(tall, 224 / 240)
    np.testing.assert_allclose(wide, 224 / 320)
    assert_uniform(top * 240, 0, 16)
    assert_uniform(left * 320, 0, 96)
    assert pixel_window((*found[0],), 240, 320)[2:] == (224, 224)


def test_small_windows_have_the_area_and_aspect_of_the_study() -> None:
    found = windows("small", (84, 112), count=500)
    free = found[(found[:, 2:] < 1).all(axis=1)]  # sides that did not fit are cut, which changes both
    area = free[:, 2] * free[:, 3]
    aspect = free[:, 3] * 112 / (free[:, 2] * 84)
    assert 0.5 <= area.min() < 0.55 and 0.9 < area.max() <= 1
    assert LOW - 1e-9 <= aspect.min() < 0.85 and 1.25 < aspect.max() <= HIGH + 1e-9


def test_evaluation_shows_the_whole_frame_or_a_centred_square() -> None:
    def shown(frame_size: tuple[int, int], crop: float | str) -> tuple[int, int, int, int]:
        drawn = pixels("evaluate", np.random.default_rng(0), frame_size, crop=crop)
        assert drawn["rgb"].window == drawn["flow"].window and not drawn["rgb"].flip
        return pixel_window(drawn["rgb"].window, *frame_size)

    assert shown((84, 112), "whole") == (0, 0, 84, 112)
    assert shown((84, 112), 0.5) == (21, 35, 42, 42)
    assert shown((112, 84), 1.0) == (14, 0, 84, 84)
