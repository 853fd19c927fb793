"""What every flow estimator takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import cv2
import numpy as np

from pipeline import called
from pipeline.estimator import Estimator
from pipeline.flow.quantisation import Quantiser, bytes_of

LARGEST = 10_000  # of the numbers that estimators take, as iterations or pixels
BLACK = np.zeros((1, 24, 24), np.uint8)  # large enough for a pyramid of two levels, so that every kernel runs


class FlowEstimator(Estimator, ABC):
    """Dense optical flow between pairs of frames. Subclasses are dataclasses whose fields are the settings."""

    sees_colour: ClassVar[bool] = True  # or whether gray frames give the same flow as RGB ones

    device: str | None = "cpu"  # as PyTorch calls it; this and the next are fields where there is a choice
    batch_size: int = 1  # pairs that it gains from computing at once
    streams: int = 1  # batches that it computes at the same time
    bytes_back: bool = False  # whether it makes bytes of flow itself, where it computes

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU in this process."""
        return str(self.device).startswith("cuda")

    @property
    def mixes_sizes(self) -> bool:
        """Whether pairs of a batch may be of several sizes."""
        return False

    def prepare(self) -> None:
        """Do what the first pair would wait for and other processes can share, such as compiling."""

    def try_out(self) -> None:
        """Compute the flow of a pair, whatever it takes. Raises what keeps it from computing any."""
        self.estimate(BLACK, BLACK)

    def remedy(self) -> str:
        """What to do where it computes no flow at all in this process."""
        if self.on_gpu:
            return "see what `nvidia-smi` says: the driver must know this version of CUDA, and the GPU have memory free"
        return f"see what the error says of the installation, or take another {called.option('flow.estimator')}"

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow from each frame of `first` to the frame of `second` with the same index.

        first, second: uint8 RGB (N, H, W, 3) or gray (N, H, W). Returns float32 (N, 2, H, W), in pixels: channel 0 is u
        (right), channel 1 is v (down). The flow of a pair does not depend on the others. Raises ValueError for other
        types, shapes or unequal sizes.
        """
        check_frames(first, second)
        if not len(first):
            return np.empty((0, 2, *first.shape[1:3]), np.float32)
        return self.batch(first, second)

    @abstractmethod
    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """`estimate`, for frames that are known to be right and at least one pair."""

    def launch(self, first: np.ndarray, second: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin `batch`; what is returned waits for the flow and gives it, and may be called from any thread.

        The frames may change once this returns. Only one thread launches; it may do so before an earlier batch is
        collected.
        """
        flow = self.batch(first, second)
        return lambda: flow

    def launch_groups(
        self, groups: Sequence[tuple[np.ndarray, np.ndarray]], quantise: Quantiser | None = None
    ) -> Callable[[], list[np.ndarray]]:
        """`launch` of several callers' pairs, first and second frames of each: the flow of each, or its bytes. Their
        sizes are equal unless it `mixes_sizes`; `quantise` is for those with `bytes_back`."""
        first, second = (np.concatenate(each) for each in zip(*groups, strict=True))
        collect, ends = self.launch(first, second), np.cumsum([len(each) for each, _ in groups])[:-1]
        return lambda: np.split(collect(), ends)

    def quantised(self, first: np.ndarray, second: np.ndarray, quantise: Quantiser) -> np.ndarray:
        """The flow that `estimate` gives as bytes. Raises ValueError where it is not finite, too."""
        return bytes_of(self.estimate(first, second), quantise, self.name)


class PairEstimator(FlowEstimator):
    """An estimator that takes gray frames, one pair after the other."""

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        flow = np.empty((len(first), 2, *first.shape[1:3]), np.float32)
        for index, (one, two) in enumerate(zip(gray(first), gray(second), strict=True)):
            flow[index] = self.pair(one, two).transpose(2, 0, 1)
        return flow

    @abstractmethod
    def pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow of one pair of gray uint8 frames (H, W), as (H, W, 2) float32."""


def check_frames(first: np.ndarray, second: np.ndarray) -> None:
    """Raise ValueError for what no estimator takes; see `FlowEstimator.estimate`."""
    if first.dtype != np.uint8 or second.dtype != np.uint8:
        raise ValueError(f"frames must be uint8, not {first.dtype} and {second.dtype}")
    if first.shape != second.shape:
        raise ValueError(f"the frames of a pair differ in shape: {first.shape} and {second.shape}")
    if first.ndim not in (3, 4) or (first.ndim == 4 and first.shape[-1] != 3) or 0 in first.shape[1:]:
        raise ValueError(f"frames must be (N, H, W, 3) or (N, H, W), not {first.shape}")


def require_numbers(settings: Any) -> None:
    """Raise TypeError if a field of this dataclass that is declared `float` holds no number from 0 on, or one declared
    `int` no whole number above 0, or one that is absurdly large."""
    for field in fields(settings):
        value, kind = getattr(settings, field.name), str(field.type).removesuffix(" | None")
        if not field.init or kind not in ("int", "float") or (value is None and kind != field.type):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{field.name} {value!r} is not a number")
        if kind == "int" and (not isinstance(value, int) or value < 1):
            raise TypeError(f"{field.name} {value!r} is not a whole number above 0")
        if not 0 <= value <= LARGEST:
            raise TypeError(f"{field.name} {value!r} is not between 0 and {LARGEST}")


def gray(frames: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) of RGB (N, H, W, 3) or gray frames."""
    if frames.ndim == 3:
        return frames
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
