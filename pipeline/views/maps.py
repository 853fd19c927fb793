"""What the views of people have in common: maps of bytes, 255 is sure and 0 is nobody, one stored for every frame."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from pipeline import arguments, people
from pipeline.arguments import Name, within
from pipeline.errors import counted
from pipeline.views.codec import FrameCodec, JpegCodec, Layout
from pipeline.views.size import Block, Quality, ShortSide, Size, checked_short_side, resize, stored_size
from pipeline.views.view import DECODER, NetworkInput, Stored, View

Every = Annotated[int, within(1, 1000)]
SOMEBODY = 128  # a map without a byte from here on shows nobody


@dataclass(frozen=True)
class MapSettings:
    """How maps are estimated and stored. Subclasses give the defaults.

    Args:
        estimator: A name in `pipeline.people.ESTIMATORS`; files takes what somebody has already.
        parameters: Settings of the estimator that differ from its defaults.
        running: Those of them that say how and where it computes or where files lie, not what is found. No part of the
            store: it is continued with any others.
        every: Estimated at every so-manieth frame, the first on; between them maps are interpolated, behind the last
            one it is repeated.
        short_side: Shorter side of the stored maps, where the video's is longer; 0 keeps the video's size.
        size: Height and width of the stored maps, as [128,171]; instead of short_side.
        quality: JPEG quality, 1 to 100.
    """

    estimator: Name
    short_side: ShortSide
    parameters: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Any] = field(default_factory=dict)
    every: Every = 1
    size: Size | None = None
    quality: Quality = 95

    VIEW: ClassVar[str]

    @property
    def frame_codec(self) -> JpegCodec:
        return JpegCodec(self.quality, "stacked")

    def check(self) -> None:
        arguments.check_fields(self, f"{self.VIEW}.")
        self._short_side()

    def resolved(self) -> MapSettings:
        """With all of the estimator's parameters, the digests of its models among them. Raises UsageError."""
        self.check()
        estimator = people.choose(self.VIEW, self.estimator, **{**self.parameters, **self.running})
        return dataclasses.replace(
            self,
            parameters=estimator.settings,
            running=estimator.running,
            short_side=self._short_side(),
        )

    def _short_side(self) -> int:
        """None beside an exact size, to which the default gives way; see `size.checked_short_side`."""
        default = next(one.default for one in dataclasses.fields(self) if one.name == "short_side")
        if self.size is not None and self.short_side == default:
            return 0
        return checked_short_side(self.VIEW, self.short_side, self.size)


