"""What executors should give: a plain loop over decoded frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from pipeline.store import VideoStore
from train.augment import WHOLE, ClipPlan, Pixels, Window, blur_taps, pixel_window
from train.clips.streams import Stream

SIZE = (40, 48)
NONE = np.empty((1, 0, 0), np.float32)  # colour
# Gray levels between DALI's and OpenCV's bilinear resize of the same decoded pixels: OpenCV rounds its weights to 11
# bits, so that exact halves may fall to either side.
MOST, MEAN = 1, 0.2


def clip_plan(
    video_id: str, frames: Sequence[int] | np.ndarray, window: Window = WHOLE, flip: bool = False, blur: float = 0.0
) -> ClipPlan:
    """For executors, which look at no colour, and are told the view."""
    return ClipPlan(video_id, np.asarray(frames), Stream("rgb", "rgb", "image", SIZE), Pixels(window, flip, NONE, blur))


def plain(store: VideoStore, view: str, plans: list[ClipPlan], size: tuple[int, int] = SIZE) -> np.ndarray:
    """One frame after the other, decoded by the store."""
    clips = []
    for made in plans:
        frames = []
        for number in made.frames:
            frame = store.read(made.video_id, view, [number])[0]
            planes = frame.transpose(2, 0, 1) if view == "rgb" else frame
            pixels = made.pixels
            top, left, height, width = pixel_window(pixels.window, *planes.shape[1:])
            cut = planes[:, top : top + height, left : left + width]
            resized = np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR) for plane in cut])
            if pixels.flip:
                resized = resized[:, :, ::-1].copy()
            if pixels.blur:
                taps = (blur_taps(pixels.blur),) * 2
                resized = np.stack([cv2.GaussianBlur(plane, taps, pixels.blur) for plane in resized])
            frames.append(resized)
        clips.append(np.stack(frames, axis=1))
    return np.stack(clips)


def assert_close(clips: torch.Tensor, expected: np.ndarray) -> None:
    distance = np.abs(clips.numpy().astype(int) - expected)
    assert distance.max() <= MOST and distance.mean() <= MEAN, f"most {distance.max()}, mean {distance.mean():.4f}"
