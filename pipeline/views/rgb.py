"""The view `rgb`: every frame as a colour JPEG, (F, H, W, 3)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from pipeline import arguments
from pipeline.views.codec import Chroma, FrameCodec, JpegCodec, Layout
from pipeline.views.size import SHORT_SIDE, Block, Quality, ShortSide, Size, checked_short_side
from pipeline.views.view import DECODER, NetworkInput, Stored, View

NAME = "rgb"


@dataclass(frozen=True)
class RgbSettings:
    """How frames are stored.

    Args:
        short_side: Frames whose shorter side is longer than this many pixels are shrunk to it; 0 keeps the size.
        size: Height and width, as [128,171]: frames are resized to exactly that, whatever their shape; instead of
            short_side.
        quality: JPEG quality, 1 to 100.
        chroma: 4:2:0 keeps colour at half the height and width, 4:4:4 at full size (for videos that have it
            themselves).
    """

    short_side: ShortSide = SHORT_SIDE
    size: Size | None = None
    quality: Quality = 95
    chroma: Chroma = "4:2:0"

    @property
    def frame_codec(self) -> JpegCodec:
        return JpegCodec(self.quality, "rgb", self.chroma)

    def check(self) -> None:
        arguments.check_fields(self, f"{NAME}.")
        checked_short_side(NAME, self.short_side, self.size)

    def resolved(self) -> RgbSettings:
        self.check()
        return replace(self, short_side=checked_short_side(NAME, self.short_side, self.size))


@dataclass(frozen=True, kw_only=True)
class ImportedRgbSettings(RgbSettings):
    """How frames are stored that were JPEGs already: byte for byte, and only those that must be encoded again as above.

    Args:
        imported: What kind of data they were brought from.
    """

    imported: str


class RgbExtractor:
    """Shrinks and encodes frames."""

    name: ClassVar[str] = NAME
    layout: ClassVar[Layout] = "rgb"

    def __init__(self, settings: RgbSettings) -> None:
        self.settings = settings
        self.codec: FrameCodec = settings.frame_codec
        self.frame_shape = (0, 0, 3)
        self.seconds = {"encode": 0.0}

    @property
    def attributes(self) -> dict[str, Any]:
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        return {}

    def add(self, block: Block) -> list[np.ndarray]:
        began = time.perf_counter()
        frames = block.resized(self.settings.short_side, self.settings.size)
        self.frame_shape = (frames.shape[1], frames.shape[2], 3)
        encoded = [self.codec.encode_frame(frame) for frame in frames]
        self.seconds["encode"] += time.perf_counter() - began
        return encoded

    def finish(self, cut: bool) -> list[np.ndarray]:
        return []


class RgbView(View):
    """The frames themselves."""

    name = NAME
    title = "RGB frames"
    plane_names = ("R", "G", "B")
    layout = "rgb"
    inputs = {"image": NetworkInput("image", 3, image=True, affine=lambda _: np.eye(3, 4))}
    default_input = "image"
    mirror = np.eye(3, 4)
    Settings = RgbSettings

    def extractor(self, settings: RgbSettings, video_id: str) -> RgbExtractor:
        return RgbExtractor(settings)

    def stored_settings(self, values: dict[str, Any]) -> RgbSettings:
        return ImportedRgbSettings(**values) if "imported" in values else RgbSettings(**values)

    def described(self, settings: Stored) -> str:
        return self.name

    def software(self, settings: Stored) -> tuple[str, ...]:
        return () if "imported" in settings else DECODER

    def files(self, encoded: np.ndarray, frame: Callable[[], np.ndarray], settings: Stored) -> dict[str, np.ndarray]:
        return {"img": encoded}

    def files_in_words(self) -> str:
        return "the stored JPEGs as img_00001.jpg and so on"

    def coloured(self, measured: np.ndarray, scale: float) -> np.ndarray:
        return measured


RGB = RgbView()
