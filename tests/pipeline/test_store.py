"""Reading a store: what is there, what is refused, and the catalogue, which is only a shortcut."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import Refusal
from pipeline.store import VideoStore, catalogue, layout, open_store, shard
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.writing import VideoWriter, create_store
from pipeline.views import codec
from pipeline.views.rgb import RgbSettings


@pytest.fixture
def own_store(synthetic_store: VideoStore, tmp_path: Path) -> Path:
    """A copy of the store to change."""
    return Path(shutil.copytree(synthetic_store.root, tmp_path / "copy"))


def test_the_store_holds_what_was_extracted(synthetic_store: VideoStore) -> None:
    assert len(synthetic_store.videos) == 12
    assert synthetic_store.videos == sorted(synthetic_store.videos)
    info = synthetic_store.info(synthetic_store.videos[0])
    assert (info.length, info.height, info.width, info.fps, info.split) == (20, 48, 64, 25.0, "test")
    assert info.label in synthetic_store.classes
    assert info.source == synthetic_store.videos[0]
    assert info.views == ("rgb", "flow")
    assert info.shapes == {"rgb": (20, 48, 64, 3), "flow": (19, 2, 48, 64)}
    assert synthetic_store.quarantine == {}
    assert synthetic_store.settings["flow"]["estimator"] == "dis"


@given(st.lists(st.integers(0, 18), max_size=12), st.sampled_from(["rgb", "flow"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_come_in_the_order_that_is_asked_for(synthetic_store: VideoStore, frames: list[int], view: str) -> None:
    video_id = synthetic_store.videos[3]
    every = synthetic_store.read(video_id, view, slice(None))
    assert np.array_equal(synthetic_store.read(video_id, view, frames), every[frames])
    assert np.array_equal(synthetic_store.read(video_id, view, np.array(frames, np.int64)), every[frames])


@pytest.mark.parametrize(
    "frames", [slice(None), slice(3, 9), slice(None, None, 4), slice(-2, None), slice(8, 2, -1), slice(5, 5)]
)
def test_slices_are_slices(synthetic_store: VideoStore, frames: slice) -> None:
    video_id = synthetic_store.videos[3]
    every = synthetic_store.read(video_id, "flow", slice(None))
    assert every.shape == (19, 2, 48, 64)
    assert np.array_equal(synthetic_store.read(video_id, "flow", frames), every[frames])


def test_flow_is_given_in_pixels(synthetic_store: VideoStore) -> None:
    video_id = synthetic_store.videos[0]
    stored = synthetic_store.read(video_id, "flow", [0, 5])
    assert np.allclose(synthetic_store.flow(video_id, [0, 5]), stored * (40 / 255) - 20.0, atol=1e-5)


@pytest.mark.parametrize(("view", "frames"), [("rgb", [20]), ("flow", [19]), ("rgb", [-1]), ("rgb", [0, 5, 10**9])])
def test_frames_outside_are_refused(synthetic_store: VideoStore, view: str, frames: list[int]) -> None:
    with pytest.raises(IndexError, match=f"view '{view}' of .*, which has"):
        synthetic_store.read(synthetic_store.videos[0], view, frames)


@pytest.mark.parametrize("frames", [[0.5], [True] * 20, ["1"]])
def test_frames_are_whole_numbers(synthetic_store: VideoStore, frames: list) -> None:
    with pytest.raises(TypeError, match="numbers of frames"):
        synthetic_store.read(synthetic_store.videos[0], "rgb", frames)


def test_an_unknown_video_is_refused_with_the_nearest_name(synthetic_store: VideoStore) -> None:
    video_id = synthetic_store.videos[0]
    with pytest.raises(Refusal, match=f"nearest is '{video_id}'"):
        synthetic_store.info(video_id + "0")
    with pytest.raises(Refusal, match="no view 'pose'"):
        synthetic_store.read(video_id, "pose", [0])


def test_a_refused_video_is_told_with_its_reason(own_store: Path) -> None:
    path = layout.quarantine_path(own_store, "bad one")
    path.parent.mkdir(parents=True)
    entry = {"video_id": "bad one", "reason": "the file is empty", "stage": "open", "reproduce": "probe"}
    path.write_text(json.dumps(layout.seal(entry)))
    store = open_store(own_store)
    assert store.quarantine == {"bad one": "the file is empty"}
    with pytest.raises(Refusal, match="in quarantine: the file is empty"):
        store.info("bad one")
    path.write_text("{")
    with pytest.raises(Refusal, match="quarantine file cannot be read") as refused:
        store.quarantine
    assert refused.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no store"),
        ("", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"attributes": {}}', "not a costream store"),
        ('{"attributes": {"costream": {"schema": 1}}}', "does not match its own digest"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "store"
    if text is not None:
        path.mkdir()
        (path / layout.RECORD).write_text(text)
    with pytest.raises(Refusal, match=message) as refused:
        open_store(path)
    assert str(path) in refused.value.where


def test_a_store_of_a_later_version_is_refused(own_store: Path) -> None:
    attributes = layout.attributes_of((own_store / layout.RECORD).read_bytes())
    assert attributes is not None
    later = layout.seal(
        {**{key: attributes[key] for key in attributes if key != "digest"}, "schema": layout.SCHEMA + 1}
    )
    (own_store / layout.RECORD).write_bytes(layout.group({layout.ATTRIBUTE: later}))
    with pytest.raises(Refusal, match=f"schema version {layout.SCHEMA + 1}"):
        open_store(own_store)


def test_a_damaged_shard_is_refused_with_the_videos_name(own_store: Path) -> None:
    store = open_store(own_store)
    first, second = store.videos[:2]
    path = shard.path(store.path(first, "rgb"), 0, 4)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refusal, match=f"video '{first}' is damaged: frame 0") as refused:
        store.read(first, "rgb", [0])
    assert refused.value.where == str(path)
    assert store.read(first, "rgb", [19]).shape == (1, 48, 64, 3)
    path.unlink()
    with pytest.raises(Refusal, match=f"video '{first}' is damaged"):
        store.encoded(first, "rgb", [0])
    assert store.read(second, "rgb", [0]).shape == (1, 48, 64, 3)


def test_a_record_that_was_changed_is_refused(own_store: Path) -> None:
    layout.catalogue_path(own_store).unlink()
    path = layout.record_path(own_store, open_store(own_store).videos[0])
    path.write_bytes(path.read_bytes().replace(b'"length": 20', b'"length": 21'))
    with pytest.raises(Refusal, match="does not match its own digest") as refused:
        open_store(own_store).videos
    assert refused.value.where == str(path)
    path.write_bytes(b"")
    with pytest.raises(Refusal, match="cannot be read"):
        open_store(own_store).videos


def stored(root: Path, video_id: str) -> None:
    """One video of two gray frames under that name."""
    settings = ExtractionSettings({"rgb": RgbSettings()}).resolved()
    create_store(root, settings)
    (view,) = settings.extractors(video_id)
    writer = VideoWriter(root, video_id)
    writer.begin()
    view.frame_shape = (16, 16, 3)
    writer.add(view, [codec.encode(np.full((16, 16, 3), 128, np.uint8), "rgb", 95)] * 2)
    facts = {"label": "", "source": video_id, "split": "", "fps": 25.0, "length": 2, "file": {}}
    writer.commit([view], facts | {"settings_hash": settings_hash(settings.as_dict())})


NESTED = ["a", "a/b", "a/rgb", "rgb", "c", "c/0", "zarr.json", "a/zarr.json", "x.json", "x.json/y", "flow", "名" * 90]


def test_no_name_of_a_video_is_in_the_way_of_another(tmp_path: Path) -> None:
    for video_id in NESTED:
        stored(tmp_path, video_id)
    store = open_store(tmp_path)
    assert store.videos == sorted(NESTED)
    assert all(store.read(video_id, "rgb", [1]).mean() == 128 for video_id in NESTED)
    catalogue.save(tmp_path)
    assert open_store(tmp_path).videos == sorted(NESTED)


def test_a_video_that_is_taken_out_leaves_those_below_its_name(tmp_path: Path) -> None:
    for video_id in NESTED:
        stored(tmp_path, video_id)
    for video_id in ("a", "rgb", "c", "x.json"):
        VideoWriter(tmp_path, video_id).discard()
    left = sorted(set(NESTED) - {"a", "rgb", "c", "x.json"})
    store = open_store(tmp_path)
    assert store.videos == left
    assert all(store.read(video_id, "rgb", slice(None)).shape == (2, 16, 16, 3) for video_id in left)
    assert (tmp_path / "videos" / "a" / layout.RECORD).read_bytes() == layout.group()


def test_the_catalogue_is_not_believed_about_what_exists(own_store: Path, tmp_path: Path) -> None:
    first, second, third, *_ = open_store(own_store).videos
    shutil.move(layout.video_folder(own_store, first), tmp_path / "aside")
    layout.record_path(own_store, second).unlink()
    gone = open_store(own_store)
    assert first not in gone.videos
    assert second not in gone.videos
    assert third in gone.videos
    shutil.move(tmp_path / "aside", layout.video_folder(own_store, first))
    assert first in open_store(own_store).videos


def test_a_record_that_is_not_the_one_of_the_catalogue_is_read(own_store: Path) -> None:
    """However old it says it is."""
    video_id = open_store(own_store).videos[0]
    path = layout.record_path(own_store, video_id)
    record = catalogue.read_record(path)
    assert record is not None
    del record["digest"]
    path.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal({**record, "fps": 12.5})}))
    after = layout.catalogue_path(own_store).stat().st_mtime_ns
    for changed in (after - 10**15, after, after + 1, after + 10**15):
        os.utime(path, ns=(changed, changed))
        assert open_store(own_store).info(video_id).fps == 12.5


def test_the_catalogue_is_a_function_of_the_store(own_store: Path) -> None:
    path = layout.catalogue_path(own_store)
    before = path.read_bytes()
    catalogue.save(own_store)
    assert path.read_bytes() == before
    path.unlink()
    catalogue.save(own_store)
    assert path.read_bytes() == before


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_damaged_catalogue_changes_nothing(
    synthetic_store: VideoStore, own_store: Path, place: float, bit: int
) -> None:
    path = layout.catalogue_path(own_store)
    data = bytearray(layout.catalogue_path(synthetic_store.root).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert open_store(own_store).infos == synthetic_store.infos
