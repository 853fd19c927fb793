"""Our decoder of JPEG against OpenCV's: pixel by pixel, whatever is in the frame and in its bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.views.codec import Chroma, JpegCodec
from train.reader.jpeg import PixelWindow, WindowDecoder
from train.reader.resize import TOGETHER

SHAPES = [(128, 171, 3), (240, 320, 3), (33, 17, 3), (2, 128, 171), (1, 13, 9), (3, 40, 56)]


def drawn(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "black and white":
        return rng.integers(0, 2, shape, dtype=np.uint8) * 255
    frame = rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "smooth":
        planes = frame[None] if shape[-1] == 3 else frame
        frame = np.stack([cv2.GaussianBlur(plane, (0, 0), 5) for plane in planes]).reshape(shape)
    return frame


def codec(shape: tuple[int, ...], quality: int = 95, chroma: Chroma = "4:2:0") -> JpegCodec:
    return JpegCodec(quality, "rgb" if shape[-1] == 3 else "stacked", chroma)


def windows(shape: tuple[int, ...], rng: np.random.Generator) -> list[PixelWindow]:
    """The whole frame, one of its corners and any window."""
    height, width = shape[:2] if shape[-1] == 3 else shape[1:]
    top, left = int(rng.integers(height)), int(rng.integers(width))
    down, across = int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))
    return [(0, 0, height, width), (height - 1, width - 1, 1, 1), (top, left, down, across)]


def cut(frame: np.ndarray, window: PixelWindow) -> np.ndarray:
    top, left, height, width = window
    rows, columns = slice(top, top + height), slice(left, left + width)
    return frame[rows, columns] if frame.shape[-1] == 3 else frame[:, rows, columns]


def opencv_is_not_asked(codec: JpegCodec, *given: Any) -> np.ndarray:
    raise AssertionError("decoded by OpenCV")


@pytest.mark.parametrize("kind", ["noise", "smooth", "black and white"])
@pytest.mark.parametrize("chroma", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_window_has_opencvs_pixels(
    shape: tuple[int, ...], chroma: Chroma, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every quality from what is hardly there to what is hardly lost; frames of the sizes that stores have."""
    rng = np.random.default_rng(7)
    for quality in (1, 50, 95, 100):
        made = codec(shape, quality, chroma)
        encoded = made.encode_frame(drawn(kind, shape, quality))
        expected = made.decode_frame(encoded, shape)
        with monkeypatch.context() as patch:
            patch.setattr(JpegCodec, "decode_frame", opencv_is_not_asked)
            for window in windows(shape, rng):
                [found] = WindowDecoder(made, shape, [window])([encoded])
                assert found.shape == shape
                np.testing.assert_array_equal(cut(found, window), cut(expected, window))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 50), st.integers(1, 50), st.sampled_from([95, 100, 30]), st.integers(0, 2**32 - 1))
def test_frames_of_any_size_have_opencvs_pixels(data: Any, height: int, width: int, quality: int, seed: int) -> None:
    shape = data.draw(st.sampled_from([(height, width, 3), (1, height, width), (2, height, width)]))
    made = codec(shape, quality, data.draw(st.sampled_from(["4:2:0", "4:4:4"])))
    streams = [made.encode_frame(drawn("noise", shape, seed + n)) for n in range(data.draw(st.integers(1, TOGETHER)))]
    several = windows(shape, np.random.default_rng(seed))[1:]
    for found, encoded in zip(WindowDecoder(made, shape, several)(streams), streams, strict=True):
        expected = made.decode_frame(encoded, shape)
        for window in several:
            np.testing.assert_array_equal(cut(found, window), cut(expected, window))


def outcome(decode: Any, *given: Any) -> list[np.ndarray] | str:
    try:
        return decode(*given)
    except ValueError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([(40, 56, 3), (2, 24, 40)]), st.integers(0, 2**32 - 1), st.sampled_from(["flip", "cut", "fill"]))
def test_damaged_bytes_give_what_opencv_makes_of_them(shape: tuple[int, ...], seed: int, damage: str) -> None:
    """Whatever passes a checksum, as it was damaged before it was stored: the same pixels, or the same refusal; and
    the frames beside it are whole."""
    rng = np.random.default_rng(seed)
    made = codec(shape)
    encoded = made.encode_frame(drawn("noise" if seed % 2 else "smooth", shape, seed)).copy()
    place = int(rng.integers(len(encoded) if seed % 4 else 300))  # often in the header
    if damage == "flip":
        encoded[place] ^= 1 << int(rng.integers(8))
    elif damage == "cut":
        encoded = encoded[: max(place, 1)]
    else:
        encoded[place : place + 20] = rng.choice([0, 255])
    window = (0, 0, *(shape[:2] if shape[-1] == 3 else shape[1:]))
    beside = made.encode_frame(drawn("noise", shape, 1))
    streams = [beside, encoded, beside]
    found = outcome(WindowDecoder(made, shape, [window]), streams)
    expected = outcome(lambda: [made.decode_frame(stream, shape) for stream in streams])
    assert type(found) is type(expected)
    if isinstance(expected, str):
        assert found == expected
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {cv2.IMWRITE_JPEG_QUALITY: 80},
        {cv2.IMWRITE_JPEG_PROGRESSIVE: 1},
        {cv2.IMWRITE_JPEG_OPTIMIZE: 1},
        {cv2.IMWRITE_JPEG_RST_INTERVAL: 3},
        {cv2.IMWRITE_JPEG_SAMPLING_FACTOR: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422},
    ],
    ids=["quality", "progressive", "optimised", "restarts", "4:2:2"],
)
def test_what_others_encoded_is_left_to_opencv(options: dict[int, int]) -> None:
    shape = (40, 56, 3)
    frame, made = drawn("smooth", shape, 1), codec(shape)
    flat = [part for option in ({cv2.IMWRITE_JPEG_QUALITY: 95} | options).items() for part in option]
    encoded = cv2.imencode(".jpg", frame, flat)[1]
    [found] = WindowDecoder(made, shape, [(3, 4, 20, 30)])([encoded])
    np.testing.assert_array_equal(found, made.decode_frame(encoded, shape))


def test_only_the_window_is_decoded_fails() -> None:
    """The comparisons above would notice a part that was not decoded."""
    shape = (128, 171, 3)
    made = codec(shape)
    encoded = made.encode_frame(drawn("noise", shape, 0))
    [found] = WindowDecoder(made, shape, [(40, 40, 16, 16)])([encoded])
    assert not np.array_equal(found, made.decode_frame(encoded, shape))
