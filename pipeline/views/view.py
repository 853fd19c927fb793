"""What a view is: all that the project knows of one kind of thing that is stored of a video. One instance a module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from pipeline.views.codec import FrameCodec, Layout
from pipeline.views.size import Block

DECODER = ("av",)  # the distribution that decides what is decoded from a video's file
SIZES = {"short_side", "size"}
Stored = Mapping[str, Any]  # the settings of a view as a store holds them: its group in `VideoStore.settings`


class ViewSettings(Protocol):
    """A frozen dataclass of plain values; part of the store's settings hash."""

    @property
    def frame_codec(self) -> FrameCodec:
        """How frames are stored."""

    def check(self) -> None:
        """Raises UsageError for values that cannot be meant. Types are checked before."""

    def resolved(self) -> ViewSettings:
        """With every choice spelled out and every value checked. Raises UsageError."""


class StoredView(Protocol):
    """What the writer must know of a view of ONE video to store its encoded frames."""

    name: ClassVar[str]
    layout: ClassVar[Layout]
    codec: FrameCodec  # how its frames are stored
    frame_shape: tuple[int, int, int]  # of one stored frame; known after the first block

    @property
    def attributes(self) -> dict[str, Any]:
        """For the array's zarr.json, so that any Zarr client can tell what the bytes mean."""


class Extractor(StoredView, Protocol):
    """Turns the decoded frames of ONE video, block after block, into encoded frames of the store."""

    seconds: dict[str, float]  # spent, by kind of work

    @property
    def facts(self) -> dict[str, Any]:
        """For the video's commit record, once all frames are added."""

    def add(self, block: Block) -> list[np.ndarray]:
        """Encoded frames (1-D uint8) that the next block of frames completes."""

    def finish(self, cut: bool) -> list[np.ndarray]:
        """Those that are left once all frames are added. cut: the video has, or may have, more frames than that."""


@dataclass(frozen=True)
class NetworkInput:
    """One way in which networks are given a view.

    channels: D, of the network's input. image: what `affine` gives is RGB in 0..255 (D = 3), yet to be jittered,
    grayed, blurred and normalised as frames are; otherwise it is the network's input. affine: from the view's settings
    in the store, the map from the P stored bytes of a pixel to the D numbers, float64 (D, P + 1): `map[:, :P] @ bytes +
    map[:, P]`.
    """

    name: str
    channels: int
    image: bool
    affine: Callable[[Stored], np.ndarray]


