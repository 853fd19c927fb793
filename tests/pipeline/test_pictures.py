"""How large a picture may say that it is: refused before memory is taken, by name and limit, in every decoder."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import LARGEST, pictures
from pipeline.bench.pairs import read_pair
from pipeline.errors import Refusal
from pipeline.existing import jpegs
from pipeline.show import flow_files
from pipeline.video.decode import Undecodable, decode
from pipeline.views import codec

SIDE = 32_000
TOLD = f"it announces {SIDE}x{SIDE} pixels, more than {LARGEST:,}; COSTREAM_MAX_PIXELS in the environment allows more"
SMALL = np.zeros((16, 16, 3), np.uint8)


def jpeg(height: int = SIDE, width: int = SIDE, *options: int) -> bytes:
    """A picture of 16 x 16 whose header announces another size."""
    data = bytearray(cv2.imencode(".jpg", SMALL, options)[1].tobytes())
    at = next(data.index(bytes([0xFF, marker])) for marker in (0xC0, 0xC2) if bytes([0xFF, marker]) in data)
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png(depth: int = 8, side: int = SIDE) -> bytes:
    data = bytearray(cv2.imencode(".png", SMALL.astype(np.uint16 if depth == 16 else np.uint8))[1].tobytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Nothing here takes more than this beyond what the process had: the pictures would take gigabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 2**10  # KiB


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_frames_and_flow_that_are_brought(options: tuple[int, ...]) -> None:
    with pytest.raises(Undecodable, match="frame 3 cannot be decoded: it announces") as refused:
        jpegs.frame(jpeg(SIDE, SIDE, *options), "frame 3")
    assert refused.value.reason == f"frame 3 cannot be decoded: {TOLD}"
    with pytest.raises(Undecodable, match="flow 3 cannot be decoded: it announces"):
        jpegs.planes((jpeg(), jpeg()), "flow 3")
    with pytest.raises(Undecodable, match="frame 3 is no JPEG"):
        jpegs.frame(png() + pictures.JPEG_END, "frame 3")  # of another kind, in a file of that name


def test_stored_frames_have_the_size_of_their_array() -> None:
    for layout, shape in (("rgb", (16, 16, 3)), ("stacked", (2, 8, 16))):
        with pytest.raises(ValueError, match=f"holds an image of {SIDE} x {SIDE}"):
            codec.decode(np.frombuffer(jpeg(), np.uint8), layout, shape)  # type: ignore[arg-type]


def test_a_stored_frame_without_loss_is_not_decompressed_beyond_its_size() -> None:
    frames, bomb = codec.ZstdFrames(), b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + b"\x03\x00\x10" + b"\0"
    with pytest.raises(ValueError, match=f"hold {2**40} bytes"):
        frames.decode_frame(np.frombuffer(bomb, np.uint8), (2, 48, 64))
    for side in (1, 10, 30, 200, 300):
        frame = np.random.default_rng(0).integers(0, 255, (2, side, side), dtype=np.uint8)
        assert np.array_equal(frames.decode_frame(frames.encode_frame(frame), frame.shape), frame)


def test_images_of_the_flow_commands(tmp_path: Path) -> None:
    for name, data in (("a.jpg", jpeg()), ("a.png", png())):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Refusal, match="the image cannot be decoded: it announces"):
            read_pair(tmp_path / name, tmp_path / name)
    (tmp_path / "flow.png").write_bytes(png(16))
    with pytest.raises(Refusal, match="it announces"):
        flow_files.read(tmp_path / "flow.png")


def test_a_header_of_an_array_may_claim_any_size(tmp_path: Path) -> None:
    for shape in ((2, 10**6, 10**7), (2, 10**12, 10**12)):
        with open(tmp_path / "flow.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with pytest.raises(Refusal, match="this is not a whole .npy file of flow"):
            flow_files.read(tmp_path / "flow.npy")


GIF = b"GIF89a" + struct.pack("<HH", 9000, 9000) + b"\x80\0\0" + bytes(6) + b"," + struct.pack("<4H", 0, 0, 9000, 9000)
VIDEOS = {
    "y4m": b"YUV4MPEG2 W9000 H9000 F25:1 Ip A1:1 C420mpeg2\nFRAME\n" + bytes(100),
    "gif": GIF + b"\0\x02\x02L\x01\0;",
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_videos(tmp_path: Path, kind: str) -> None:
    for name in ("first", "second"):  # each is told, though FFmpeg says what it said before only once
        (tmp_path / f"{name}.{kind}").write_bytes(VIDEOS[kind])
        with pytest.raises(Undecodable, match="it announces 9000x9000 pixels") as refused:
            next(decode(tmp_path / f"{name}.{kind}"))
        assert refused.value.stage == "open"


ASKED: dict[str, Callable[[int], bool]] = {"100": lambda code: code == 0, "none": bool, "-1": bool, "0": bool}


@pytest.mark.parametrize("value", ASKED)
def test_the_limit_is_set_by_the_environment(value: str) -> None:
    program = "from pipeline import pictures; pictures.refuse_huge(10, 10); print(pictures.TooLarge(10, 11))"
    environment = {**os.environ, "COSTREAM_MAX_PIXELS": value}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ASKED[value](ran.returncode)
    assert "COSTREAM_MAX_PIXELS" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_sizes_are_those_of_the_pictures() -> None:
    picture = np.zeros((30, 50, 3), np.uint8)
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_OPTIMIZE, 1]):
        assert pictures.jpeg_size(cv2.imencode(".jpg", picture, options)[1]) == (30, 50)
    whole = cv2.imencode(".jpg", picture)[1].tobytes()
    commented = whole[:2] + b"\xff\xfe" + struct.pack(">H", 60_000) + bytes(59_998) + whole[2:]
    assert pictures.jpeg_size(commented) == (30, 50)
    assert pictures.jpeg_size(whole[:2] + b"\xff\xff" + whole[2:]) == (30, 50)
    assert pictures.jpeg_size(whole[:20]) is None
    assert pictures.jpeg_size(b"") is None
