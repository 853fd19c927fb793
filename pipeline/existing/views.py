"""The views of videos that are brought: pictures of others in, encoded frames of the store out."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import cv2
import numpy as np

from pipeline.existing import jpegs
from pipeline.video.decode import Undecodable
from pipeline.views.codec import FrameCodec, Layout
from pipeline.views.cuts import CutFinder
from pipeline.views.flow import FLOW, FlowSettings
from pipeline.views.rgb import RGB


class BroughtFrames:
    """Frames as they are; what is not a plain JPEG of the first frame's size is encoded again, scaled to it if need be.

    Encoding again costs 0.26 gray levels on average (40 frames of real clips as progressive JPEGs of quality 95 and
    chroma 4:2:0; storing their colour at full size would cost 0.33, and a tenth more bytes).
    """

    name: ClassVar[str] = RGB.name
    layout: ClassVar[Layout] = RGB.layout

    def __init__(self, codec: FrameCodec, find_cuts: bool) -> None:
        self.codec = codec
        self.frame_shape = (0, 0, 3)
        self.reencoded = 0
        self.cuts = CutFinder()
        self._find_cuts = find_cuts
        self._last: np.ndarray | None = None
        self._count = 0
        self._origin = Origin()

    @property
    def attributes(self) -> dict[str, Any]:
        return {}

    @property
    def identity(self) -> dict[str, Any]:
        return self._origin.facts

    def add(self, picture: tuple[bytes, ...]) -> np.ndarray:
        """The next frame encoded. Raises Undecodable."""
        (jpeg,) = picture
        self._origin.add(jpeg)
        frame = jpegs.frame(jpeg, f"frame {self._count}")
        keep = jpegs.is_plain(jpeg)
        if self._last is None:
            self.frame_shape = (frame.shape[0], frame.shape[1], 3)
        elif frame.shape != self.frame_shape:
            height, width, _ = self.frame_shape
            frame, keep = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), False
        if self._find_cuts:
            self.cuts.add(frame[None] if self._last is None else np.stack([self._last, frame]))
        self._last = frame
        self._count += 1
        if keep:
            return np.frombuffer(jpeg, np.uint8)
        self.reencoded += 1
        return self.codec.encode_frame(frame)


class BroughtFlow:
    """Flow pictures of others, decoded and encoded as ours: u over v in one gray JPEG.

    The bytes mean the same before and after; what is lost is lost to the second JPEG. Measured with TV-L1 flow of 40
    pairs of real clips, short side 256, bound 20: from CoCLR's pictures 0.021 px on average (0.035 in the worst
    picture), so that the mean error of what is stored against the estimator's flow rises from 0.0942 to 0.0947 px; from
    denseflow's (gray, quality 95) 0.002 px, from 0.0637 to 0.0640. Flow that is extracted here has 0.0637.
    """

    name: ClassVar[str] = FLOW.name
    layout: ClassVar[Layout] = FLOW.layout

    def __init__(self, settings: FlowSettings, frame_size: tuple[int, ...]) -> None:
        """frame_size: height and width of the frames; flow has its own, but there is none in a video of one frame."""
        self.codec = settings.frame_codec
        self.attributes = settings.attributes
        self.frame_shape = (2, frame_size[0], frame_size[1])
        self._count = 0
        self._origin = Origin()

    @property
    def identity(self) -> dict[str, Any]:
        return self._origin.facts

    def add(self, picture: tuple[bytes, ...]) -> np.ndarray:
        """The next pair's flow encoded. Raises Undecodable; also for another size, as flow counts in pixels."""
        for jpeg in picture:
            self._origin.add(jpeg)
        flow = jpegs.planes(picture, f"flow {self._count}")
        if self._count == 0:
            self.frame_shape = (2, flow.shape[1], flow.shape[2])
        elif flow.shape != self.frame_shape:
            before, now = (f"{width}x{height}" for _, height, width in (self.frame_shape, flow.shape))
            raise Undecodable(f"flow {self._count} is {now}, those before it are {before}", "decode")
        self._count += 1
        return self.codec.encode_frame(flow)


class Origin:
    """Size and digest of all pictures of a video, one after the other."""

    def __init__(self) -> None:
        self._bytes, self._digest = 0, hashlib.sha256()

    def add(self, jpeg: bytes) -> None:
        self._bytes += len(jpeg)
        self._digest.update(jpeg)

    @property
    def facts(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}