class View(ABC):
    """One kind of thing that is stored of a video.

    name: of its array, its options and its settings. title: for people. plane_names: of the P values of a pixel.
    per_pair: stored frame t belongs to the frames t and t+1 of the video, so that there is one less; otherwise to frame
    t. layout: of a stored frame, see `codec.Layout`. inputs: how networks may be given it, by name. mirror: what
    becomes of a pixel's bytes when the frame is turned left to right, beside its place: float64 (P, P + 1). unit: of
    what `measured` gives, for people. scaled: whether pictures of it depend on a scale. colours_in_words: what their
    colours mean, where they are not those of things. Settings: a frozen dataclass, `ViewSettings`, whose fields are the
    options of the command `extract`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    plane_names: ClassVar[tuple[str, ...]]
    per_pair: ClassVar[bool] = False
    layout: ClassVar[Layout] = "stacked"
    inputs: ClassVar[Mapping[str, NetworkInput]]
    default_input: ClassVar[str]
    mirror: ClassVar[np.ndarray]
    unit: ClassVar[str] = ""
    scaled: ClassVar[bool] = False
    colours_in_words: ClassVar[str] = ""
    Settings: ClassVar[type[Any]]

    @property
    def planes(self) -> int:
        """P, the values of a pixel."""
        return len(self.plane_names)

    def stored_frames(self, length: int) -> int:
        """How many frames it has of a video of `length` frames."""
        return max(0, length - self.per_pair)

    def frame_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of its frames, from the shape of its array or of a frame."""
        height, width = shape[-3:-1] if self.layout == "rgb" else shape[-2:]
        return height, width

    @abstractmethod
    def extractor(self, settings: Any, video_id: str) -> Extractor:
        """Fresh, for one video. settings: an instance of `Settings`, resolved."""

    def prepare(self, settings: Any) -> None:  # noqa: B027 - most have nothing to prepare
        """What each worker of this machine would wait for before its first video and can be done once, as compiling."""

    def try_out(self, settings: Any) -> None:  # noqa: B027 - most need nothing that may be missing
        """Compute a little of it in this process, where that may fail whatever the video. Raises Refusal."""

    def on_gpu(self, settings: Any) -> bool:
        """Whether it computes on a GPU here. Then several threads of a process work at once, each on extractors of its
        own.

        Raises UsageError where it cannot be computed here.
        """
        return False

    def stored_settings(self, values: dict[str, Any]) -> ViewSettings:
        """The settings that a store has, as it has them: of what extraction computed, or of what was brought."""
        return self.Settings(**values)

    def continued(self, asked: ViewSettings, stored: ViewSettings, given: Collection[str]) -> ViewSettings:
        """What is asked of a store that has the view, whose settings stand where nothing else was `given`, by the names
        of the fields. A size in pixels and a short side are one choice."""
        own = {*given, *(SIZES if SIZES & set(given) else ())}
        return replace(stored, **{name: getattr(asked, name) for name in own})  # type: ignore[type-var]

    @abstractmethod
    def described(self, settings: Stored) -> str:
        """What is stored, in a few words, such as "tvl1-cpu flow"."""

    @abstractmethod
    def software(self, settings: Stored) -> tuple[str, ...]:
        """Distributions, beside NumPy and OpenCV, whose version decides what is stored."""

    def values(self, settings: Stored) -> np.ndarray | None:
        """What each byte stands for in steps of equal size, in 0..255: float32 (256,); None where it is the byte
        itself."""
        return None

    def measured(self, frames: np.ndarray, settings: Stored) -> np.ndarray:
        """What stored frames, uint8 (T, ...), stand for, in the unit of the view: the bytes, unless it has one."""
        return frames

    def measured_input(self, numbers: np.ndarray, name: str, settings: Stored) -> np.ndarray:
        """The same, from what a network is given, (D, T, h, w), by an input that is not an image."""
        raise NotImplementedError(f"input {name!r} of the view {self.name}")

    def scale(self, measured: np.ndarray) -> float:
        """Which value gets full colour where all this is shown on one scale; 0 where pictures are not `scaled`."""
        return 0.0

    def scale_in_words(self, scale: float) -> str:
        """For a caption; empty where pictures are not `scaled`."""
        return ""

    @abstractmethod
    def coloured(self, measured: np.ndarray, scale: float) -> np.ndarray:
        """`measured` for people: RGB uint8 (T, H, W, 3)."""

    def drawn_over(self, picture: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """What `coloured` gave, (T, h, w, 3), as people look at it beside the frames that it belongs to, RGB uint8 (T,
        H, W, 3): by itself, unless it means little without them."""
        return picture

    def picture(self, frames: np.ndarray, settings: Stored) -> np.ndarray:
        """Stored frames, uint8 (T, ...), for people, on their own scale: RGB uint8 (T, H, W, 3)."""
        measured = self.measured(frames, settings)
        return self.coloured(measured, self.scale(measured))

    def files(self, encoded: np.ndarray, frame: Callable[[], np.ndarray], settings: Stored) -> dict[str, np.ndarray]:
        """One stored frame as files for other tools, by the beginning of their names; frame() decodes it, uint8."""
        return {self.name: encoded}

    def files_in_words(self) -> str:
        """What those files are."""
        return f"the stored images as {self.name}_00001.jpg and so on"

    def key(self, size: int) -> np.ndarray | None:
        """What the colours mean, RGB uint8 (size, size, 3); None where they are the colours of things."""
        return None
