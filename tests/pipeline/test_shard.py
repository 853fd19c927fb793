"""Shards: our writer against zarr-python's, our reader against zarr-python's, and damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec
from zarr.registry import get_codec_class

from pipeline import storage
from pipeline.store import VideoStore, layout, open_store, shard
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.writing import VideoWriter, create_store
from pipeline.views import VIEWS, Extractor
from pipeline.views.codec import Chroma
from pipeline.views.flow import Codec, FlowExtractor, FlowSettings
from pipeline.views.rgb import RgbSettings

LENGTHS = (1, 2, 255, 256, 257, 600)


def flow_settings(codec: Codec = "jpeg") -> FlowSettings:
    return FlowSettings(estimator="dis", codec=codec).resolved()


SETTINGS = ExtractionSettings({"rgb": RgbSettings(), "flow": flow_settings()})


def random_frames(view: Extractor, length: int, height: int = 16, width: int = 24) -> np.ndarray:
    """Arbitrary frames (length, ...) of a view, a function of the length."""
    shape = (height, width, 3) if view.layout == "rgb" else (VIEWS[view.name].planes, height, width)
    return np.random.default_rng(length).integers(0, 256, (length, *shape), dtype=np.uint8)


def write(root: Path, length: int, block: int = 100, settings: ExtractionSettings = SETTINGS) -> VideoStore:
    """A store of one video of random frames, given to the writer in blocks."""
    create_store(root, settings)
    writer, views = VideoWriter(root, "v"), settings.extractors("v")
    writer.begin()
    for view in views:
        frames = random_frames(view, VIEWS[view.name].stored_frames(length))
        view.frame_shape = frames.shape[1:]
        for start in range(0, len(frames), block):
            writer.add(view, [view.codec.encode_frame(frame) for frame in frames[start : start + block]])
    facts = {"label": "", "source": "v", "split": "", "fps": 25.0, "length": length}
    writer.commit(views, {**facts, "settings_hash": settings_hash(settings.as_dict()), "file": {}})
    return open_store(root)


def write_with_zarr(path: Path, view: Extractor, length: int) -> None:
    """The array as zarr-python makes it, codec and sharding and all."""
    frames = random_frames(view, length)
    slots = max(1, min(length, shard.FRAMES_PER_SHARD))
    serializer, *compressors = [get_codec_class(one["name"]).from_dict(one) for one in view.codec.chain()]
    array = zarr.create_array(
        str(path),
        shape=frames.shape,
        dtype="uint8",
        chunks=(1, *frames.shape[1:]),
        shards=(slots, *frames.shape[1:]),
        filters=[],
        compressors=[*compressors, Crc32cCodec()],
        serializer=serializer,
        fill_value=0,
        dimension_names=("frame", "y", "x", "channel") if view.layout == "rgb" else ("frame", "plane", "y", "x"),
        attributes=view.attributes,
        config={"write_empty_chunks": True},
    )
    for start in range(0, length, slots):
        array[start : start + slots] = frames[start : start + slots]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("chroma", "codec"), [("4:2:0", "jpeg"), ("4:4:4", "zstd")])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_writer_makes_the_bytes_that_zarr_makes_and_a_mark(
    tmp_path: Path, length: int, chroma: Chroma, codec: Codec
) -> None:
    chosen = ExtractionSettings({"rgb": RgbSettings(chroma=chroma), "flow": flow_settings(codec)})
    store = write(tmp_path / "store", length, settings=chosen)
    for view in chosen.extractors("v"):
        count = VIEWS[view.name].stored_frames(length)
        write_with_zarr(tmp_path / view.name, view, count)
        ours, theirs = files(store.path("v", view.name)), files(tmp_path / view.name)
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {layout.RECORD}:
            part, behind = int(name.split("/")[1]), 16 * min(count, shard.FRAMES_PER_SHARD) + shard.CRC_BYTES
            frames, mark = ours[name][: -behind - shard.MARK_BYTES], shard.mark("v", view.name, part)
            assert ours[name] == frames + mark + theirs[name][-behind:]
            assert theirs[name] == frames + theirs[name][-behind:]
        assert ours[layout.RECORD] == theirs[layout.RECORD]
        assert len(ours) == 1 + -(-count // shard.FRAMES_PER_SHARD)


@pytest.mark.parametrize("codec", get_args(Codec))
@pytest.mark.parametrize("length", LENGTHS)
def test_raw_reads_equal_what_zarr_decodes(tmp_path: Path, length: int, codec: Codec) -> None:
    store = write(tmp_path, length, settings=ExtractionSettings({**SETTINGS.views, "flow": flow_settings(codec)}))
    if codec == "zstd":
        assert np.array_equal(
            store.read("v", "flow", slice(None)), random_frames(FlowExtractor(flow_settings()), length - 1)
        )
    for view in SETTINGS.extractors("v"):
        decoded = zarr.open_array(str(store.path("v", view.name)), mode="r")[:]
        assert decoded.shape == store.info("v").shapes[view.name]
        assert np.array_equal(store.read("v", view.name, slice(None)), decoded)


def test_blocks_do_not_show_in_the_shards(tmp_path: Path) -> None:
    stores = [write(tmp_path / str(block), 520, block) for block in (1, 255, 256, 257, 520)]
    expected = files(stores[0].root)
    assert all(files(store.root) == expected for store in stores[1:])


def test_a_zarr_client_that_knows_nothing_of_us_reads_the_arrays(synthetic_store: VideoStore, tmp_path: Path) -> None:
    client = """
