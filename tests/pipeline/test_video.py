"""Decoding: every frame, the right way up, in bounded blocks, or a reason."""

from __future__ import annotations

import io
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import synthetic
from pipeline.extraction import job
from pipeline.store.settings import ExtractionSettings
from pipeline.video.decode import UNGUARDED, DecodeSettings, OpenVideo, Undecodable, decode, probe, resample
from pipeline.views.rgb import RgbSettings

# Rows of the matrix in an MP4 track header by the turn that it asks players for (ISO 14496-12: x' = a x + c y, y' = b x
# + d y), and the same turn of an array.
TURNS = {
    "none": ((1, 0, 0, 1), 0),
    "quarter clockwise": ((0, 1, -1, 0), -1),
    "half": ((-1, 0, 0, -1), 2),
    "quarter counterclockwise": ((0, -1, 1, 0), 1),
}


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Four quarters of different colours, so that every turn and flip of it differs."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 250, 20, 20
    image[: height // 2, width // 2 :] = 20, 250, 20
    image[height // 2 :, : width // 2] = 20, 20, 250
    image[height // 2 :, width // 2 :] = 128, 128, 128
    return image


def clip(path: Path, frames: int = 10, height: int = 48, width: int = 64) -> Path:
    synthetic.write_mp4(path, np.stack([picture(height, width)] * frames))
    return path


def encoded(frames: np.ndarray, codec: str = "libx264", kind: str = "h264", rate: int = 25) -> bytes:
    """Frames as a stream of another container or codec."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return sink.getvalue()


def with_cover(path: Path) -> None:
    """Silence and a picture of its album, as music players take it."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("mjpeg")
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        container.mux(cover.encode())
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8820), np.int16), format="s16", layout="stereo")
        samples.rate = 44100
        container.mux(sound.encode(samples))
        container.mux(sound.encode())


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write the display matrix into the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    data[start : start + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(data)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 130])
def test_every_frame_comes_once_in_blocks(tmp_path: Path, count: int) -> None:
    frames = np.stack([np.full((32, 32, 3), 20 + index % 200, np.uint8) for index in range(count)])
    synthetic.write_mp4(tmp_path / "v.mp4", frames)
    blocks = list(decode(tmp_path / "v.mp4"))
    assert [len(block) for block in blocks] == [64] * (count // 64) + [count % 64] * (count % 64 > 0)
    together = np.concatenate(blocks)
    assert together.dtype == np.uint8
    assert np.abs(together.astype(int) - frames).max() <= 6


def test_blocks_of_large_frames_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.video.decode.BLOCK_BYTES", 5 * 48 * 64 * 3)
    assert [len(block) for block in decode(clip(tmp_path / "v.mp4", 12))] == [5, 5, 2]
    monkeypatch.setattr("pipeline.video.decode.BLOCK_BYTES", 1)
    assert [len(block) for block in decode(clip(tmp_path / "v.mp4", 5))] == [2, 2, 1]


def test_views_that_enlarge_frames_get_few_at_once(tmp_path: Path) -> None:
    settings = ExtractionSettings({"rgb": RgbSettings(size=(4096, 4096))})
    with OpenVideo(clip(tmp_path / "v.mp4", 5)) as source:
        assert [len(block) for block in job._decoded(source, settings, UNGUARDED, job._Partial())] == [2, 2, 1]


def test_block_size_does_not_change_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    synthetic.write_mp4(path, synthetic.video(synthetic.CLASSES[0], 0, frames=20, height=32, width=48))
    whole = np.concatenate(list(decode(path)))
    assert np.array_equal(whole, np.concatenate(list(decode(path, max_block=3))))


@pytest.mark.parametrize("name", TURNS)
def test_rotation_is_applied(tmp_path: Path, name: str) -> None:
    matrix, turns = TURNS[name]
    path = clip(tmp_path / "v.mp4", 3)
    turn(path, matrix)
    expected = np.rot90(picture(), turns)
    for frame in np.concatenate(list(decode(path))):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 12


def test_the_header_is_told_without_decoding(tmp_path: Path) -> None:
    header = probe(clip(tmp_path / "v.mp4", 10))
    assert (header.width, header.height, header.fps, header.codec) == (64, 48, 25.0, "h264")
    assert (header.duration, header.frames) == (pytest.approx(0.4), 10)
    rate = Fraction(30000, 1001)
    (tmp_path / "v.mkv").write_bytes(encoded(np.stack([picture()] * 4), kind="matroska", rate=rate))  # type: ignore[arg-type]
    assert probe(tmp_path / "v.mkv").fps == pytest.approx(29.97, abs=0.3)


@pytest.mark.parametrize(
    ("codec", "kind"), [("libx264", "h264"), ("mpeg4", "avi"), ("mpeg2video", "matroska"), ("libx264", "mpegts")]
)
def test_other_containers_and_codecs_are_read(tmp_path: Path, codec: str, kind: str) -> None:
    path = tmp_path / "no_extension"
    path.write_bytes(encoded(np.stack([picture()] * 7), codec, kind))
    frames = np.concatenate(list(decode(path)))
    assert frames.shape == (7, 48, 64, 3)
    assert np.abs(frames.astype(int) - picture()).mean() < 12


def test_a_change_of_size_keeps_the_size_of_the_first_frame(tmp_path: Path) -> None:
    small, large = np.stack([picture()] * 5), np.stack([picture(96, 128)] * 4)
    (tmp_path / "v.h264").write_bytes(encoded(small) + encoded(large))
    frames = np.concatenate(list(decode(tmp_path / "v.h264")))
    assert frames.shape == (9, 48, 64, 3)
    assert np.abs(frames[-1].astype(int) - picture()).mean() < 12


@pytest.mark.parametrize("name", ["a:b.mp4", "concat:v.mp4", "%03d.mp4", "a b [x] {y} 'z'.mp4", "-i.mp4", "http:"])
def test_odd_names_are_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    clip(Path(name), 3)
    assert sum(len(block) for block in decode(Path(name))) == 3


def reason(path: Path) -> Undecodable:
    with pytest.raises(Undecodable) as refused:
        list(decode(path))
    return refused.value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "cannot be opened as a video"),
        (bytes(4096), "cannot be opened as a video"),
    ],
)
def test_files_that_are_no_video_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    assert message in reason(tmp_path / "v.mp4").reason
    assert reason(tmp_path / "v.mp4").stage == "open"
    with pytest.raises(Undecodable, match=message):
        probe(tmp_path / "v.mp4")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path / "gone.mp4").reason == "there is no such file"
    assert reason(tmp_path).reason == "it is not a file"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason(tmp_path / "pipe.mp4").reason == "it is not a file"
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert reason(tmp_path / "loop.mp4").reason == "there is no such file"


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise av.error.PermissionError(13, "Permission denied", "v.mp4")

    path = clip(tmp_path / "v.mp4")
    monkeypatch.setattr(av, "open", denied)
    assert reason(path).reason == "it cannot be opened as a video: Permission denied (PermissionError)"


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    assert reason(tmp_path / "v.wav").reason == "it holds no video stream (only audio)"


