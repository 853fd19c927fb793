"""What an affine map of colours does to a picture, or one of flow to motion, in words."""

from __future__ import annotations

import math

import numpy as np

from train.clips.colour import LUMA, YIQ

MIDDLE = 128  # the gray level whose change is told
LEAST = 0.02  # of a factor, LEAST_LEVELS of brightness and LEAST_DEGREES of hue: what is less cannot be seen
LEAST_LEVELS, LEAST_DEGREES = 2, 2


def of_colours(map_: np.ndarray) -> str:
    """Of a map from RGB to RGB in 0..255, (3, 4), such as "12 levels darker, contrast x 0.84, hue turned by 14°"."""
    matrix = YIQ @ map_[:, :3] @ np.linalg.inv(YIQ)
    sign = -1 if matrix[0, 0] < 0 else 1
    contrast, rest = sign * float(matrix[0, 0]), sign * matrix[1:, 1:]
    levels = round(float(LUMA @ (map_ @ [MIDDLE, MIDDLE, MIDDLE, 1])) - MIDDLE)
    told = ["inverted"] if sign < 0 else []
    if abs(levels) >= LEAST_LEVELS:
        told.append(f"{abs(levels)} levels {'brighter' if levels > 0 else 'darker'}")
    if abs(contrast - 1) >= LEAST:
        told.append(f"contrast x {contrast:.2f}")
    saturation = math.sqrt(abs(np.linalg.det(rest))) / max(contrast, 1e-6)
    if np.abs(rest).max() < LEAST:
        return ", ".join([*told, "gray"])
    if abs(saturation - 1) >= LEAST:
        told.append(f"saturation x {saturation:.2f}")
    hue = math.degrees(math.atan2(rest[1, 0] - rest[0, 1], rest[0, 0] + rest[1, 1]))
    if abs(hue) >= LEAST_DEGREES:
        told.append(f"hue turned by {hue:.0f}°")
    return ", ".join(told) or "as it was"


def of_motion(map_: np.ndarray) -> str:
    """Of a map from (u, v) to (u, v), (2, 3), such as "left and right changed, 1.20 times as fast"."""
    gains, told = np.diag(map_[:, :2]), []
    if gains[0] < 0:
        told.append("left and right changed")
    faster = float(np.abs(gains).mean())
    if abs(faster - 1) >= LEAST:
        told.append(f"{faster:.2f} times as fast")
    return ", ".join(told) or "as it was"
