"""A view that the product does not have: 17 planes a frame, one for every frame. To be registered by a test:
`monkeypatch.setitem(VIEWS, TOY.name, TOY)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from pipeline.views import VIEWS, NetworkInput, View
from pipeline.views.codec import JpegCodec, Layout
from pipeline.views.size import Block
from pipeline.views.view import DECODER, Stored


@dataclass(frozen=True)
class ToySettings:
    """How it is stored.

    Args:
        shrunk: Its frames are smaller than the video's by this factor.
        planes: Values of a pixel.
    """

    shrunk: int = 2
    planes: int = 17

    @property
    def frame_codec(self) -> JpegCodec:
        return JpegCodec(95, "stacked")

    def check(self) -> None:
        pass

    def resolved(self) -> ToySettings:
        return self


class ToyExtractor:
    """Plane p of a frame is its red channel, small and rolled to the right by p pixels."""

    name: ClassVar[str] = "toy"
    layout: ClassVar[Layout] = "stacked"

    def __init__(self, settings: ToySettings, video_id: str) -> None:
        self.settings, self.video_id = settings, video_id
        self.codec = settings.frame_codec
        self.frame_shape = (settings.planes, 0, 0)
        self.seconds = {"encode": 0.0}

    @property
    def attributes(self) -> dict[str, Any]:
        return {"rolled": "plane p by p pixels"}

    @property
    def facts(self) -> dict[str, Any]:
        return {"toy_of": self.video_id}

    def add(self, block: Block) -> list[np.ndarray]:
        planes = np.stack([toy_frame(frame, self.settings) for frame in block.frames])
        self.frame_shape = planes.shape[1:]
        return [self.codec.encode_frame(frame) for frame in planes]

    def finish(self, cut: bool) -> list[np.ndarray]:
        return []


def toy_frame(frame: np.ndarray, settings: ToySettings) -> np.ndarray:
    """uint8 (P, h, w) of an RGB frame (H, W, 3)."""
    size = frame.shape[1] // settings.shrunk, frame.shape[0] // settings.shrunk
    red = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)[..., 0]
    return np.stack([np.roll(red, plane, axis=1) for plane in range(settings.planes)])


class ToyView(View):
    """Its planes change places in the mirror, as left and right joints do."""

    name = "toy"
    title = "toy planes"
    default_input = "planes"
    Settings = ToySettings

    def __init__(self, planes: int = 17) -> None:
        self.plane_names = tuple(f"t{number}" for number in range(planes))  # type: ignore[misc]
        self.mirror = np.eye(planes, planes + 1)[::-1].copy()  # type: ignore[misc]
        self.inputs = {  # type: ignore[misc]
            "planes": NetworkInput("planes", planes, image=False, affine=lambda _: np.eye(planes, planes + 1) / 255),
            "gray": NetworkInput("gray", 3, image=True, affine=lambda _: np.eye(1, planes + 1).repeat(3, axis=0)),
        }

    def extractor(self, settings: ToySettings, video_id: str) -> ToyExtractor:
        return ToyExtractor(settings, video_id)

    def described(self, settings: Stored) -> str:
        return f"toy 1/{settings['shrunk']}"

    def software(self, settings: Stored) -> tuple[str, ...]:
        return DECODER

    def measured_input(self, numbers: np.ndarray, name: str, settings: Stored) -> np.ndarray:
        return 255 * numbers.swapaxes(0, 1)

    def coloured(self, measured: np.ndarray, scale: float) -> np.ndarray:
        return np.repeat(np.rint(measured[:, 0]).astype(np.uint8)[..., None], 3, axis=-1)


TOY = ToyView()


def dask_setup(_: object) -> None:
    """Called by Dask in a worker process that this module is loaded into."""
    VIEWS[TOY.name] = TOY
