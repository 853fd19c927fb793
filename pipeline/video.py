"""Decode a video with PyAV: every frame once, or at a chosen rate, in presentation order, in bounded blocks."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.errors import UsageError

BLOCK_BYTES = 48 * 2**20  # of decoded frames held at once; a 2-hour film passes through in as little memory as a clip
MAX_BLOCK_FRAMES = 64
LONGEST_STILL = 600  # seconds between two frames; a broken time beyond it would repeat a frame without end
ENDS_EARLY = 0.9  # a file whose frames stop before this share of its declared duration was cut off

UNGUARDED: AbstractContextManager[None] = contextlib.nullcontext()


class Undecodable(Exception):
    """A video that cannot be stored whole. `stage` is open, decode or end; `readable` counts the frames before it."""

    def __init__(self, reason: str, stage: str, readable: int = 0) -> None:
        super().__init__(reason, stage, readable)
        self.reason, self.stage, self.readable = reason, stage, readable

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Probe:
    """What a container says of its video stream before anything is decoded; sizes before rotation."""

    width: int
    height: int
    fps: float
    codec: str
    duration: float  # seconds, 0 when unknown
    frames: int  # as claimed by the container, 0 when unknown


def probe(path: Path) -> Probe:
    """Read the header of a video. Raises Undecodable."""
    with _open(path) as container:
        stream = _video_stream(container)
        rate = stream.average_rate or stream.guessed_rate
        return Probe(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            fps=float(rate) if rate else 0.0,
            codec=stream.codec_context.name,
            duration=_declared_end(container, stream),
            frames=stream.frames,
        )


@dataclass(frozen=True)
class DecodeSettings:
    """Which frames of a video are taken.

    Args:
        fps: Take frames at this rate instead of the file's own: output frame k is the source frame nearest to k/fps
            seconds after the first (the earlier one of two as near), up to the time of the last. A higher rate than the
            file's repeats frames. The store then has this rate.
        max_frames: Take only the first so many frames, counted at `fps` where that is given. What comes after them is not
            decoded, so damage there is not noticed.
        accept_partial: Store what can be decoded of a file that breaks off, up to the damage, and say so in its record; by
            default such a file lands in quarantine.
    """

    fps: float | None = None
    max_frames: int | None = None
    accept_partial: bool = False

    def resolved(self) -> DecodeSettings:
        """Checked, numbers in one spelling. Raises UsageError."""
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UsageError(f"decode fps {self.fps} is not a positive number", remedy="null keeps the file's own rate")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"decode max_frames {self.max_frames} is below 1", remedy="null takes all frames")
        return replace(self, fps=None if self.fps is None else float(self.fps))


def decode(
    path: Path,
    settings: DecodeSettings = DecodeSettings(),
    max_block: int = MAX_BLOCK_FRAMES,
    guard: AbstractContextManager[None] = UNGUARDED,
) -> Iterator[np.ndarray]:
    """Blocks of RGB frames, uint8 (n, H, W, 3), 1 <= n <= max_block, rotated as the file's metadata says.

    All frames have the size of the first; a file that changes size in the middle is scaled to it, as FFmpeg does.
    Raises Undecodable at the first damaged packet, when there is no frame, and when the frames stop well before the
    duration that the file declares: a part of a video is never taken for the whole. With `accept_partial` it raises all
    the same, but only after every frame that was readable has been given. `guard` is entered around each wait for a frame.
    """
    block: list[np.ndarray] = []
    limit = 0
    with contextlib.closing(_timed_frames(path, guard)) as timed:
        pictures = (picture for picture, _ in timed) if settings.fps is None else resample(timed, settings.fps)
        try:
            for picture in itertools.islice(pictures, settings.max_frames):
                limit = limit or int(np.clip(BLOCK_BYTES // picture.nbytes, 2, max_block))
                block.append(picture)
                if len(block) == limit:
                    yield np.stack(block)
                    block = []
        except Undecodable:
            if block and settings.accept_partial:
                yield np.stack(block)
            raise
    if block:
        yield np.stack(block)


def resample(frames: Iterable[tuple[np.ndarray, Fraction | None]], fps: float) -> Iterator[np.ndarray]:
    """Frame k is the one nearest to k/fps seconds after the first, the earlier one of two as near; see DecodeSettings.

    frames: with their presentation times in seconds. A time before that of an earlier frame counts as that time. Holds one
    frame. Raises Undecodable where a time is missing, or so late that it must be wrong.
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


def _timed_frames(path: Path, guard: AbstractContextManager[None]) -> Generator[tuple[np.ndarray, Fraction | None]]:
    """Every frame with its presentation time in seconds."""
    count, last_end = 0, 0.0
    converter = VideoReformatter()
    with _open(path) as container:
        stream = _video_stream(container)
        declared = _declared_end(container, stream)
        clock = _Clock(stream)
        frames = container.decode(stream)
        while True:
            try:
                with guard:
                    frame = next(frames, None)
                if frame is None:
                    break
                picture = _rgb(frame, converter)
            except (av.FFmpegError, ValueError) as error:
                raise Undecodable(f"damaged after {count} readable frames: {_short(error)}", "decode", count) from error
            if count == 0:
                size = picture.shape[:2]
            elif picture.shape[:2] != size:
                picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
            count += 1
            if frame.time is not None:
                last_end = max(last_end, frame.time + float((frame.duration or 0) * (frame.time_base or 0)))
            yield picture, clock.time_of(frame)
    if count == 0:
        raise Undecodable("it holds no decodable frame", "decode")
    if declared and last_end and last_end < ENDS_EARLY * declared:
        raise Undecodable(
            f"cut off: frames stop at {last_end:.2f} s of the {declared:.2f} s it declares ({count} frames readable)",
            "end",
            count,
        )


class _Clock:
    """Presentation times; a frame without one comes a frame of the stream's rate after the one before it."""

    def __init__(self, stream: av.VideoStream) -> None:
        self.rate = stream.average_rate or stream.guessed_rate
        self.next = Fraction(0) if self.rate else None

    def time_of(self, frame: av.VideoFrame) -> Fraction | None:
        time = self.next if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        if time is not None and self.rate:
            self.next = time + 1 / self.rate
        return time


def _open(path: Path) -> av.container.InputContainer:
    try:
        if not path.is_file():
            raise Undecodable("there is no such file" if not path.exists() else "it is not a file", "open")
        if path.stat().st_size == 0:
            raise Undecodable("the file is empty (0 bytes)", "open")
        # An absolute path: FFmpeg takes what stands before a colon in another one for a protocol.
        return av.open(str(path.absolute()), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise Undecodable(f"it cannot be opened as a video: {_short(error)}", "open") from error


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream, as OpenCV and PyAV's own readers take; cover art is not video."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({str(stream.type) for stream in container.streams}))
        raise Undecodable(f"it holds no video stream (only {kinds})" if kinds else "it holds no stream at all", "open")
    stream = streams[0]
    if stream.codec_context is None:
        raise Undecodable("its video codec is not known to FFmpeg", "open")
    stream.thread_type = "NONE"  # extraction runs one process per core; more threads would only fight
    return stream


def _declared_end(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds at which the video stream should end; the container's word counts only where it has no other stream."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return 0.0


def _rgb(frame: av.VideoFrame, converter: VideoReformatter) -> np.ndarray:
    # One converter and one thread: a converter of its own for every frame starts as many threads as there are cores,
    # which makes a frame of 112x84 cost 0.6 to 4 ms instead of 0.1.
    picture = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # degrees counterclockwise
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _short(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"{text} ({type(error).__name__})"
