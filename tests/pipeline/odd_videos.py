"""Odd videos, made for tests: painted pictures whose numbers, colours and corners can be told apart after decoding."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

FRAMES = 12
SIZE = (48, 64)  # height and width
MILLISECOND = Fraction(1, 1000)
# Weights of red and blue in luma (ITU-T H.273, table 4), by the tag that says so.
UNTAGGED = 2
BT601, BT709, BT2020, FCC, SMPTE240M = 5, 1, 9, 4, 7
WEIGHTS = {
    UNTAGGED: (0.299, 0.114),
    BT601: (0.299, 0.114),
    6: (0.299, 0.114),
    BT709: (0.2126, 0.0722),
    BT2020: (0.2627, 0.0593),
    FCC: (0.30, 0.11),
    SMPTE240M: (0.212, 0.087),
}
LIMITED, FULL = 1, 2

Turn = Callable[[np.ndarray], np.ndarray]


def unchanged(image: np.ndarray) -> np.ndarray:
    return image


@dataclass(frozen=True)
class Odd:
    """How to write one file, and what a decoder must show of it: pictures by number, of `size`, each after `turn`."""

    write: Callable[[Path], None]
    suffix: str = "mp4"
    shows: Sequence[int] = range(FRAMES)
    size: tuple[int, int] = SIZE
    turn: Turn = unchanged
    error: float = 12.0  # mean difference from what was painted; codecs and colour at half size lose some


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Four quarters of different colours, so that every turn and flip differs, and across them the number in binary."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 230, 30, 30
    image[: height // 2, width // 2 :] = 30, 200, 30
    image[height // 2 :, : width // 2] = 40, 40, 220
    image[height // 2 :, width // 2 :] = 128, 128, 128
    for bit in range(5):
        cells = slice(width * bit // 5, width * (bit + 1) // 5)
        image[height * 3 // 8 : height * 5 // 8, cells] = 235 if number >> bit & 1 else 20
    return image


def pictures(count: int = FRAMES, size: tuple[int, int] = SIZE, first: int = 0) -> list[np.ndarray]:
    return [picture(number, size) for number in range(first, first + count)]


@dataclass(frozen=True)
class Encoding:
    """One video stream of a file."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    matrix: int = UNTAGGED
    range: int = 0
    context: dict[str, Any] = field(default_factory=dict)  # further attributes of the encoder
    rate: int | Fraction = 25
    times: Sequence[int] | None = None  # milliseconds
    disposition: Disposition | None = None


def write(
    path: Path | io.BytesIO,
    images: Iterable[np.ndarray],
    encoding: Encoding = Encoding(),
    kind: str | None = None,
    **container: str,
) -> None:
    """A file with one video stream; `container`: options of FFmpeg's muxer."""
    write_streams(path, [(images, encoding)], kind, **container)


def write_streams(
    path: Path | io.BytesIO,
    streams: Sequence[tuple[Iterable[np.ndarray], Encoding]],
    kind: str | None = None,
    **container: str,
) -> None:
    """Several video streams in one file."""
    sink = str(path) if isinstance(path, Path) else path
    with av.open(sink, "w", format=kind, container_options=container) as output:
        opened = []
        for images, encoding in streams:
            images = list(images)
            stream = output.add_stream(encoding.codec, rate=encoding.rate, options=encoding.options)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = encoding.pixels
            stream.codec_context.colorspace = encoding.matrix
            stream.codec_context.color_range = encoding.range
            for name, value in encoding.context.items():
                setattr(stream.codec_context, name, value)
            if encoding.disposition is not None:
                stream.disposition = encoding.disposition
            if encoding.times is not None:
                stream.codec_context.time_base = MILLISECOND
            opened.append((stream, images, encoding))
        for stream, images, encoding in opened:
            for number, image in enumerate(images):
                frame = painted(image, encoding)
                if encoding.times is not None:
                    frame.pts, frame.time_base = encoding.times[number], MILLISECOND
                output.mux(stream.encode(frame))
            output.mux(stream.encode())


def painted(image: np.ndarray, encoding: Encoding) -> av.VideoFrame:
    """The picture in the encoder's pixel format, YUV by our own arithmetic."""
    if av.VideoFormat(encoding.pixels).is_rgb or "pal" in encoding.pixels or "mono" in encoding.pixels:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=encoding.pixels)
    full = encoding.range == FULL or encoding.pixels.startswith("yuvj")
    frame = av.VideoFrame.from_ndarray(yuv(image, encoding.matrix, full), format="yuv444p")
    frame.colorspace, frame.color_range = encoding.matrix, FULL if full else LIMITED
    return frame.reformat(format=encoding.pixels)


