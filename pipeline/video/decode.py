"""Decode a video with PyAV: every frame once, or at a chosen rate, in presentation order, in bounded blocks."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.errors import UsageError
from pipeline.video.conversion import ToRgb
from pipeline.video.opening import (
    A_PICTURE,
    PICTURES,
    Undecodable,
    declared_duration,
    in_words,
    open_container,
    refuse_huge,
    video_stream,
)

BLOCK_BYTES = 48 * 2**20  # of decoded frames held at once; a 2-hour film passes through in as little memory as a clip
MAX_BLOCK_FRAMES = 64
LONGEST_STILL = 600  # seconds between two frames; a broken time beyond it would repeat a frame without end
MOST_FPS = 1000  # that are taken: each frame of the file is given that often in a second
LATE_ENDS = Fraction(
    2, 100
)  # of the declared duration, and two frames' time, may lack at the end before a file counts as cut off
UNGUARDED: AbstractContextManager[None] = contextlib.nullcontext()


@dataclass(frozen=True)
class Probe:
    """What a container says of its video stream before anything is decoded; sizes before rotation."""

    width: int
    height: int
    fps: float
    codec: str
    duration: float  # seconds, 0 when unknown
    frames: int  # as claimed by the container, 0 when unknown


@dataclass(frozen=True)
class DecodeSettings:
    """Which frames of a video are taken.

    Args:
        fps: Take frames at this rate instead of the file's own: output frame k is the source frame nearest to k/fps
            seconds after the first (the earlier one of two as near), up to the time of the last. A higher rate than the
            file's repeats frames. The store then has this rate.
        max_frames: Take only the first so many frames, counted at `fps` where that is given. What comes after them is
            not decoded, so damage there is not noticed.
        accept_partial: Store what can be decoded of a file that breaks off, up to the damage, and say so in its record;
            by default such a file lands in quarantine.
    """

    fps: float | None = None
    max_frames: int | None = None
    accept_partial: bool = False

    def check(self) -> None:
        """Raises UsageError for values that cannot be meant."""
        if self.fps is not None and not 0 < self.fps <= MOST_FPS:
            raise UsageError(
                f"decode fps {self.fps} is not above 0 and at most {MOST_FPS}", remedy="null keeps the file's own rate"
            )
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"decode max_frames {self.max_frames} is below 1", remedy="null takes all frames")

    def resolved(self) -> DecodeSettings:
        """Checked, numbers in one spelling. Raises UsageError."""
        self.check()
        return replace(self, fps=None if self.fps is None else float(self.fps))


class OpenVideo(AbstractContextManager["OpenVideo"]):
    """A video file, open: what its header says and, once, its frames. Use in a `with`; raises Undecodable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.container = open_container(path)
        try:
            self.stream = video_stream(self.container)
            refuse_huge(path, self.stream)
        except Undecodable:
            self.container.close()
            raise
        self.header = _header(self.container, self.stream)

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def blocks(
        self,
        settings: DecodeSettings = DecodeSettings(),
        max_block: int = MAX_BLOCK_FRAMES,
        guard: AbstractContextManager[None] = UNGUARDED,
    ) -> Iterator[np.ndarray]:
        """Blocks of RGB frames, uint8 (n, H, W, 3), 1 <= n <= max_block, as FFmpeg's command line gives them: see
        ToRgb.

        All frames have the size of the first; a file that changes size in the middle is scaled to it.
        Raises Undecodable at the first damaged frame, when there is no frame, and when the frames stop well before the
        duration that the file declares: a part of a video is never taken for the whole. With `accept_partial` it raises
        all the same, but only after every frame that was readable has been given. `guard` is entered around each wait
        for a frame.
        """
        block, filled = np.empty(0), 0
        with contextlib.closing(self._pictures(guard)) as timed:
            times = _Clock(self.stream)
            pictures = (
                (picture for picture, _ in timed)
                if settings.fps is None
                else resample(((picture, times.of(pts)) for picture, pts in timed), settings.fps)
            )
            try:
                for picture in itertools.islice(pictures, settings.max_frames):
                    if not filled:
                        limit = int(np.clip(BLOCK_BYTES // picture.nbytes, 2, max_block))
                        block = np.empty((limit, *picture.shape), np.uint8)
                    block[filled] = picture
                    filled += 1
                    if filled == limit:
                        yield block
                        filled = 0
            except Undecodable:
                if filled and settings.accept_partial:
                    yield block[:filled]
                raise
        if filled:
            yield block[:filled]

    def _pictures(self, guard: AbstractContextManager[None]) -> Generator[tuple[np.ndarray, int | None]]:
        """Every frame as RGB, with its presentation time in the stream's time base."""
        to_rgb, count = ToRgb(), 0
        with contextlib.closing(self._readable(guard)) as frames:
            for frame in frames:
                try:
                    picture = to_rgb(frame)
                except av.FFmpegError as error:
                    kind = f"pixel format {frame.format.name}, colour matrix {frame.colorspace} of ITU-T H.273"
                    reason = f"FFmpeg cannot convert its frames to RGB ({kind}): {_short(error)}"
                    raise Undecodable(reason, "decode", count) from error
                yield picture, frame.pts
                count += 1

    def _readable(self, guard: AbstractContextManager[None]) -> Generator[av.VideoFrame]:
        """Every frame, in presentation order, up to the first sign of damage."""
        # So many frames may come before a damaged one though they were predicted from it, or after a gap in their
        # order.
        depth = self.stream.codec_context.reorder_depth
        held: deque[av.VideoFrame] = deque()
        reach, given, count = _Reach(), _Reach(), 0
        frames = self._decoded(reach)
        while True:
            try:
                with guard:
                    frame = next(frames, None)
            except (av.FFmpegError, ValueError) as error:
                raise _damaged(count, _short(error)) from error
            if frame is None:
                break
            reach.add(frame.pts, frame.duration)
            held.append(frame)
            if len(held) > depth:
                given.add(held[0].pts, held[0].duration)
                yield held.popleft()
                count += 1
        if not count + len(held):
            raise Undecodable("it holds no decodable frame", "decode")
        missing = self._missing_at_end(reach)
        for frame in held:
            if missing and given.skips(frame.pts):
                break
            given.add(frame.pts, frame.duration)
            yield frame
            count += 1
        if missing:
            raise Undecodable(f"cut off: {missing} ({count} frames readable)", "end", count)

    def _decoded(self, reach: _Reach) -> Generator[av.VideoFrame]:
        """Frames as the decoder gives them. Raises _Passed at damage that FFmpeg's command line would pass over."""
        last: av.Packet | None = None
        alone = self.container.format.name in PICTURES
        for packet in self.container.demux(self.stream):
            if not packet.size:
                # The picture stays as it is, for which FFmpeg's command line gives no frame; to a decoder it would mean
                # that the file is at its end.
                reach.add(packet.pts, packet.duration)
                continue
            if last:
                alone = False
                yield from map(_undamaged, last.decode())
            last = packet
        if last and alone:
            raise Undecodable(A_PICTURE, "open")
        # In the middle of a transport stream the mark may mean no more than that two files were joined there.
        if last and last.is_corrupt:
            raise _Passed("the file breaks off within the next one")
        if last:
            yield from map(_undamaged, last.decode())
        yield from map(_undamaged, self.stream.decode(None))  # what the decoder still holds

    def _missing_at_end(self, reach: _Reach) -> str:
        """Where the frames stop and how long the file says that they are, if that is well before; or empty."""
        declared, base = declared_duration(self.container, self.stream), self.stream.time_base
        if not declared or not base or reach.last is None:
            return ""
        start = self.stream.start_time or 0
        end = (reach.last + reach.duration - (start if self._counts_from_start() else min(0, start))) * base
        if declared - end <= max(declared * LATE_ENDS, base * reach.gap * 2):
            return ""
        return f"frames stop at {float(end):.2f} s of the {float(declared):.2f} s it declares"

    def _counts_from_start(self) -> bool:
        """Whether the stream's duration is surely that of its frames, so that it counts from the first one's time.

        It is where QuickTime and MP4 list every frame in front. In their fragments, in ASF and in Matroska, duration is
        the time at which the last frame ends; elsewhere programs differ, and then what would need less is believed.
        """
        return self.container.format.name.startswith("mov,") and self.stream.frames > 0


def probe(path: Path) -> Probe:
    """Read the header of a video. Raises Undecodable."""
    with OpenVideo(path) as video:
        return video.header


def decode(
    path: Path, settings: DecodeSettings = DecodeSettings(), max_block: int = MAX_BLOCK_FRAMES
) -> Iterator[np.ndarray]:
    """The blocks of a video; see OpenVideo.blocks."""
    with OpenVideo(path) as video:
        yield from video.blocks(settings, max_block)


def resample(frames: Iterable[tuple[np.ndarray, Fraction | None]], fps: float) -> Iterator[np.ndarray]:
    """Frame k is the one nearest to k/fps seconds after the first, the earlier one of two as near; see DecodeSettings.

    frames: with their presentation times in seconds. A time before that of an earlier frame counts as that time. Holds
    one frame. Raises Undecodable where a time is missing, or so late that it must be wrong.
    """
    rate = Fraction(str(fps))  # 29.97 is meant as written; fractions, because in floats ties would fall either way
    count = 0
    last: tuple[np.ndarray, Fraction] | None = None
    for number, (picture, shown) in enumerate(frames):
        if shown is None:
            raise Undecodable(f"it cannot be resampled: frame {number} has no time", "decode", number)
        if last is None:
            first, last = shown, (picture, Fraction(0))
        before, earlier = last
        time = max(earlier, shown - first)
        if time - earlier > LONGEST_STILL:
            late = f"frame {number} comes {float(time - earlier):.0f} s after the one before it"
            raise Undecodable(f"it cannot be resampled: {late}", "decode", number)
        # Whatever comes later is no nearer to a time up to this one, so these frames of the result are settled now.
        while count <= time * rate:
            yield before if 2 * count <= (earlier + time) * rate else picture
            count += 1
        if time > earlier:  # of frames at one time the first counts
            last = picture, time


class _Passed(ValueError):
    """Damage that FFmpeg has hidden as well as it could, and marked."""


class _Reach:
    """How far the frames reach, in the stream's time base."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.duration = self.gap = 0  # of the last frame; longest from one frame to the next

    def add(self, pts: int | None, duration: int | None) -> None:
        if pts is None or (self.last is not None and pts <= self.last):
            return
        if self.last is not None:
            self.gap = max(self.gap, pts - self.last)
        self.last, self.duration = pts, duration or 0

    def skips(self, pts: int | None) -> bool:
        """Whether a frame at that time would come after a gap, as none did before."""
        return pts is None or self.last is None or pts - self.last > (self.gap or self.duration)


class _Clock:
    """Presentation times in seconds; a frame without one comes a frame of the stream's rate after the one before it."""

    def __init__(self, stream: av.VideoStream) -> None:
        self.base = stream.time_base
        self.rate = stream.average_rate or stream.guessed_rate
        self.next = Fraction(0) if self.rate else None

    def of(self, pts: int | None) -> Fraction | None:
        time = self.next if pts is None or self.base is None else pts * self.base
        if time is not None and self.rate:
            self.next = time + 1 / self.rate
        return time


def _header(container: av.container.InputContainer, stream: av.VideoStream) -> Probe:
    rate = stream.average_rate or stream.guessed_rate
    return Probe(
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        fps=float(rate) if rate else 0.0,
        codec=stream.codec_context.name,
        duration=float(declared_duration(container, stream)),
        frames=stream.frames,
    )


def _undamaged(frame: av.VideoFrame) -> av.VideoFrame:
    if frame.is_corrupt:
        raise _Passed("parts of the next one are missing or make no sense")
    return frame


def _damaged(readable: int, how: str) -> Undecodable:
    return Undecodable(f"damaged after {readable} readable frames: {how}", "decode", readable)


def _short(error: Exception) -> str:
    return str(error) if isinstance(error, _Passed) else in_words(error)
