"""Maps of colours and of motion, told by what they do."""

from __future__ import annotations

import numpy as np
import pytest

from train.clips.colour import LUMA, QUARTER, identity
from train.show import effects

SATURATED = np.eye(3) + 0.5 * (np.eye(3) - np.tile(LUMA, (3, 1)))
TURNED = np.tile(LUMA, (3, 1)) + np.cos(0.2) * (np.eye(3) - np.tile(LUMA, (3, 1))) + np.sin(0.2) * QUARTER


@pytest.mark.parametrize(
    ("matrix", "added", "words"),
    [
        (np.eye(3), 0, "as it was"),
        (np.eye(3), 1.4, "as it was"),
        (np.eye(3), -12, "12 levels darker"),
        (0.75 * np.eye(3), 32, "contrast x 0.75"),
        (1.25 * np.eye(3), 0, "32 levels brighter, contrast x 1.25"),
        (SATURATED, 0, "saturation x 1.50"),
        (TURNED, 0, "hue turned by 11°"),
        (np.tile(LUMA, (3, 1)), 0, "gray"),
        (-0.75 * np.eye(3), 224, "inverted, contrast x 0.75"),
        (-TURNED, 256, "inverted, hue turned by 11°"),
    ],
)
def test_colours_are_told_by_what_they_do(matrix: np.ndarray, added: float, words: str) -> None:
    assert effects.of_colours(np.column_stack([matrix, np.full(3, added)])) == words


def test_motion_is_told_by_what_becomes_of_it() -> None:
    turned = identity(2) * [[-1.5], [1.5]]
    assert effects.of_motion(identity(2)) == "as it was"
    assert effects.of_motion(turned) == "left and right changed, 1.50 times as fast"
