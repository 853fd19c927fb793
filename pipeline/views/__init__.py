"""Views: what is stored of a video. A view is one module (its settings and its work) and one line in VIEWS."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np

from pipeline.views.codec import FrameCodec, Layout
from pipeline.views.flow import FlowView
from pipeline.views.rgb import ImportedRgbSettings, RgbView


class ViewSettings(Protocol):
    """A frozen dataclass of plain values; part of the store's settings hash."""

    @property
    def frame_codec(self) -> FrameCodec:
        """How frames are stored."""

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


class View(StoredView, Protocol):
    """Turns the decoded frames of ONE video, block after block, into encoded frames of the store."""

    seconds: dict[str, float]  # spent, by kind of work

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU. Then several threads of a process work at once, each on views of its own."""

    def prepare(self) -> None:
        """What every worker would wait for before its first video and can be done once for all, such as compiling."""

    @property
    def facts(self) -> dict[str, Any]:
        """For the video's commit record, once all frames are added."""

    def add(self, frames: np.ndarray) -> list[np.ndarray]:
        """Streams (1-D uint8) that the next frames, uint8 RGB (n, H, W, 3), complete."""


# Classes of View; each takes its own settings, `Settings`, so their constructors have no common type.
VIEWS: dict[str, Any] = {"rgb": RgbView, "flow": FlowView}


def stored_settings(view: str, values: dict[str, Any]) -> ViewSettings:
    """The settings of a view as a store has them: of what extraction computed, or of frames that were brought."""
    kind = ImportedRgbSettings if view == "rgb" and "imported" in values else VIEWS[view].Settings
    return kind(**values)