import sys, numpy, zarr
root, out = sys.argv[1:]
group = zarr.open_group(root, mode="r")
assert not [name for name in sys.modules if name.split(".")[0] == "pipeline"]
numpy.savez(out, **{path: array[:] for path, array in group.members(max_depth=None) if hasattr(array, "shape")})
assert "pipeline.views.codec" in sys.modules  # by the entry point
"""
    out = tmp_path / "decoded.npz"
    subprocess.run([sys.executable, "-c", client, synthetic_store.root, out], check=True, cwd=tmp_path)
    decoded = np.load(out)
    names = {f"videos/{layout.quoted(i)}/{view}": (i, view) for i in synthetic_store.videos for view in ("rgb", "flow")}
    assert set(decoded.files) == set(names)
    for path, (video_id, view) in names.items():
        assert np.array_equal(decoded[path], synthetic_store.read(video_id, view, slice(None)))


streams_of = st.lists(st.binary(min_size=1, max_size=50).map(lambda data: np.frombuffer(data, np.uint8)), max_size=12)


def opened(path: Path, data: bytes) -> storage.OpenFile:
    path.write_bytes(data)
    return storage.open_file(path)


@given(streams=streams_of, spare=st.integers(0, 3), data=st.data())
def test_streams_come_back_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, streams: list[np.ndarray], spare: int, data: st.DataObject
) -> None:
    slots = len(streams) + spare
    file = opened(tmp_path_factory.mktemp("shard") / "0", shard.pack(streams, slots))
    index = shard.read_index(file, slots, len(streams))
    if streams:
        wanted = data.draw(st.lists(st.integers(0, len(streams) - 1), min_size=1))
        found = shard.read_frames(file, index, wanted)
        assert [one.tobytes() for one in found] == [streams[slot].tobytes() for slot in wanted]
    for slot in range(len(streams), slots):
        with pytest.raises(shard.CorruptShard, match="never written"):
            next(shard.read_frames(file, index, [slot]))


@given(data=st.data())
@settings(max_examples=200)
def test_no_flipped_bit_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    streams = [np.arange(9, dtype=np.uint8), np.arange(30, dtype=np.uint8), np.arange(4, dtype=np.uint8)]
    packed = bytearray(shard.pack(streams, 4))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file = opened(tmp_path_factory.mktemp("shard") / "0", bytes(packed))
    with pytest.raises(shard.CorruptShard):
        list(shard.read_frames(file, shard.read_index(file, 4, 3), [0, 1, 2]))


@given(kept=st.integers(0, 114))
def test_a_shard_cut_short_is_noticed(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    packed = shard.pack([np.arange(9, dtype=np.uint8), np.arange(30, dtype=np.uint8)], 4)
    assert len(packed) > 114
    file = opened(tmp_path_factory.mktemp("shard") / "0", packed[:kept])
    with pytest.raises(shard.CorruptShard, match="index"):
        shard.read_index(file, 4, 2)
