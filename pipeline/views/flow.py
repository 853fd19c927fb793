"""The view `flow`: (F-1, 2, H, W); flow[t] maps frame t to t+1."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline import arguments, flow
from pipeline.arguments import Bound, Name
from pipeline.errors import Refusal
from pipeline.flow.gathering import Gathering
from pipeline.flow.quantisation import Mapping, Quantiser, dequantise, linear_values
from pipeline.views import colour
from pipeline.views.codec import FrameCodec, JpegCodec, Layout, ZstdFrames, encode
from pipeline.views.cuts import CutFinder
from pipeline.views.size import SHORT_SIDE, Block, Quality, ShortSide, Size, checked_short_side
from pipeline.views.view import DECODER, NetworkInput, Stored, View

Codec = Literal["jpeg", "zstd"]
NAME = "flow"
IMPORTED = "imported"  # in place of an estimator, of flow that was brought
PAPERS_BOUND = 20.0  # pixels
PAPERS_QUALITY = 95  # denseflow leaves it to OpenCV, whose default this is
FLOW_SCALE = 2.5  # pixels that become 1 at the network's input: 1 px -> 0.4, as in the small-scale study


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and stored.

    Args:
        estimator: tvl1 (the fastest TV-L1 that works here), another name in `pipeline.flow.ESTIMATORS`, or
            ptlflow:NAME.
        parameters: Settings of the estimator that differ from its defaults.
        running: Those of them that say how and where it computes, not what the flow is, such as batch_size, device and
            where weights lie; they may be given as parameters, too. No part of the store: it is continued with any
            others.
        short_side: Flow is computed at this size and stored in pixels of it; 0 keeps the video's size.
        size: Height and width, as [128,171]: flow is computed at exactly that, whatever the video's shape; instead of
            short_side.
        bound: Flow is clipped to -bound..bound pixels before it becomes bytes.
        mapping: linear is the papers' mapping to bytes; sqrt has finer steps for slow motion, with a third of the
            error, and makes files nearly twice as large.
        codec: jpeg, or zstd, which keeps every byte (twice the size of JPEG at quality 95).
        quality: JPEG quality, 1 to 100.
    """

    estimator: Name = "tvl1"
    parameters: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Any] = field(default_factory=dict)
    short_side: ShortSide = SHORT_SIDE
    size: Size | None = None
    bound: Bound = 20.0
    mapping: Mapping = "linear"
    codec: Codec = "jpeg"
    quality: Quality = 95

    @property
    def frame_codec(self) -> FrameCodec:
        return ZstdFrames() if self.codec == "zstd" else JpegCodec(self.quality, "stacked")

    @property
    def attributes(self) -> dict[str, Any]:
        """For the array's zarr.json: what the bytes mean."""
        flow = {"linear": "clipped", "sqrt": "sign(clipped) * sqrt(abs(clipped) * bound)"}[self.mapping]
        mapping = f"byte = round(({flow} + bound) * 255 / (2 * bound)), clipped = clip(pixels, -bound, bound)"
        return {"bound": self.bound, "mapping": mapping, "planes": ["u (right)", "v (down)"], "unit": "pixel"}

    def check(self) -> None:
        arguments.check_fields(self, f"{NAME}.")
        checked_short_side(NAME, self.short_side, self.size)

    def resolved(self) -> FlowSettings:
        """With the estimator's real name and all its parameters. Whether it works here is not asked: a worker may have
        the GPU that this machine lacks, and finds its own device."""
        self.check()
        estimator = flow.choose(self.estimator, **{**self.parameters, **self.running})
        return dataclasses.replace(
            self,
            estimator=estimator.name,
            parameters=estimator.settings,
            running=estimator.running,
            short_side=checked_short_side(NAME, self.short_side, self.size),
        )


class FlowExtractor:
    """Estimates, quantises and encodes flow; carries the last frame of a block over to the next one."""

    name: ClassVar[str] = NAME
    layout: ClassVar[Layout] = "stacked"

    def __init__(self, settings: FlowSettings) -> None:
        self.settings = settings
        self.codec = settings.frame_codec
        self.estimator = _estimator(settings)
        self.cuts = CutFinder()
        self.last: np.ndarray | None = None
        self.frame_shape = (2, 0, 0)
        self.seconds = {"flow": 0.0, "encode": 0.0}

    @property
    def attributes(self) -> dict[str, Any]:
        return self.settings.attributes

    @property
    def facts(self) -> dict[str, Any]:
        return {"cuts": self.cuts.found()}

    def add(self, block: Block) -> list[np.ndarray]:
        began = time.perf_counter()
        frames = block.resized(self.settings.short_side, self.settings.size)
        self.frame_shape = (2, frames.shape[1], frames.shape[2])
        if self.last is not None:
            frames = np.concatenate([self.last[None], frames])
        self.last = frames[-1]
        self.cuts.add(frames)
        quantise = Quantiser(self.settings.bound, self.settings.mapping)
        found = self.estimator.quantised(frames[:-1], frames[1:], quantise)
        estimated = time.perf_counter()
        encoded = [self.codec.encode_frame(values) for values in found]
        self.seconds["flow"] += estimated - began
        self.seconds["encode"] += time.perf_counter() - estimated
        return encoded

    def finish(self, cut: bool) -> list[np.ndarray]:
        return []


