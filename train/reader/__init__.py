"""Executors of clip plans: the same pixels from a pool of threads, with OpenCV's pixels, or from DALI.

An executor is one module here and one line in EXECUTORS: a class of (store, threads) with `read` and `close`.
All cut exactly the window of `train.augment.pixel_window` and resize it bilinearly without a smoothing filter: `opencv`
with the pixels of cv2.resize, `dali` within one gray level of them (mean below 0.2; on a GPU nvJPEG decodes otherwise,
too: within eight, mean below one). Where plans say it, pixels are made as published: `opencv` with Pillow's, bit for
bit, `dali` resizes within two gray levels of them, and the steps on colour are the same (`bytewise`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from pipeline.store import VideoStore
from train.augment import ClipPlan
from train.reader import measuring
from train.settings import check_number
from train.settings.registry import Registry

EXECUTORS = Registry(
    "reader",
    {
        "opencv": "train.reader.opencv:OpenCVExecutor",
        "dali": "train.reader.dali:DaliExecutor",
    },
)


Group = tuple[Sequence[ClipPlan], tuple[int, int]]  # clips of one length, and the size (h, w) that they get


class Executor(ABC):
    """Turns plans into clips."""

    @abstractmethod
    def read(self, view: str, groups: Sequence[Group]) -> list[torch.Tensor]:
        """Clips of `view`, a tensor for each group. Of all that is read at once a frame of a video is decoded once, in
        however many clips it is shown.

        Logical shape (B, C, T, h, w) with any strides: C = 3 for rgb, and for images as published, of whatever view;
        the planes of every other view (flow: u, v). uint8; float32 in 0..255 for flow whose bytes are not even steps
        (`VideoStore.linear_values`).

        Raises Refusal, naming the video, for bytes that are not what was written or do not decode, IndexError for a
        frame that the view does not have, and ValueError for clips of different lengths in a group.
        """

    def run(self, view: str, plans: Sequence[ClipPlan], size: tuple[int, int]) -> torch.Tensor:
        """The clips of a single group."""
        [clips] = self.read(view, [(plans, size)])
        return clips

    @abstractmethod
    def close(self) -> None:
        """Let go of threads, files and memory."""


def create(name: str, store: VideoStore, threads: int, **settings: Any) -> Executor:
    """The named executor ("opencv", "dali", or "auto": opencv, and with a CUDA device what is faster, see `measuring`).

    threads: of this executor, for reading and decoding. On a CPU the OpenCV pool is 3.5 times as fast per core as DALI,
    whose resize takes ten times OpenCV's time there; on a GPU DALI decodes and resizes beside the training step.
    settings: of the executor; `opencv` has none.

    Raises UsageError for an unknown name or setting, a thread count below 1, and where DALI is asked for and not
    installed.
    """
    check_number("reader threads", threads, whole=True, least=1)
    if name == "auto":
        name = measuring.fastest(store, threads)
    return EXECUTORS.create(name, store=store, threads=threads, **settings)
