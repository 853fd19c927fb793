"""What a loader refuses before its first batch, and what stops it in the middle: by name, with what to do."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.rgb import RgbSettings
from tests.train import runs
from tests.train.batches import make, threads
from tests.train.stores import write_store
from train.clips.spec import ClipSpec
from train.order import OrderSettings
from train.sampling.random import Random


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("loader") / "store", runs.VIDEOS)


@pytest.fixture
def damaged(store: VideoStore, tmp_path: Path) -> VideoStore:
    """A copy of the store in which one byte of a frame of the video v05 has another value."""
    shutil.copytree(store.root, tmp_path / "store")
    copy = open_store(tmp_path / "store")
    [shard] = [path for path in (copy.path("v05", "rgb") / "c").rglob("*") if path.is_file()]
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 16
    shard.write_bytes(content)
    return copy


@pytest.mark.parametrize(("executor", "threads_of_reader"), [("opencv", 1), ("opencv", 2), ("dali", 2)])
def test_damaged_video_is_named_at_its_batch(damaged: VideoStore, executor: str, threads_of_reader: int) -> None:
    """Nobody skips it, replaces it or waits for it: the batches before come, and then the refusal."""
    before = threads()
    # Clips of all frames of the shortest videos, so that each video is read whole.
    clips = ClipSpec(length=6, stride=1, size=(16, 16))
    loader = make(
        damaged,
        clips=clips,
        reads=dict.fromkeys(("rgb", "flow"), range(8)),
        executor=executor,
        threads=threads_of_reader,
    )
    [place] = np.flatnonzero(loader.order.samples(0) == damaged.videos.index("v05")) // 4
    assert place in (1, 2), "with this seed the damaged video is in the epoch, and not in its first batch"
    delivered = 0
    with pytest.raises(Refusal, match="(?s)video 'v05' is damaged.*where: .*v05.*make verify"):
        for _ in loader:
            delivered += 1
    assert delivered == place
    assert loader.state_dict() == {"delivered": place}
    loader.close()
    gc.collect()
    assert threads() == before


def test_settings_that_cannot_work_fail(store: VideoStore, tmp_path: Path) -> None:
    before = threads()

    def refused(message: str, kind: type[Refusal] = Refusal, **changes: Any) -> None:
        with pytest.raises(kind, match=message) as refusal:
            make(store, **changes)
        assert refusal.value.remedy

    refused("(?s)3 videos for training: fewer than one batch of 4.*smaller batch", videos=store.videos[:3])
    refused("0 videos for training", videos=[])
    refused("(?s)batch of 4 cannot be shared evenly by 3 processes.*multiple", UsageError, world_size=3)
    # The longest video has nine frames, and so eight of flow.
    refused("(?s)needs 9 frames .clips of 9, 1 apart.*has 8", clips=ClipSpec(length=9, stride=1, size=(16, 16)))
    refused("(?s)needs 10 frames .clips of 5, 2 apart", clips=ClipSpec(length=5, stride=2, size=(16, 16)))
    make(store, clips=ClipSpec(length=4, stride=2, size=(16, 16))).close()
    # A last batch of one video.
    kept = OrderSettings(last="keep")
    refused("(?s)last batch of an epoch, of 1 video.*by 2 processes.*drop", UsageError, order=kept, world_size=2)
    make(store, order=kept, world_size=2, videos=store.videos[:10]).close()
    make(store, order=kept, videos=store.videos[:3]).close()
    refused("0 videos for training", videos=[], order=kept)
    refused("(?s)14 videos cannot be drawn from 13.*order.limit", UsageError, order=OrderSettings(limit=14))
    refused("(?s)3 videos for training: fewer than one batch of 4", order=OrderSettings(limit=3))
    refused('(?s)unknown reader "opencvv".*did you mean "opencv"', UsageError, executor="opencvv")
    refused("(?s)0 is out of range.*reader threads", UsageError, threads=0)
    assert threads() == before


def test_store_of_two_flow_encodings_fails_by_name(tmp_path: Path) -> None:
    """Folders of videos were copied in from another store: read with this one's bound, their flow would be halved."""
    sizes = {name: (8, 20, 24) for name in ("v1", "v2", "v3")}
    mixed = write_store(tmp_path / "store", sizes)
    other = write_store(tmp_path / "other", sizes, bound=10.0)
    for name in ("v3", "v2"):
        shutil.copytree(other.root / "videos" / name, mixed.root / "videos" / name, dirs_exist_ok=True)
    message = "(?s)2 videos made with other settings than the store's.*: 'v2', 'v3'.*videos/v2/zarr.json.*make verify"
    with pytest.raises(Refusal, match=message):
        open_store(mixed.root).videos
    for name in ("v3", "v2"):
        (mixed.root / "videos" / name / "zarr.json").unlink()
    assert open_store(mixed.root).videos == ["v1"]