def yuv(image: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """RGB to three full-size planes (3, H, W) by the definition in ITU-T H.273."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(image.astype(float) / 255, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))])
    planes = np.concatenate([luma[None] * (255 if full else 219), chroma * (255 if full else 224)])
    return np.rint(planes + np.array([0 if full else 16, 128, 128])[:, None, None]).clip(0, 255).astype(np.uint8)


def file_of(
    encoding: Encoding = Encoding(), suffix: str = "mp4", kind: str | None = None, **container: str
) -> Callable[[Path], None]:
    """Writes the painted pictures, as many as there are times, in this encoding."""
    count = FRAMES if encoding.times is None else len(encoding.times)
    return lambda path: write(path, pictures(count), encoding, kind, **container)


def odd(
    codec: str,
    pixels: str = "yuv420p",
    suffix: str = "mkv",
    size: tuple[int, int] = SIZE,
    turn: Turn = unchanged,
    error: float = 12.0,
    **options: Any,
) -> Odd:
    """The painted pictures in another codec, pixel format, container or size. Options: of Encoding."""
    encoding = Encoding(codec, pixels, **options)
    return Odd(lambda path: write(path, pictures(size=size), encoding), suffix, size=size, turn=turn, error=error)


def in_a_thread_of_its_own(made: Odd) -> Odd:
    """SVT-AV1, where root runs it, gives the thread that opens it real-time priority for good. All that the thread
    starts afterwards has it too, so that a busy loop in it would starve the machine."""

    def write_apart(path: Path) -> None:
        with ThreadPoolExecutor(max_workers=1) as pool:
            pool.submit(made.write, path).result()

    return replace(made, write=write_apart)


def gray(image: np.ndarray) -> np.ndarray:
    return np.repeat(yuv(image, UNTAGGED, full=True)[0][..., None], 3, axis=2)


def patch(path: Path, box: bytes, change: Callable[[bytearray, int], None]) -> None:
    """Change an MP4 file in place, from the content of the first box of that name on."""
    data = bytearray(path.read_bytes())
    change(data, data.index(box) + len(box))
    path.write_bytes(data)


def starts_late(skipped: int) -> Callable[[Path], None]:
    """An MP4 whose edit list starts after so many frames, as a cut without encoding leaves it."""

    def later(data: bytearray, start: int) -> None:
        duration, time = (int.from_bytes(data[at : at + 4], "big") for at in (start + 8, start + 12))
        # Of a second: the movie counts in 1/1000, the track in 1/12800.
        data[start + 8 : start + 12] = (duration - skipped * 40).to_bytes(4, "big")
        data[start + 12 : start + 16] = (time + skipped * 512).to_bytes(4, "big")

    def make(path: Path) -> None:
        write(path, pictures(), Encoding(options={"bf": "2", "g": "12"}))
        patch(path, b"elst", later)

    return make


def turned(matrix: tuple[float, float, float, float]) -> Callable[[Path], None]:
    """An MP4 with the matrix (a, b, c, d) in its track header: x' = a x + c y, y' = b x + d y (ISO 14496-12)."""

    def turn(data: bytearray, start: int) -> None:
        a, b, c, d = (round(value * 65536) for value in matrix)
        values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
        data[start + 40 : start + 76] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)

    def make(path: Path) -> None:
        write(path, pictures(), Encoding())
        patch(path, b"tkhd", turn)

    return make


def with_cover(first: bool) -> Callable[[Path], None]:
    """An MP4 with cover art; `first`: its box stands before the track's, so that the cover is stream 0."""

    def make(path: Path) -> None:
        cover = Encoding("mjpeg", "yuvj420p", disposition=Disposition.attached_pic)
        write_streams(path, [(pictures(), Encoding()), (pictures(1, (64, 96), first=31), cover)], movflags="faststart")
        if first:
            patch(path, b"moov", swap)

    def swap(data: bytearray, start: int) -> None:
        end = start - 8 + int.from_bytes(data[start - 8 : start - 4], "big")
        boxes, at = [], start
        while at < end:
            size = int.from_bytes(data[at : at + 4], "big")
            boxes.append(bytes(data[at : at + size]))
            at += size
        data[start:end] = b"".join(
            sorted(boxes, key=lambda box: [b"mvhd", b"udta"].index(box[4:8]) if box[4:8] in (b"mvhd", b"udta") else 2)
        )

    return make


def joined(parts: Sequence[tuple[Iterable[np.ndarray], Encoding]], kind: str) -> Callable[[Path], None]:
    """The bytes of several files one after the other."""

    def make(path: Path) -> None:
        whole = b""
        for images, encoding in parts:
            sink = io.BytesIO()
            write(sink, images, encoding, kind)
            whole += sink.getvalue()
        path.write_bytes(whole)

    return make


QUARTERS = {  # matrix of the track header and the turn that a player makes
    "upright": ((1, 0, 0, 1), unchanged),
    "quarter_clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "quarter_counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside_down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "transposed_other_way": ((0, -1, -1, 0), lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
}


def exif(orientation: int) -> Callable[[Path], None]:
    """Motion JPEG as cameras write it: an Exif block in every picture says how the camera was held."""
    tags = b"MM\0*" + bytes([0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0])
    block = b"\xff\xe1" + (len(tags) + 8).to_bytes(2, "big") + b"Exif\0\0" + tags

    def make(path: Path) -> None:
        write(path, pictures(), Encoding("mjpeg", "yuvj420p"), "mjpeg")
        path.write_bytes(path.read_bytes().replace(b"\xff\xd8", b"\xff\xd8" + block))

    return make


def repeated_times(path: Path) -> None:
    """Matroska in which every second frame has the time of the one before it."""
    aside = path.with_suffix(".aside.mkv")
    write(aside, pictures(), Encoding("ffv1"))
    with av.open(str(aside)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(packet for packet in given.demux() if packet.size):
            packet.pts = packet.dts = 40 * (number - number % 2)
            packet.stream = stream
            output.mux(packet)


UNEVEN = (0, 40, 60, 100, 340, 350, 360, 1000, 1500, 1501, 3000, 3001)
OPEN_GOP = {"bf": "3", "x264-params": "open-gop=1:keyint=6:min-keyint=3:b-adapt=0:scenecut=0"}
QUIET = {"x265-params": "log-level=none"}
SMALL, LARGE = pictures(6), pictures(6, (96, 128), first=6)
ODD: dict[str, Odd] = {
    # order and times
    "B-frames": odd("libx264", suffix="mp4", options={"bf": "3"}),
    "open GOP": odd("libx264", suffix="mp4", options=OPEN_GOP),
    "uneven times, mp4": odd("libx264", suffix="mp4", times=UNEVEN),
    "uneven times, mkv": odd("libx264", times=UNEVEN),
    "late times, mp4": odd("libx264", suffix="mp4", times=range(5000, 5480, 40)),
    "late times, ts": odd("libx264", suffix="ts", times=range(5000, 5480, 40)),
    "negative times, mkv": odd("libx264", times=range(-500, -20, 40)),
    "negative times, mp4": Odd(file_of(Encoding(times=range(-200, 280, 40))), shows=range(5, FRAMES)),
    "repeated times": Odd(repeated_times, "mkv"),
    "starts in mid-stream": Odd(starts_late(5), shows=range(5, FRAMES)),
    "one frame": Odd(lambda path: write(path, pictures(1)), shows=range(1)),
    "two frames": Odd(lambda path: write(path, pictures(2), Encoding(options={"bf": "2"})), shows=range(2)),
    # containers, some without times or sizes
    **{
        f"raw {kind}": odd(codec, suffix=kind, options={"bf": "2"})
        for kind, codec in {"h264": "libx264", "m2v": "mpeg2video", "m4v": "mpeg4"}.items()
    },
    "raw hevc": odd("libx265", suffix="hevc", options=QUIET),
    "raw mjpeg": odd("mjpeg", "yuvj420p", "mjpeg"),
    "avi with B-frames": odd("libx264", suffix="avi", options={"bf": "3"}),
    "avi of MPEG-4": odd("mpeg4", suffix="avi", options={"bf": "2"}),
    "program stream": odd("mpeg1video", suffix="mpg"),
    "vob": odd("mpeg2video", suffix="vob"),
    "flv": odd("flv", suffix="flv"),
    "flv of H.264": odd("libx264", suffix="flv"),
    "wmv": odd("wmv2", suffix="wmv"),
    "3gp": odd("h263", suffix="3gp", size=(96, 128)),
    "mxf": odd("mpeg2video", suffix="mxf"),
    "dv": odd("dvvideo", suffix="dv", size=(576, 720)),
    "webm": odd("libvpx", suffix="webm"),
    "ivf": odd("libvpx-vp9", suffix="ivf"),
    "gif": odd("gif", "rgb8", "gif", error=30),
    "y4m": odd("rawvideo", suffix="y4m"),
    # pixel formats
    "10 bits": odd("libx264", "yuv420p10le"),
    "10 bits, 4:2:2": odd("libx264", "yuv422p10le"),
    "10 bits, HEVC": odd("libx265", "yuv420p10le", "mp4", options=QUIET),
    "10 bits, AV1": in_a_thread_of_its_own(odd("libsvtav1", "yuv420p10le")),
    "16 bits": odd("ffv1", "yuv444p16le"),
    "alpha, VP9": odd("libvpx-vp9", "yuva420p", "webm"),
    "alpha, ProRes": odd("prores_ks", "yuva444p10le", "mov"),
    "alpha, PNG": odd("png", "rgba", "mov"),
    "alpha, FFV1": odd("ffv1", "yuva420p"),
    "gray": odd("libx264", "gray", turn=gray),
    "gray, 16 bits": odd("ffv1", "gray16le", turn=gray),
    **{
        f"chroma {name}": odd("ffv1", f"yuv{name.replace(':', '')}p")
        for name in ("4:2:2", "4:4:4", "4:1:1", "4:1:0", "4:4:0")
    },
    "RGB in H.264": odd("libx264rgb", "rgb24"),
    "RGB of 16 bits": odd("png", "rgb48be", "mov"),
    "packed YUV": odd("rawvideo", "yuyv422", "nut"),
    "15 bits of RGB": odd("rpza", "rgb555", "mov", error=20),
    "black and white": odd("rawvideo", "monob", "nut", error=110),
    # colour: the picture is YUV by the tagged matrix and range
    **{
        f"matrix {matrix}, range {values}, {pixels}": odd(codec, pixels, matrix=matrix, range=values, error=6)
        for matrix in WEIGHTS
        for values, codec, pixels in (
            (0, "libx264", "yuv420p"),
            (LIMITED, "ffv1", "yuv444p"),
            (FULL, "libx264", "yuv420p10le"),
        )
    },
    "full range by its format": odd("libx264", "yuvj420p", "mp4"),
    "HD without tags": odd("libx264", suffix="mp4", size=(720, 1280)),
    "HD tagged BT.709": odd("libx264", suffix="mp4", size=(720, 1280), matrix=BT709),
    # geometry
    **{f"turned, {name}": Odd(turned(matrix), turn=turn) for name, (matrix, turn) in QUARTERS.items()},
    "held by the side": Odd(exif(6), "mjpeg", turn=lambda image: np.rot90(image, -1)),
    "held by the side, mirrored": Odd(exif(5), "mjpeg", turn=lambda image: image.transpose(1, 0, 2)),
    "pixels that are not square": odd("libx264", suffix="mp4", context={"sample_aspect_ratio": Fraction(4, 3)}),
    "top field first": odd("libx264", suffix="mp4", options={"x264-params": "tff=1"}),
    "bottom field first": odd("libx264", suffix="ts", options={"x264-params": "bff=1"}),
    "interlaced MPEG-2": odd("mpeg2video", suffix="mpg", options={"flags": "+ilme+ildct"}),
    "odd size": odd("mpeg4", suffix="avi", size=(21, 35), error=20),
    "odd size, VP9": odd("libvpx-vp9", suffix="webm", size=(21, 35), error=20),
    "odd size, 4:1:0": odd("ffv1", "yuv410p", size=(21, 35), error=40),
    "very wide": odd("libx264", suffix="mp4", size=(16, 1600)),
    "very tall": odd("libx264", suffix="mp4", size=(1600, 16)),
    # several streams, several files in one
    "two videos": Odd(lambda path: write_streams(path, [(pictures(), Encoding()), (LARGE, Encoding())])),
    "cover behind": Odd(with_cover(first=False)),
    "cover in front": Odd(with_cover(first=True)),
    "joined": Odd(joined([(SMALL, Encoding()), (pictures(6, first=6), Encoding())], "mpegts"), "ts"),
    "grows": Odd(joined([(SMALL, Encoding()), (LARGE, Encoding())], "h264"), "h264"),
    "grows, ts": Odd(joined([(SMALL, Encoding()), (LARGE, Encoding())], "mpegts"), "ts"),
    "shrinks": Odd(
        joined([(LARGE, Encoding()), (SMALL, Encoding())], "h264"), "h264", [*range(6, 12), *range(6)], (96, 128)
    ),
    "changes its pixel format": Odd(
        joined([(SMALL, Encoding("mjpeg", "yuvj420p")), (LARGE, Encoding("mjpeg", "yuvj444p"))], "mjpeg"), "mjpeg"
    ),
}
