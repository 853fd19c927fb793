"""A decoded frame as RGB, upright and of one size: by FFmpeg's own filters, those that its command line puts there."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

Matrix = tuple[
    int, ...
]  # nine numbers, row by row, as FFmpeg's av_display_rotation_get takes them; () where there is none
_UPRIGHT: Matrix = (1, 0, 0, 0, 1, 0, 0, 0, 1)
Kind = tuple[int, int, str, int, int, Matrix]  # width, height, pixel format, colour matrix, range, display matrix


class ToRgb:
    """Converts the frames of ONE video, in order; all come out upright and at the size of the first.

    The same bytes as `ffmpeg -i VIDEO -pix_fmt rgb24 -f rawvideo -` gives, by the same filters: colour matrix and range
    as tagged (BT.601 and limited where nothing is), chroma where the file says it sits, turned and mirrored by the
    display matrix, a frame of another size scaled bicubically. PyAV's VideoReformatter does not heed where chroma sits
    (4:2:0 of 10 bits came out up to 127 gray levels off at edges, 1 to 3 in the mean) and converts interlaced frames
    field by field.
    """

    def __init__(self) -> None:
        self.size = ""  # of the first frame, as FFmpeg spells it
        self.kind: Kind | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3): FFmpeg's own memory, whose rows may be padded. Raises av.FFmpegError."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, _matrix(frame))
        if kind != self.kind:
            self._make_filters(kind)
        self.source.push(frame)
        converted = self.sink.pull()
        assert isinstance(converted, VideoFrame)
        (plane,) = converted.planes
        self.size = self.size or f"{plane.width}:{plane.height}"
        return np.ndarray((plane.height, plane.width, 3), np.uint8, memoryview(plane), strides=(plane.line_size, 3, 1))

    def _make_filters(self, kind: Kind) -> None:
        width, height, pixels, colorspace, color_range, matrix = kind
        self.graph = Graph()  # owns the filters
        self.graph.threads = 1  # extraction runs one process per core
        tags = {"colorspace": str(colorspace), "range": str(color_range)}
        size = {"video_size": f"{width}x{height}", "pixel_aspect": "1/1", "time_base": "1/1"}
        self.source = self.graph.add("buffer", pix_fmt=pixels, **size, **tags)
        self.sink = self.graph.add("buffersink")
        between = [*_turns(matrix), ("scale", self.size or None), ("format", "rgb24")]
        filters = [self.graph.add(name, arguments) for name, arguments in between]
        self.graph.link_nodes(self.source, *filters, self.sink).configure()
        self.kind = kind


def _matrix(frame: VideoFrame) -> Matrix:
    attached = frame.side_data
    if not len(attached):  # as a rule; looking for one takes as long as converting a small frame
        return ()
    stored: Any = attached.get("DISPLAYMATRIX")
    return struct.unpack("=9i", bytes(stored)) if stored else ()


def _unknown(cls: type[Type], value: int) -> Type:
    """A kind of side data that PyAV has no name for."""
    kind = object.__new__(cls)
    kind._name_ = f"UNKNOWN_{value}"
    kind._value_ = value  # type: ignore[assignment]  # the stubs do not say that members are numbers
    return kind


# FFmpeg attaches kinds of side data that PyAV 18 does not list, such as the Exif of a JPEG; it then refuses to give
# any.
Type._missing_ = classmethod(_unknown)  # type: ignore[assignment]


def _turns(matrix: Matrix) -> Iterator[tuple[str, str | None]]:
    """The filters that FFmpeg's command line puts in for a display matrix, in its words and with its limits."""
    a, b, _, c, d, *_ = matrix or _UPRIGHT
    across, along = math.hypot(a, c), math.hypot(b, d)
    if not across or not along:
        return
    degrees = round(math.degrees(math.atan2(b / along, a / across))) % 360  # clockwise
    if degrees == 90:
        yield "transpose", "cclock_flip" if c > 0 else "clock"
    elif degrees == 180:
        if a < 0:
            yield "hflip", None
        if d < 0:
            yield "vflip", None
    elif degrees == 270:
        yield "transpose", "clock_flip" if c < 0 else "cclock"
    elif degrees > 1:
        yield "rotate", f"{degrees}*PI/180"
    elif degrees == 0 and d < 0:
        yield "vflip", None