def test_a_song_with_cover_art_is_said_to_have_that(tmp_path: Path) -> None:
    with_cover(tmp_path / "v.mp3")
    assert reason(tmp_path / "v.mp3").reason == "it holds no video stream (only audio and cover art)"


def test_a_picture_that_is_too_large_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "v.y4m").write_bytes(b"YUV4MPEG2 W16384 H16384 F25:1 Ip A1:1 C420mpeg2\nFRAME\n" + bytes(100))
    assert reason(tmp_path / "v.y4m").reason == "it cannot be opened as a video: Picture size 16384x16384 is invalid"


def test_a_video_that_was_cut_off_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    frames = synthetic.video(synthetic.CLASSES[0], 0, frames=100, height=48, width=64)
    data = encoded(frames, kind="matroska")
    (tmp_path / "v.mkv").write_bytes(data[: len(data) // 2])
    refused = reason(tmp_path / "v.mkv")
    assert refused.reason.startswith(("cut off: frames stop at", "damaged after"))
    assert 0 < refused.readable < 100
    assert re.search(rf"\b{refused.readable} (readable frames|frames readable)", refused.reason)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """60 frames, zeroed in the middle."""
    frames = synthetic.video(synthetic.CLASSES[0], 0, frames=60, height=48, width=64)
    synthetic.write_mp4(tmp_path / "v.mp4", frames)
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 14000 : start + 19000] = bytes(5000)
    (tmp_path / "v.mp4").write_bytes(data)
    return tmp_path / "v.mp4"


def test_damage_in_the_middle_is_told_with_the_number_of_readable_frames(damaged: Path) -> None:
    refused = reason(damaged)
    assert 5 < refused.readable < 55
    assert refused.reason.startswith(f"damaged after {refused.readable} readable frames: ")
    assert refused.stage == "decode"


@pytest.mark.parametrize("max_block", [2, 3, 64])
def test_where_a_part_is_welcome_every_readable_frame_comes_before_the_reason(damaged: Path, max_block: int) -> None:
    frames: list[np.ndarray] = []
    with pytest.raises(Undecodable, match="damaged after") as refused:
        for block in decode(damaged, DecodeSettings(accept_partial=True), max_block=max_block):
            frames.extend(block)
    assert len(frames) == refused.value.readable
    whole = decode(damaged, DecodeSettings(max_frames=len(frames)))
    assert np.array_equal(np.stack(frames), np.concatenate(list(whole)))


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (64, 64), (65, 65), (70, 70), (71, 70), (500, 70)])
def test_no_more_frames_than_are_asked_for(tmp_path: Path, asked: int, given: int) -> None:
    path = clip(tmp_path / "v.mp4", 70)
    assert sum(len(block) for block in decode(path, DecodeSettings(max_frames=asked))) == given


