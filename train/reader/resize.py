"""A window of decoded frames, resized and mirrored: bytes by a kernel of our own, other values by OpenCV."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from train.augment.windows import PixelWindow
from train.reader import kernels

# Frames that are decoded and resized at once: less waiting for Python's lock, and still in the processor's cache.
TOGETHER = 8
Size = tuple[int, int]  # height and width


class WindowResize(Protocol):
    """Cuts a window out of frames and resizes it as cv2.resize does with INTER_LINEAR, then mirrors it as cv2.flip
    does.

    Made for a clip, used by one thread.
    """

    def __call__(self, frames: Sequence[np.ndarray], clip: np.ndarray, places: np.ndarray) -> None:
        """From 1 to `TOGETHER` frames, each uint8 (H, W, 3) or (P, H, W) gray planes, into clip[:, places], (P, T, h, w
        * C)."""


class ByteResize:
    """Bytes into bytes, in one pass. C is 1 or 3."""

    def __init__(self, frame: Size, channels: int, window: PixelWindow, flip: bool, size: Size) -> None:
        self.top, left, *extent = window
        columns, shares = np.empty(size[1], np.int64), np.empty(size[1], np.float32)
        starts = np.empty(size[1], np.int64)
        picks, weights = np.empty((size[1], 2 * kernels.BYTES), np.uint8), np.empty((size[1], kernels.BYTES), np.int16)
        rows = np.empty((size[0], 4), np.int64)
        self._tables = starts, picks, weights, rows
        group = kernels.lay_out(tuple(extent), left, size, flip, channels, columns, shares, *self._tables)
        self._values = group * channels
        self._scratch = np.empty((2, size[1] * channels + 2 * kernels.VALUES), np.int16)
        self._edge = np.empty(frame[1] * channels + kernels.BYTES, np.uint8)

    def __call__(self, frames: Sequence[np.ndarray], clip: np.ndarray, places: np.ndarray) -> None:
        filled_up = (*frames, *[frames[-1]] * (TOGETHER - len(frames)))  # one length, so that it is compiled once
        kernels.resize(filled_up, self.top, self._values, *self._tables, self._scratch, self._edge, clip, places)


@functools.cache
def prepare() -> None:
    """Compile what bytes are resized with, which the first reader on a machine would wait for."""
    for channels in (1, 3):
        frame, clip = (
            np.zeros((8, 8, 3) if channels == 3 else (1, 8, 8), np.uint8),
            np.zeros((1, 1, 4, 4 * channels), np.uint8),
        )
        ByteResize((8, 8), channels, (0, 0, 8, 8), False, (4, 4))([frame], clip, np.zeros(1, np.int64))


class ValueResize:
    """What bytes stand for, float32 (256,), into float32; gray planes only."""

    def __init__(self, values: np.ndarray, window: PixelWindow, flip: bool, size: Size) -> None:
        top, left, height, width = window
        self.values, self.flip, self.size = values, flip, size
        self._window = slice(top, top + height), slice(left, left + width)

    def __call__(self, frames: Sequence[np.ndarray], clip: np.ndarray, places: np.ndarray) -> None:
        for frame, place in zip(frames, places, strict=True):
            for plane, target in zip(frame, clip[:, place], strict=True):
                values = self.values[plane[self._window]]
                cv2.resize(values, self.size[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
                if self.flip:
                    cv2.flip(target, 1, dst=target)
