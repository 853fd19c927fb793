"""verify finds every changed byte and every missing file, and names the video."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.commands import stores
from pipeline.errors import Refusal
from pipeline.store import VideoStore, catalogue, layout, open_store
from pipeline.store.verify import Damage, verify
from pipeline.video import watchdog
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def two_videos(synthetic_store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two of the videos, which every test leaves as it was."""
    root = Path(shutil.copytree(synthetic_store.root, tmp_path_factory.mktemp("verify") / "store"))
    for video_id in synthetic_store.videos[2:]:
        shutil.rmtree(layout.video_folder(root, video_id))
    layout.catalogue_path(root).unlink()
    layout.inventory_path(root).unlink()  # which knows of the others
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


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_waited_for(
    two_videos: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    store = open_store(two_videos)
    video_id = store.videos[1]
    path = store.path(video_id, "rgb") / "c" / "0" / "0" / "0" / "0"
    shutil.move(path, tmp_path / "aside")
    make(path)
    try:
        assert damage(two_videos) == [Damage(video_id, str(path), "cannot be read: it is not a regular file")]
        with pytest.raises(Refusal, match="it is not a regular file"):
            store.encoded(video_id, "rgb", [0])
    finally:
        path.unlink()
        shutil.move(tmp_path / "aside", path)


@pytest.mark.parametrize("name", ["/dev/zero", "../../../zarr.json", "rgb/../../zarr.json"])
def test_a_record_that_names_files_of_others_is_damage(two_videos: Path, name: str) -> None:
    video_id = open_store(two_videos).videos[1]
    path = layout.record_path(two_videos, video_id)
    whole = path.read_bytes()
    record, _ = catalogue.read_content(path)
    assert record is not None
    facts = {key: value for key, value in record.items() if key != "digest"}
    facts["files"] = {**facts["files"], name: "0" * 64}
    path.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal(facts)}))
    found = damage(two_videos)
    path.write_bytes(whole)
    assert [item.what for item in found] == ["its record names a file outside its folder"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 7}, "7 frames were decoded, and it has 20 of rgb, not 7, 19 of flow, not 6"),
        (
            {"shapes": {"rgb": [20, 48, 64, 3], "flow": [20, 2, 48, 64]}},
            "20 frames were decoded, and it has 20 of flow, not 19",
        ),
        ({"shapes": {"rgb": [20, 48, 64, 3]}}, "of its views"),
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


@pytest.mark.remedy("pipeline verify: no further video could be read for", told=True)
def test_a_disk_that_hangs_is_told_and_given_up(
    run: Callable[..., tuple[int, str, str]],
    synthetic_store: VideoStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    gave_up = threading.Event()
    codes = []

    def ended(code: int) -> None:
        codes.append(code)
        gave_up.set()

    def hanging(*_: object) -> Iterator[tuple[str, int, list[Damage]]]:
        assert gave_up.wait(PATIENCE)
        yield "a", 0, []

    monkeypatch.setattr(watchdog, "QUIET", 0.1)
    monkeypatch.setattr(stores.os, "_exit", ended)
    monkeypatch.setattr(stores.verification, "verify", hanging)
    _, _, err = run("verify", "--store", synthetic_store.root, "--time_limit", 0.5)
    assert codes == [1]
    assert "no further video could be read for 0.1 s: the disk may hang" in err
    assert "no further video could be read for 0.5 s" in err
    assert "`--time_limit 0` waits for ever" in err
    monkeypatch.undo()
    assert run("verify", "--store", synthetic_store.root, "--time_limit", 0)[0] == 0
