"""The JPEG codec, alone and in Zarr."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from pipeline.store import VideoStore
from pipeline.views import codec
from pipeline.views.codec import JpegCodec


def frame(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["rgb", "stacked"]), st.integers(1, 100))
def test_a_frame_comes_back_in_its_shape(height: int, width: int, layout: codec.Layout, quality: int) -> None:
    shape = (height, width, 3) if layout == "rgb" else (2, height, width)
    stream = codec.encode(frame(shape), layout, quality)
    assert stream.dtype == np.uint8
    assert stream.ndim == 1
    assert codec.decode(stream, layout, shape).shape == shape


def test_colours_and_planes_keep_their_places() -> None:
    rgb = np.empty((16, 16, 3), np.uint8)
    rgb[:] = 200, 100, 20
    assert np.abs(codec.decode(codec.encode(rgb, "rgb", 95), "rgb", rgb.shape).astype(int) - rgb).max() <= 2
    flow = np.stack([np.full((16, 16), 40, np.uint8), np.full((16, 16), 220, np.uint8)])
    assert np.abs(codec.decode(codec.encode(flow, "stacked", 95), "stacked", flow.shape).astype(int) - flow).max() <= 1


@pytest.mark.parametrize(("chroma", "sampling"), [("4:2:0", 0x22), ("4:4:4", 0x11)])
def test_chroma_is_kept_at_half_or_full_size(chroma: codec.Chroma, sampling: int) -> None:
    """Columns of two colours of one brightness: halved chroma smears them into one."""
    stripes = np.empty((16, 16, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (150, 100, 60), (60, 120, 180)
    stream = codec.encode(stripes, "rgb", 95, chroma)
    frame_header = stream.tobytes().index(b"\xff\xc0")  # SOF0: size 2, bits 1, height 2, width 2, components 1, id 1
    assert stream[frame_header + 11] == sampling
    error = np.abs(codec.decode(stream, "rgb", stripes.shape).astype(int) - stripes).max()
    assert error <= 6 if chroma == "4:4:4" else error > 40


def test_flow_is_one_gray_image_of_u_over_v() -> None:
    stream = codec.encode(frame((2, 24, 40)), "stacked", 95)
    assert cv2.imdecode(stream, cv2.IMREAD_UNCHANGED).shape == (48, 40)


@pytest.mark.parametrize(
    ("stream", "layout", "shape"),
    [
        (np.zeros(0, np.uint8), "rgb", (8, 8, 3)),
        (np.zeros(100, np.uint8), "rgb", (8, 8, 3)),
        (codec.encode(frame((8, 8, 3)), "rgb", 95), "rgb", (8, 9, 3)),
        (codec.encode(frame((8, 8, 3)), "rgb", 95), "rgb", (4, 16, 3)),
        (codec.encode(frame((2, 8, 8)), "stacked", 95), "stacked", (2, 4, 16)),
        (codec.encode(frame((2, 8, 8)), "stacked", 95), "stacked", (2, 8, 9)),
    ],
)
def test_a_stream_of_something_else_is_refused(
    stream: np.ndarray, layout: codec.Layout, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="should hold a frame of shape"):
        codec.decode(stream, layout, shape)


def array(path: Path, shape: tuple[int, ...], layout: codec.Layout, dtype: str = "uint8") -> zarr.Array:
    return zarr.create_array(
        str(path),
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        filters=[],
        compressors=[Crc32cCodec()],
        serializer=JpegCodec(95, layout),
        fill_value=0,
        config={"write_empty_chunks": True},
    )


@pytest.mark.parametrize(("shape", "layout"), [((5, 20, 24, 3), "rgb"), ((4, 2, 20, 24), "stacked")])
def test_zarr_decodes_what_it_encoded(tmp_path: Path, shape: tuple[int, ...], layout: codec.Layout) -> None:
    frames = frame(shape)
    array(tmp_path, shape, layout)[:] = frames
    reopened = zarr.open_array(str(tmp_path), mode="r")
    expected = [codec.decode(codec.encode(one, layout, 95), layout, shape[1:]) for one in frames]
    assert np.array_equal(reopened[:], expected)
    assert np.array_equal(reopened[2, 3:9], expected[2][3:9])


@pytest.mark.parametrize("jpeg", [JpegCodec(80), JpegCodec(95, "rgb", "4:4:4"), JpegCodec(90, "stacked")])
def test_a_codec_comes_back_from_its_metadata(jpeg: JpegCodec) -> None:
    assert JpegCodec.from_dict(jpeg.to_dict()) == jpeg


def test_arrays_that_jpeg_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stores uint8"):
        array(tmp_path / "a", (2, 8, 8, 3), "rgb", "uint16")
    with pytest.raises(ValueError, match="cannot store an array of shape"):
        array(tmp_path / "b", (2, 8, 8, 4), "rgb")
    with pytest.raises(ValueError, match="cannot store an array of shape"):
        array(tmp_path / "c", (2, 8, 8), "stacked")


def test_a_flipped_bit_does_not_pass_zarr(tmp_path: Path) -> None:
    shape = (1, 24, 24, 3)
    array(tmp_path, shape, "rgb")[:] = frame(shape)
    chunk = tmp_path / "c" / "0" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(str(tmp_path), mode="r")[:]


@pytest.mark.parametrize("view", ["rgb", "flow"])
def test_dali_decodes_the_streams_to_the_same_bytes(synthetic_store: VideoStore, view: str) -> None:
    from nvidia.dali import pipeline_def, types  # takes seconds
    from nvidia.dali.fn import decoders, external_source

    video_id = synthetic_store.videos[0]
    streams = synthetic_store.encoded(video_id, view, slice(None))

    @pipeline_def(batch_size=len(streams), num_threads=1, device_id=None)
    def decoding() -> object:
        kind = types.RGB if view == "rgb" else types.GRAY
        return decoders.image(external_source(name="streams"), device="cpu", output_type=kind)

    pipe = decoding()
    pipe.build()
    pipe.feed_input("streams", streams)
    (decoded,) = pipe.run()
    expected = synthetic_store.read(video_id, view, slice(None))
    assert np.array_equal(
        np.stack([np.asarray(decoded.at(i)).reshape(expected[0].shape) for i in range(len(streams))]), expected
    )