def test_decoding_stops_at_the_last_frame_that_is_asked_for(damaged: Path) -> None:
    readable = reason(damaged).readable
    assert sum(len(block) for block in decode(damaged, DecodeSettings(max_frames=readable))) == readable
    with pytest.raises(Undecodable):
        list(decode(damaged, DecodeSettings(max_frames=readable + 1)))


def nearest(times: list[Fraction], fps: float) -> list[int]:
    """Which frame is shown at each multiple of 1/fps, by looking at all of them."""
    times = [max(times[: index + 1]) - times[0] for index in range(len(times))]
    ticks = [k / Fraction(str(fps)) for k in range(int(times[-1] * Fraction(str(fps))) + 1)]
    return [min(range(len(times)), key=lambda index: (abs(times[index] - tick), index)) for tick in ticks]


@given(
    st.lists(st.integers(-40, 400), min_size=1, max_size=30),
    st.integers(-1000, 10**6),
    st.sampled_from([0.5, 1, 5, 10, 12.5, 20, 23.976, 24, 25, 29.97, 30, 50, 100.0, 1000]),
)
def test_resampling_takes_the_nearest_frames(steps: list[int], start: int, fps: float) -> None:
    times = [Fraction(start + sum(steps[:index]), 1000) for index in range(len(steps))]
    pictures = ((np.array(index), time) for index, time in enumerate(times))
    assert [int(picture) for picture in resample(pictures, fps)] == nearest(times, fps)