def _estimator(settings: FlowSettings) -> flow.FlowEstimator | Gathering:
    """One for all videos of a process: networks keep their weights in it, GPU kernels their recorded launches."""
    with _creating:  # or each thread of a process would make its own
        return _created(settings.estimator, json.dumps({**settings.parameters, **settings.running}))


_creating = threading.Lock()


@functools.lru_cache(maxsize=1)
def _created(name: str, parameters: str) -> flow.FlowEstimator | Gathering:
    estimator = flow.create(name, **json.loads(parameters))
    return Gathering(estimator) if estimator.on_gpu else estimator


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _pixels(settings: Stored) -> np.ndarray:
    bound = settings["bound"] / FLOW_SCALE
    return np.column_stack([2 * bound / 255 * np.eye(2), np.full(2, -bound)])


def _signed(_: Stored) -> np.ndarray:
    return np.column_stack([np.eye(2) / 255, np.full(2, -0.5)])


def _image(_: Stored) -> np.ndarray:
    return np.array([[0.0, 0, 128], [0, 1, 0], [1, 0, 0]])


def _u(_: Stored) -> np.ndarray:
    return np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0]])


class FlowView(View):
    """Optical flow in pixels of the stored size, u (right) and v (down).

    Inputs: pixels, u and v in pixels, divided by FLOW_SCALE. signed, v / 255 - .5 of the bytes v (CoCon). image, (128,
    v, u), the channels that the papers' flow JPEGs hold (CoCLR, ViCC, GOCA); u, (u, u, u) (SLIC): these two are images
    in bytes. What moved right moves left in the mirror: u becomes 255 - u.
    """

    name = NAME
    title = "motion (optical flow)"
    colours_in_words = "colour is direction, strength is speed, white is rest"
    plane_names = ("u", "v")
    per_pair = True
    unit = "pixels"
    scaled = True
    inputs = {
        "pixels": NetworkInput("pixels", 2, image=False, affine=_pixels),
        "image": NetworkInput("image", 3, image=True, affine=_image),
        "u": NetworkInput("u", 3, image=True, affine=_u),
        "signed": NetworkInput("signed", 2, image=False, affine=_signed),
    }
    default_input = "pixels"
    mirror = np.array([[-1.0, 0, 255], [0, 1, 0]])
    Settings = FlowSettings

    def continued(self, asked: FlowSettings, stored: FlowSettings, given: Collection[str]) -> FlowSettings:  # type: ignore[override]
        if stored.estimator == IMPORTED:
            return asked
        own = {*given, "running"}  # which no store holds
        if "estimator" in own and flow.choose(asked.estimator, **asked.running).name != stored.estimator:
            own.add("parameters")  # of another estimator the stored ones say nothing
        return super().continued(asked, stored, own)  # type: ignore[return-value]

    def extractor(self, settings: FlowSettings, video_id: str) -> FlowExtractor:
        return FlowExtractor(settings)

    def prepare(self, settings: FlowSettings) -> None:
        _estimator(settings).prepare()

    def try_out(self, settings: FlowSettings) -> None:
        estimator = _estimator(settings)
        try:
            estimator.try_out()
        except Exception as error:
            what = f"{settings.estimator} computes no flow here, not even of black frames: {_in_a_line(error)}"
            raise Refusal(what, remedy=estimator.remedy()) from error

    def on_gpu(self, settings: FlowSettings) -> bool:
        return isinstance(_estimator(settings), Gathering)

    def described(self, settings: Stored) -> str:
        return f"{settings['estimator']} flow"

    def software(self, settings: Stored) -> tuple[str, ...]:
        estimator = settings["estimator"]
        return () if estimator == IMPORTED else (*DECODER, *flow.software(estimator))

    def values(self, settings: Stored) -> np.ndarray | None:
        return linear_values(settings["mapping"])

    def measured(self, frames: np.ndarray, settings: Stored) -> np.ndarray:
        """Flow in pixels, float32 (T, 2, H, W)."""
        return dequantise(frames, settings["bound"], settings["mapping"])

    def measured_input(self, numbers: np.ndarray, name: str, settings: Stored) -> np.ndarray:
        pixels = {"pixels": FLOW_SCALE, "signed": 2 * settings["bound"]}[name]
        return pixels * numbers.swapaxes(0, 1)

    def scale(self, measured: np.ndarray) -> float:
        """The length in pixels that gets full colour."""
        return colour.full_colour(measured)

    def scale_in_words(self, scale: float) -> str:
        return f"full colour at {scale:.1f} px"

    def coloured(self, measured: np.ndarray, scale: float) -> np.ndarray:
        return colour.colour_code(measured, scale)

    def files(self, encoded: np.ndarray, frame: Callable[[], np.ndarray], settings: Stored) -> dict[str, np.ndarray]:
        """In denseflow's layout: u and v, gray JPEGs in the papers' mapping."""
        values = flow.quantise(self.measured(frame(), settings), PAPERS_BOUND)
        return {
            f"flow_{axis}": encode(plane[None], "stacked", PAPERS_QUALITY)
            for axis, plane in zip("xy", values, strict=True)
        }

    def files_in_words(self) -> str:
        names = "flow_x_00001.jpg, flow_y_00001.jpg and so on"
        return f"as {names}, bound {PAPERS_BOUND:g} px, JPEG quality {PAPERS_QUALITY}"

    def key(self, size: int) -> np.ndarray | None:
        return colour.key(size)


FLOW = FlowView()
