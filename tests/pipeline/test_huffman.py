"""What libjpeg warns of in a JPEG's data is found: held against the warnings that OpenCV's libjpeg prints."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.huffman import damage
from tests.pipeline.existing import HEIGHT, WIDTH, encoded

END = b"\xff\xd9"
OPTIONS = {
    "plain": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "with restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "of its own tables": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "with full chroma": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "coarse": (cv2.IMWRITE_JPEG_QUALITY, 5),
    "finest": (cv2.IMWRITE_JPEG_QUALITY, 100),
}
SEQUENTIAL = [name for name in OPTIONS if name != "progressive"]


def picture(*options: int, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> bytes:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return encoded(cv2.GaussianBlur(noise, (0, 0), 1.0), *options)


def scan_of(jpeg: bytes) -> int:
    """Where the data of the first scan begin."""
    at = jpeg.index(b"\xff\xda")
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (1, 1), (17, 31), (9, 200)])
def test_whole_pictures_have_no_damage(options: tuple[int, ...], channels: int, height: int, width: int) -> None:
    whole = picture(*options, height=height, width=width, channels=channels)
    assert damage(whole) == damage(whole + bytes(9)) == ""
    assert damage(whole + whole) == damage(whole + bytes(9) + whole) != ""


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_data_that_are_cut_off_before_an_end_put_back_are_damaged(options: tuple[int, ...], share: float) -> None:
    jpeg = picture(*options)
    start = scan_of(jpeg)
    cut = start + int(share * (len(jpeg) - 2 - start))
    assert damage(jpeg[:cut] + END) != ""


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_all_that_libjpeg_warns_of_is_found(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    jpeg, rng, warned, silent = picture(*OPTIONS[name]), np.random.default_rng(3), 0, 0
    for _ in range(120):
        broken = bytearray(jpeg)
        broken[rng.integers(scan_of(jpeg), len(jpeg) - 2)] ^= 1 << int(rng.integers(8))
        decoded = cv2.imdecode(np.frombuffer(bytes(broken), np.uint8), cv2.IMREAD_COLOR)
        warning = capfd.readouterr().err
        found = damage(bytes(broken))
        if warning or decoded is None:
            warned += 1
            assert found, warning
        elif found:  # libjpeg puts these coefficients nowhere, and says nothing
            assert found == "a block of it has more than 64 coefficients"
        else:
            silent += 1
    assert warned > 5
    assert silent > 5


@pytest.mark.parametrize("behind", [b"\0" * 9, b"\x12\xff\0\x34" * 4, b"\xff\0" * 12])
def test_data_behind_the_end_of_the_picture_are_damage(behind: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    broken = picture()[:-2] + behind + END
    cv2.imdecode(np.frombuffer(broken, np.uint8), cv2.IMREAD_COLOR)
    assert "extraneous" in capfd.readouterr().err
    assert damage(broken) == "its data go on behind the end of the picture"


def test_fill_bytes_before_a_marker_are_no_damage(capfd: pytest.CaptureFixture[str]) -> None:
    filled = picture()[:-2] + b"\xff\xff" + END
    assert cv2.imdecode(np.frombuffer(filled, np.uint8), cv2.IMREAD_COLOR) is not None
    assert capfd.readouterr().err == ""
    assert damage(filled) == ""


def test_a_header_that_names_tables_and_components_that_are_not_there_is_damaged() -> None:
    jpeg = picture()
    start = scan_of(jpeg)
    for place, value in ((start - 4, 0xFF), (start - 5, 9)):
        broken = bytearray(jpeg)
        broken[place] = value
        assert damage(bytes(broken)) == "its header is damaged"
