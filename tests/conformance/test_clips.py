"""Frame sampling against clips made with the released code of CoCLR and CoCon."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.conformance.reference import arrays
from train.clips import predictive_blocks, random_clip, sliding_windows

VALUES = arrays("coclr_frame_sampler")

BLOCKS = arrays("cocon_sampler")


def cases(kind: str) -> list[tuple[str, int, int, int]]:
    names = [name for name in VALUES if name.startswith(kind)]
    return [(name, *map(int, re.findall(r"(?:L|ds|N)(\d+)", name))) for name in names]


@pytest.mark.parametrize(("name", "length", "stride", "num_frames"), cases("test/"))
def test_windows_equal_the_released_ones(name: str, length: int, stride: int, num_frames: int) -> None:
    np.testing.assert_array_equal(sliding_windows(num_frames, length, stride), VALUES[name])


@pytest.mark.parametrize(("name", "length", "stride", "num_frames"), cases("train_startrange/"))
def test_random_starts_cover_the_released_ones_and_the_last(
    name: str, length: int, stride: int, num_frames: int
) -> None:
    rng = np.random.default_rng(0)
    first, last = VALUES[name]
    starts = {int(random_clip(num_frames, length, stride, rng)[0]) for _ in range(12 * num_frames)}
    assert min(starts) == first == 0
    if num_frames <= length * stride:
        assert max(starts) == last == 0
    else:
        # The released range is half-open by mistake and stops one before the last valid start. The reference is the
        # largest of many draws, which for the longest video fell two short of its range.
        assert max(starts) == num_frames - length * stride
        assert max(starts) - last in ((1, 3) if num_frames == 300 else (1,))


@pytest.mark.parametrize("name", BLOCKS)
def test_predictive_blocks_equal_the_released_ones(name: str) -> None:
    released = BLOCKS[name]
    start = int(released[0, 0])
    np.testing.assert_array_equal(predictive_blocks(int(name.partition("_")[2]), 8, 5, 3, start), released)