def timed(path: Path, milliseconds: list[int]) -> Path:
    """A video with a frame at each of these times, each of another brightness."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 + 10 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [4.0, 12.5, 25.0, 60.0])
@pytest.mark.parametrize(
    "milliseconds", [[0], list(range(0, 800, 40)), [0, 40, 60, 100, 340, 350, 360, 1000, 1500], [80, 120, 600]]
)
def test_files_are_resampled_by_their_times(tmp_path: Path, kind: str, fps: float, milliseconds: list[int]) -> None:
    path = timed(tmp_path / f"v.{kind}", milliseconds)
    blocks = list(decode(path, DecodeSettings(fps=fps), max_block=7))
    assert all(len(block) == 7 for block in blocks[:-1])
    shown = np.rint((np.concatenate(blocks).mean(axis=(1, 2, 3)) - 20) / 10).astype(int).tolist()
    assert shown == nearest([Fraction(time, 1000) for time in milliseconds], fps)
    (few,) = decode(path, DecodeSettings(fps=fps, max_frames=2))
    assert len(few) == min(2, len(shown))


def test_half_the_rate_is_every_second_frame_and_twice_the_rate_shows_each_twice(tmp_path: Path) -> None:
    path = timed(tmp_path / "v.mp4", list(range(0, 800, 40)))
    whole = np.concatenate(list(decode(path)))
    assert np.array_equal(np.concatenate(list(decode(path, DecodeSettings(fps=12.5)))), whole[::2])
    twice = np.concatenate(list(decode(path, DecodeSettings(fps=50.0))))
    assert np.array_equal(twice, whole[(np.arange(39)) // 2])


def test_resampling_keeps_what_is_readable_of_a_part(damaged: Path) -> None:
    frames: list[np.ndarray] = []
    with pytest.raises(Undecodable) as refused:
        for block in decode(damaged, DecodeSettings(fps=50.0, accept_partial=True)):
            frames.extend(block)
    assert len(frames) == 2 * refused.value.readable - 1


def test_a_stream_without_times_has_those_of_its_rate(tmp_path: Path) -> None:
    (tmp_path / "v.h264").write_bytes(encoded(np.stack([picture()] * 20), rate=25))
    assert sum(len(block) for block in decode(tmp_path / "v.h264", DecodeSettings(fps=12.5))) == 10


def test_times_that_cannot_be_right_are_refused() -> None:
    still = np.zeros((1, 1, 3), np.uint8)
    for times, message in (([0, None], "frame 1 has no time"), ([0, 1, 9000], "frame 2 comes 8999 s after")):
        frames = [(still, None if time is None else Fraction(time)) for time in times]
        with pytest.raises(Undecodable, match=f"it cannot be resampled: {message}") as refused:
            list(resample(frames, 1.0))
        assert refused.value.readable == len(times) - 1


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile other.mp4\n",
        (
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
        ),
        b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n",
        b"P5\n4 4\n255\n" + bytes(16),
        b"II*\0\x08\0\0\0" + bytes(64),
    ],
    ids=["m3u8", "ffconcat", "sdp", "srt", "pgm", "tiff"],
)
@pytest.mark.parametrize("name", ["v.mp4", "v", "v.m3u8", "v.txt"])
def test_playlists_text_and_pictures_are_no_videos_whatever_their_name(
    tmp_path: Path, name: str, content: bytes, synthetic_videos: Path
) -> None:
    (tmp_path / "other.mp4").write_bytes(next(synthetic_videos.rglob("*.mp4")).read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Undecodable, match="no video|cannot be opened|no stream"):
        list(decode(tmp_path / name))


def test_cover_art_is_called_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as container:
        audio, art = container.add_stream("aac", rate=48000, layout="stereo"), container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 16, 16, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        for packet in art.encode(av.VideoFrame(16, 16, "yuvj420p")):
            container.mux(packet)
        sound = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        sound.sample_rate = 48000
        container.mux([*audio.encode(sound), *audio.encode(None)])
    with pytest.raises(Undecodable, match=r"it holds no video stream \(only audio and cover art\)"):
        list(decode(tmp_path / "a.m4a"))
