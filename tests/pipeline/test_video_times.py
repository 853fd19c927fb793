"""What a container says of times: pictures that stay as they are, clips that begin late, and when a file is cut off."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from pipeline.video.decode import DecodeSettings, Undecodable, decode
from tests.pipeline import ffmpeg

FRAMES = 50
DURATION = b"\x44\x89\x88"  # of Matroska: its element, of eight bytes
EMPTY = (3, 7, 8, 30)  # repeated pictures, of which the file has a packet of no bytes
TAIL = (*EMPTY, *range(40, FRAMES))


def made(path: Path, *options: str, seconds: int = 2) -> Path:
    """A test picture at 25 frames a second, encoded by FFmpeg's command line."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=25:duration={seconds}"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *source, *options, str(path)]
    subprocess.run(command, check=True, timeout=60, cwd=path.parent)
    return path


def shows_what_ffmpeg_shows(path: Path) -> int:
    """How many frames it has."""
    frames, reference = np.concatenate(list(decode(path))), ffmpeg.frames(path)
    assert len(frames) == len(reference)
    assert np.array_equal(frames, reference)
    return len(frames)


def packets(path: Path) -> list[int]:
    """The bytes of each."""
    with av.open(str(path)) as container:
        return [packet.size for packet in container.demux(video=0)][:-1]  # the last one only says that the file ends


def emptied(source: Path, path: Path, empty: tuple[int, ...], left: bytes = b"") -> Path:
    """The file with these packets emptied. left: what stays of them, for muxers that write no packet without bytes."""
    with av.open(str(source)) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0], opaque=True)
        for number, packet in enumerate(packet for packet in whole.demux(video=0) if packet.size):
            written = packet
            if number in empty:
                written = av.Packet(left)
                written.pts, written.dts, written.time_base = packet.pts, packet.dts, packet.time_base
                written.duration = packet.duration
            written.stream = stream
            container.mux(written)
    return path


def without_bytes(path: Path) -> Path:
    """A QuickTime file whose samples of one byte have none: the sample before takes it, so that all offsets stay."""
    data = bytearray(path.read_bytes())
    table = data.index(b"stsz") + 16
    (count,) = struct.unpack_from(">I", data, table - 4)
    sizes = list(struct.unpack_from(f">{count}I", data, table))
    for number, size in enumerate(sizes):
        if size == 1:
            before = max(other for other in range(number) if sizes[other])
            sizes[before], sizes[number] = sizes[before] + 1, 0
    struct.pack_into(f">{count}I", data, table, *sizes)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("empty", [EMPTY, TAIL], ids=["in the middle", "at the end"])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("nut", "mjpeg"), ("nut", "mpeg4"), ("mov", "mjpeg"), ("mov", "mpeg4"), ("mp4", "mpeg4"), ("ogv", "libtheora")],
)
def test_a_packet_without_bytes_is_a_picture_that_stays(
    tmp_path: Path, suffix: str, codec: str, empty: tuple[int, ...]
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    whole = made(tmp_path / f"whole.{suffix}", "-c:v", codec, "-pix_fmt", pixels, "-g", "5")
    in_quicktime = suffix in ("mov", "mp4")
    path = emptied(whole, tmp_path / f"v.{suffix}", empty, b"\0" if in_quicktime else b"")
    if in_quicktime:
        without_bytes(path)
    sizes = packets(path)
    assert 0 in sizes
    assert shows_what_ffmpeg_shows(path) == sum(map(bool, sizes))


LATE = ("-output_ts_offset", "3")
H264 = ("-c:v", "libx264", "-g", "10", "-bf", "2")
SOUND = ("-f", "lavfi", "-i", "sine=duration=9", "-c:a", "wmav2")


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        *((suffix, (*H264, *LATE)) for suffix in ("mp4", "mov", "mkv", "ts", "flv", "3gp")),
        *((suffix, ("-c:v", "mpeg4", *LATE)) for suffix in ("asf", "avi", "nut")),
        ("ogv", ("-c:v", "libtheora", *LATE)),
        ("mpg", ("-c:v", "mpeg2video", *LATE)),
        ("mp4", (*H264, *LATE, "-movflags", "frag_keyframe")),
        ("mp4", (*H264, *LATE, "-movflags", "dash")),
        ("wmv", (*SOUND, "-c:v", "msmpeg4", *LATE)),
        ("wmv", (*SOUND, "-c:v", "msmpeg4")),
    ],
)
def test_a_clip_whose_times_begin_late_is_whole(tmp_path: Path, suffix: str, options: tuple[str, ...]) -> None:
    path = made(tmp_path / f"v.{suffix}", *options)
    pictures = len(list(filter(None, packets(path))))  # libtheora leaves some empty
    assert shows_what_ffmpeg_shows(path) == pictures
    assert pictures == FRAMES or suffix == "ogv"


def test_each_fragment_of_a_stream_is_whole(tmp_path: Path) -> None:
    fragments = ("-f", "hls", "-hls_segment_type", "fmp4", "-hls_time", "2", "-hls_playlist_type", "vod")
    made(tmp_path / "v.m3u8", *H264, "-force_key_frames", "expr:gte(t,n_forced*2)", *fragments, seconds=6)
    head = (tmp_path / "init.mp4").read_bytes()
    for number in range(3):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(head + (tmp_path / f"v{number}.m4s").read_bytes())
        assert shows_what_ffmpeg_shows(path) == FRAMES


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_late_clip_that_is_cut_off_is_refused_all_the_same(tmp_path: Path, suffix: str) -> None:
    path = made(tmp_path / f"v.{suffix}", *H264, *LATE, "-movflags", "faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(Undecodable, match="cut off|damaged after"):
        list(decode(path))


def test_of_a_file_that_is_cut_off_all_frames_without_a_gap_are_given(tmp_path: Path) -> None:
    whole, path = made(tmp_path / "whole.mkv", *H264), tmp_path / "v.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size and packet.pts is not None and packet.pts < 1200:  # three groups of ten pictures, all whole
                packet.stream = stream
                container.mux(packet)
    part, all_of_it = path.read_bytes(), whole.read_bytes()
    said, says = (data.index(DURATION) for data in (all_of_it, part))
    path.write_bytes(part[:says] + all_of_it[said : said + 11] + part[says + 11 :])
    given: list[np.ndarray] = []
    with pytest.raises(Undecodable, match=r"cut off: .* \(30 frames readable\)"):
        for block in decode(path, DecodeSettings(accept_partial=True)):
            given.extend(block)
    assert np.array_equal(given, ffmpeg.frames(path))
