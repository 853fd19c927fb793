"""Frame sampling: ranges, padding, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.clips import predictive_blocks, random_clip, sliding_windows

sizes = {"num_frames": st.integers(1, 200), "length": st.integers(1, 40), "stride": st.integers(1, 6)}


@given(**sizes, seed=st.integers(0, 2**32))
def test_a_random_clip_lies_inside_its_video(num_frames: int, length: int, stride: int, seed: int) -> None:
    frames = random_clip(num_frames, length, stride, np.random.default_rng(seed))
    assert frames.shape == (length,) and frames.dtype == np.int64
    assert frames.min() >= 0 and frames.max() < num_frames
    steps = np.diff(frames)
    if num_frames >= length * stride:
        assert (steps == stride).all()
    else:
        real = np.flatnonzero(frames)
        assert (frames[: real[0] if real.size else length] == 0).all()
        assert (np.diff(frames[real]) == stride).all()


def test_every_start_is_drawn_the_last_one_too() -> None:
    rng = np.random.default_rng(0)
    starts = {int(random_clip(20, 8, 2, rng)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}


def test_a_short_video_is_padded_in_front_with_its_first_frame() -> None:
    rng = np.random.default_rng(0)
    clips = {tuple(random_clip(9, 6, 2, rng).tolist()) for _ in range(50)}
    assert clips == {(0, 0, 2, 4, 6, 8), (0, 0, 1, 3, 5, 7)}
    assert random_clip(1, 4, 3, rng).tolist() == [0, 0, 0, 0]


@given(**sizes)
def test_windows_are_every_start_of_their_grid(num_frames: int, length: int, stride: int) -> None:
    windows = sliding_windows(num_frames, length, stride)
    assert windows.min() >= 0 and windows.max() < num_frames and windows.shape[1] == length
    expected, start = [], 0
    while start + length * stride <= num_frames:
        expected.append([start + stride * i for i in range(length)])
        start += max(1, length * stride // 2 - 1)
    if expected:
        assert windows.tolist() == expected
    else:
        assert windows.shape[0] == 1 and windows[0, -1] == (num_frames - 1) // stride * stride


@given(
    num_frames=st.integers(1, 300), blocks=st.integers(1, 8), block_length=st.integers(1, 6), stride=st.integers(1, 4)
)
def test_predictive_blocks_are_one_run_through_the_video(
    num_frames: int, blocks: int, block_length: int, stride: int
) -> None:
    count = blocks * block_length
    long = num_frames > count * stride
    last = num_frames - count * stride - 1 if long else num_frames - 1 - int(0.9 * (num_frames - 1))
    for start in (0, last):
        frames = predictive_blocks(num_frames, blocks, block_length, stride, start)
        assert frames.shape == (blocks, block_length) and frames.dtype == np.int64
        assert frames[0, 0] == start and frames.min() >= 0 and frames.max() < num_frames
        steps = np.diff(frames.ravel())
        assert (steps == stride).all() if long else ((steps >= 0) & (steps <= stride)).all()


@given(
    num_frames=st.integers(1, 300),
    blocks=st.integers(1, 8),
    block_length=st.integers(1, 6),
    stride=st.integers(1, 4),
    place=st.floats(0, 1, exclude_max=True),
)
def test_predictive_blocks_equal_a_loop_from_any_start(
    num_frames: int, blocks: int, block_length: int, stride: int, place: float
) -> None:
    count = blocks * block_length
    distance = stride if num_frames > count * stride else 0.9 * (num_frames - 1) / count
    start = int(place * (num_frames - int(count * distance)))
    frames = predictive_blocks(num_frames, blocks, block_length, stride, start)
    for k in range(blocks):
        for t in range(block_length):
            assert frames[k, t] == int(start + distance * (block_length * k + t)) < num_frames


def test_predictive_blocks_outside_the_video_fail() -> None:
    predictive_blocks(121, 8, 5, 3, 3)  # the last frame is the video's last
    for start in (4, 121, -1):
        with pytest.raises(ValueError, match=f"8 blocks of 5 frames from frame {start} do not fit into 121 frames"):
            predictive_blocks(121, 8, 5, 3, start)
    for sizes in ((0, 8, 5, 3), (121, 0, 5, 3), (121, 8, 0, 3), (121, 8, 5, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            predictive_blocks(*sizes, 0)


@pytest.mark.parametrize("sizes", [(0, 8, 1), (10, 0, 1), (10, 8, 0)])
def test_clips_without_extent_fail(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sliding_windows(*sizes)
    with pytest.raises(ValueError, match="at least 1"):
        random_clip(*sizes, np.random.default_rng(0))