class MapExtractor:
    """Estimates maps at every n-th frame, interpolates between them, and encodes. Subclasses say of which view."""

    name: ClassVar[str]
    planes: ClassVar[tuple[str, ...]]
    layout: ClassVar[Layout] = "stacked"

    def __init__(self, settings: MapSettings, video_id: str) -> None:
        self.settings, self.video_id = settings, video_id
        self.codec: FrameCodec = settings.frame_codec
        self.frame_shape = (len(self.planes), 0, 0)
        self.seconds = {self.name: 0.0, "encode": 0.0}
        self._shared = _estimator(self.name, settings)
        self._estimator: people.MapEstimator | None = None  # of this video
        self._seen = self._estimated = self._nobody = self._waiting = 0
        self._last: np.ndarray | None = None  # the last map that was estimated

    @property
    def attributes(self) -> dict[str, Any]:
        return {"planes": list(self.planes), "mapping": "byte / 255 is how sure it is"}

    @property
    def facts(self) -> dict[str, Any]:
        more = self._estimator.facts if self._estimator else {}
        return {f"{self.name}_estimates": {"frames": self._estimated, "nobody": self._nobody, **more}}

    def add(self, block: Block) -> list[np.ndarray]:
        began, frames = time.perf_counter(), block.frames
        if self._estimator is None:
            self._estimator = self._shared.of_video(self.video_id)
        height, width = frames.shape[1:3]
        size = stored_size(height, width, self.settings.short_side, self.settings.size)
        self.frame_shape = (len(self.planes), *size)
        numbers = np.arange(self._seen, self._seen + len(frames))
        chosen = np.flatnonzero(numbers % self.settings.every == 0)
        self._seen += len(frames)
        found = np.empty((0, len(self.planes), *size), np.uint8)
        if len(chosen):
            found = self._estimator.maps(frames[chosen], numbers[chosen] // self.settings.every, size)
        estimated = time.perf_counter()
        encoded = [self.codec.encode_frame(frame) for one in found for frame in self._up_to(one)]
        self._waiting = (self._seen - 1) % self.settings.every
        self.seconds[self.name] += estimated - began
        self.seconds["encode"] += time.perf_counter() - estimated
        return encoded

    def finish(self, cut: bool) -> list[np.ndarray]:
        if self._estimator is not None:
            self._estimator.finish(cut)
        return [self.codec.encode_frame(self._last) for _ in range(self._waiting)] if self._last is not None else []

    def _up_to(self, found: np.ndarray) -> list[np.ndarray]:
        """The maps behind the last one that was estimated, up to this one."""
        self._estimated += 1
        self._nobody += int(found.max() < SOMEBODY)
        last, self._last = self._last, found
        if last is None:
            return [found]
        shares = np.arange(1, self.settings.every) / self.settings.every
        between = [np.rint((1 - share) * last + share * found).astype(np.uint8) for share in shares]
        return [*between, found]


def told_of_nobody(views: Sequence[str], records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Of each view, in how many of the estimated frames there is nobody; from the commit records of a store's videos,
    which are gone through once."""
    frames, nobody, without = Counter[str](), Counter[str](), Counter[str]()
    for record in records:
        for view in views:
            found = record.get(f"{view}_estimates", {})
            frames[view] += found.get("frames", 0)
            nobody[view] += found.get("nobody", 0)
            without[view] += found.get("frames", 0) > 0 and found["nobody"] == found["frames"]
    shares = {view: f"{100 * nobody[view] / frames[view]:.0f} %" if frames[view] else "none" for view in views}
    return {
        view: f"nobody in {shares[view]} of {frames[view]:,} frames that were estimated, and in no frame of"
        f" {counted(without[view], 'video')}"
        for view in views
    }


def _estimator(view: str, settings: MapSettings) -> people.MapEstimator:
    """One for all videos of a process, which keeps its networks."""
    with _creating:
        return _created(view, settings.estimator, json.dumps({**settings.parameters, **settings.running}))


_creating = threading.Lock()


@functools.lru_cache(maxsize=4)
def _created(view: str, name: str, parameters: str) -> people.MapEstimator:
    return people.create(view, name, **json.loads(parameters))


class MapView(View):
    """A view of people. Its only input is its planes, 0 to 1."""

    default_input = "maps"
    Settings: ClassVar[type[MapSettings]]
    Extractor: ClassVar[type[MapExtractor]]

    def __init__(self) -> None:
        planes = len(self.plane_names)
        self.inputs = {  # type: ignore[misc]
            "maps": NetworkInput("maps", planes, image=False, affine=lambda _: np.eye(planes, planes + 1) / 255)
        }

    def extractor(self, settings: MapSettings, video_id: str) -> MapExtractor:
        return self.Extractor(settings, video_id)

    def prepare(self, settings: MapSettings) -> None:
        _estimator(self.name, settings)

    def try_out(self, settings: MapSettings) -> None:
        _estimator(self.name, settings)  # another machine may lack its models, or the folder of its files

    def described(self, settings: Stored) -> str:
        return f"{self.name} ({settings['estimator']})"

    def software(self, settings: Stored) -> tuple[str, ...]:
        return (*DECODER, *people.software(self.name, settings["estimator"]))

    def measured_input(self, numbers: np.ndarray, name: str, settings: Stored) -> np.ndarray:
        return 255 * numbers.swapaxes(0, 1)

    def drawn_over(self, picture: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Over the frames, dimmed and gray, so that the colours are those of the maps."""
        height, width = frames.shape[1:3]
        dim = np.repeat(frames.mean(axis=-1, keepdims=True) / 2, 3, axis=-1)
        over = resize(picture, 0, (height, width)).astype(np.float32)
        return np.rint(dim + over * (255 - dim) / 255).astype(np.uint8)