@pytest.mark.parametrize("short", ["pad", "drop"])
def test_a_video_without_flow_is_left_out_and_told(tmp_path: Path, short: str) -> None:
    single = write_store(tmp_path / "store", {"a": (9, 20, 24), "b": (8, 20, 24), "still": (2, 20, 24)})
    single.table = dataclasses.replace(single.table, lengths=np.array([9, 8, 1], np.int32))
    loader = make(single, clips=ClipSpec(length=4, stride=2, size=(16, 16)), sampling=Random(short=short), batch=1)
    training_set = loader.planner.training_set
    assert training_set.videos.ids == ["a", "b"][: 1 if short == "drop" else 2]
    assert (training_set.empty, training_set.short) == (1, 1)
    assert training_set.told_of_empty() == (
        "1 of 3 videos have no frame that all views have, and are left out: 'still'"
    )
    loader.close()
    single.table = dataclasses.replace(single.table, lengths=np.array([1, 1, 1], np.int32))
    del single.annotated
    with pytest.raises(Refusal, match="none of 3 videos has a frame that all its views have"):
        make(single, batch=1)


def test_short_videos_are_trained_on_beside_long_ones(store: VideoStore, tmp_path: Path) -> None:
    mixed = write_store(tmp_path / "store", {"long": (12, 20, 24), "short": (4, 20, 24)})
    loader = make(mixed, clips=ClipSpec(length=8, stride=1, size=(16, 16)), batch=2)
    [batch] = loader
    assert batch.view("rgb", 0).shape == (2, 3, 8, 16, 16)
    loader.close()


def test_short_videos_are_dropped_when_asked_for(tmp_path: Path) -> None:
    """A clip spans eight frames; the shorter of both has eight of rgb, but seven of flow."""
    mixed = write_store(tmp_path / "store", {"long": (9, 20, 24), "short": (8, 20, 24)})
    loader = make(mixed, clips=ClipSpec(length=4, stride=2, size=(16, 16)), sampling=Random(short="drop"), batch=1)
    assert list(loader.planner.training_set.videos.ids) == ["long"]
    assert [batch.index.tolist() for batch in loader] == [[0]]
    loader.close()
    with pytest.raises(
        Refusal, match="(?s)all 2 videos are dropped.*fewer than the 10 frames that a clip needs.*smaller stride"
    ):
        make(mixed, clips=ClipSpec(length=5, stride=2, size=(16, 16)), sampling=Random(short="drop"), batch=1)


def test_store_without_flow_gives_rgb_of_all_frames(tmp_path: Path) -> None:
    create_store(tmp_path / "store", ExtractionSettings({"rgb": RgbSettings()}).resolved())
    empty = open_store(tmp_path / "store")
    with pytest.raises(Refusal, match="(?s)no view 'flow'.*VIEWS=flow` adds"):
        make(empty, reads={"flow": (0, 1)}, videos=[])
