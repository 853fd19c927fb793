"""Odd videos decode to what FFmpeg gives, to the bit, and to what was painted; broken ones to that or to a reason."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import synthetic
from pipeline.video.decode import DecodeSettings, Undecodable, decode
from tests.pipeline import ffmpeg
from tests.pipeline.odd_videos import ODD, Encoding, Odd, picture, write


@pytest.fixture(scope="module", autouse=True)
def _quiet_encoder() -> Iterator[None]:
    """SVT-AV1 writes its settings to the terminal otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "1")
        yield


@pytest.mark.parametrize("name", ODD)
def test_an_odd_video_shows_what_ffmpeg_shows_and_what_was_painted(tmp_path: Path, name: str) -> None:
    odd = ODD[name]
    path = tmp_path / f"v.{odd.suffix}"
    odd.write(path)
    frames = np.concatenate(list(decode(path)))
    reference = np.stack(ffmpeg.frames(path))
    assert frames.shape == reference.shape
    assert np.array_equal(frames, reference)
    numbers, errors = zip(*(nearest(frame, odd) for frame in frames), strict=True)
    assert list(numbers) == list(odd.shows)
    assert max(errors) < odd.error


def test_no_encoder_changes_how_this_thread_is_scheduled(tmp_path: Path) -> None:
    ODD["10 bits, AV1"].write(tmp_path / "v.mkv")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def nearest(frame: np.ndarray, odd: Odd) -> tuple[int, float]:
    """The number of the painted picture that a frame is most like, and the mean difference from it."""
    painted = [odd.turn(picture(number, odd.size)) for number in odd.shows]
    errors = [float(np.abs(frame.astype(int) - image).mean()) for image in painted]
    best = int(np.argmin(errors))
    return odd.shows[best], errors[best]


# What the frames of a file are wrapped in says how its damage shows: kind of file, encoding, options of its muxer.
WHOLE = {
    "mp4": (Encoding(options={"g": "15", "bf": "2"}), {"movflags": "faststart"}),
    "mkv": (Encoding(options={"g": "15", "bf": "2"}), {}),
    "webm": (Encoding("libvpx-vp9", options={"g": "15"}), {}),
    "avi": (Encoding("mpeg4", options={"g": "15"}), {}),
    "mjpeg.avi": (Encoding("mjpeg", "yuvj420p"), {}),
    "ts": (Encoding(options={"g": "15", "bf": "2"}), {}),
    "mpg": (Encoding("mpeg2video"), {}),
    "h264": (Encoding(options={"g": "15"}), {}),
}
BYTES_LOST = {"mp4", "mkv", "webm", "avi", "mjpeg.avi"}  # files that say how long they are


def broken(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """The file cut off after every tenth of it, with bytes changed in the middle, with an empty end, and its head."""
    for tenths in range(1, 10):
        yield f"cut off at {tenths}/10", whole[: len(whole) * tenths // 10]
    for seed, count in enumerate((1, 8, 200, 3000)):
        draw, data = random.Random(seed), bytearray(whole)
        start = len(whole) * (seed + 3) // 8
        for at in range(start, min(start + count, len(data))):
            data[at] ^= draw.randrange(1, 256)
        yield f"{count} bytes changed at {start}", bytes(data)
    yield "zeros from 7/10 on", whole[: len(whole) * 7 // 10].ljust(len(whole), b"\0")
    yield "its first 300 bytes", whole[:300]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of 60 frames that nothing ails."""
    folder, made = tmp_path_factory.mktemp("wholes"), {}
    frames = synthetic.video(synthetic.CLASSES[0], 0, frames=60, height=96, width=128)
    for name, (encoding, options) in WHOLE.items():
        write(folder / f"v.{name}", frames, encoding, **options)
        made[name] = (folder / f"v.{name}").read_bytes()
    return made


def taken(path: Path, accept_partial: bool = False) -> tuple[list[np.ndarray], str]:
    """Every frame that is given, and the reason why not more."""
    frames: list[np.ndarray] = []
    try:
        for block in decode(path, DecodeSettings(accept_partial=accept_partial)):
            frames.extend(block)
    except Undecodable as refused:
        return frames, refused.reason
    return frames, ""


@pytest.mark.parametrize("name", WHOLE)
def test_a_broken_video_is_refused_or_shows_what_ffmpeg_shows(
    tmp_path: Path, wholes: dict[str, bytes], name: str
) -> None:
    path, refused = tmp_path / f"v.{name}", []
    for what, data in broken(wholes[name]):
        path.write_bytes(data)
        frames, reason = taken(path)
        if reason:
            refused.append(what)
        else:
            reference = ffmpeg.frames(path)
            assert len(frames) == len(reference), what
            assert np.array_equal(frames, reference), what
        if "cut off" in what and name in BYTES_LOST:
            assert reason, what
    assert "its first 300 bytes" in refused


@pytest.mark.parametrize("name", WHOLE)
def test_of_a_broken_video_what_comes_before_the_damage_is_what_the_whole_one_shows(
    tmp_path: Path, wholes: dict[str, bytes], name: str
) -> None:
    path = tmp_path / f"v.{name}"
    path.write_bytes(wholes[name])
    whole, reason = taken(path)
    assert (len(whole), reason) == (60, "")
    some = 0
    for what, data in broken(wholes[name]):
        path.write_bytes(data)
        frames, reason = taken(path, accept_partial=True)
        if reason and "changed" not in what:  # a changed byte may show before any decoder can tell
            sure = len(frames) - (what.startswith("zeros") and name == "webm")  # VP9 takes zeros for a picture
            assert np.array_equal(frames[:sure], whole[:sure]), what
            some += sure > 0
    assert some or name == "ts"
