"""verify finds every changed byte and every missing file, and names the video."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.store import VideoStore, catalogue, layout, open_store
from pipeline.store.verify import Damage, verify


@pytest.fixture(scope="module")
def two_videos(synthetic_store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two of the videos, which every test leaves as it was."""
    root = Path(shutil.copytree(synthetic_store.root, tmp_path_factory.mktemp("verify") / "store"))
    for video_id in synthetic_store.videos[2:]:
        shutil.rmtree(layout.video_folder(root, video_id))
    layout.catalogue_path(root).unlink()
    return root


def damage(root: Path) -> list[Damage]:
    return [item for _, _, found in verify(open_store(root)) for item in found]


def test_a_whole_store_is_whole(synthetic_store: VideoStore) -> None:
    checked = list(verify(synthetic_store))
    assert [video_id for video_id, _, _ in checked] == synthetic_store.videos
    assert not any(found for _, _, found in checked)
    records = [layout.record_path(synthetic_store.root, video_id) for video_id in synthetic_store.videos]
    arrays = [path for record in records for path in record.parent.rglob("*/**/*") if path.is_file()]
    assert sum(size for _, size, _ in checked) == sum(path.stat().st_size for path in arrays)


@pytest.mark.parametrize("name", ["rgb/zarr.json", "flow/zarr.json", "rgb/c/0/0/0/0", "flow/c/0/0/0/0"])
def test_a_missing_file_is_found(two_videos: Path, tmp_path: Path, name: str) -> None:
    video_id = open_store(two_videos).videos[1]
    path = layout.video_folder(two_videos, video_id) / name
    shutil.move(path, tmp_path / "aside")
    found = damage(two_videos)
    shutil.move(tmp_path / "aside", path)
    assert found == [Damage(video_id, str(path), "cannot be read: No such file or directory")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 7}, "7 frames were decoded, 20 stored"),
        ({"shapes": {"rgb": [20, 48, 64, 3], "flow": [20, 2, 48, 64]}}, "20 flow frames for 20 rgb frames"),
        ({"shapes": {"rgb": [20, 48, 64, 3]}}, "it has the views ['rgb'], the store ['flow', 'rgb']"),
        ({"settings_hash": "0"}, "made with settings 0"),
        ({"video_id": "another"}, "lies in another video's folder"),
    ],
)
def test_records_that_contradict_the_store_are_found(two_videos: Path, change: dict, message: str) -> None:
    path = layout.record_path(two_videos, open_store(two_videos).videos[0])
    original = path.read_bytes()
    record = catalogue.read_record(path)
    assert record is not None
    del record["digest"]
    try:
        path.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal({**record, **change})}))
        found = damage(two_videos)
    finally:
        path.write_bytes(original)
    assert len(found) == 1
    assert message in found[0].what
