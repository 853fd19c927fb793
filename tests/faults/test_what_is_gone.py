"""What was deleted behind a store's back is told, whatever else happened there; what a command took away is not."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from pipeline.commands import stores
from pipeline.commands.remove import remove
from pipeline.errors import Refusal
from pipeline.importers import folder
from pipeline.manifest import Manifest
from pipeline.store import annotation, catalogue, inventory, layout, open_store, removal, shard
from pipeline.store.verify import GONE, NAMELESS, verify
from tests.faults import small
from tests.faults.disk import Disk
from tests.faults.small import SMALL
from tests.pipeline.reference import content, run_here


def gone(root: Path) -> dict[str, str]:
    """Path below the store -> video, of all damage; and there is none but that."""
    found = [item for _, _, items in verify(open_store(root)) for item in items]
    assert {item.what for item in found} <= {GONE}
    return {os.path.relpath(item.path, root): item.video_id for item in found}


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("videos/walk/a/zarr.json", "walk/a"),
        ("videos/walk/a", "walk/a"),
        ("quarantine/jump/broken.json", "jump/broken"),
        ("quarantine", "jump/broken"),
        ("annotations/extraction.csv", ""),
        ("annotations", ""),
    ],
)
def test_whatever_is_deleted_is_told_and_the_next_run_brings_it_back(
    videos: Path, store: Path, name: str, video: str
) -> None:
    assert gone(store) == {}
    whole = content(store)
    (shutil.rmtree if (store / name).is_dir() else os.unlink)(store / name)
    assert list(gone(store).values()) == [video]
    assert open_store(store).table.missing == (("walk/a",) if video == "walk/a" else ())
    if video == "walk/a":
        assert "1 stored video gone" in open_store(store).table.told_of_missing()
    if not video:
        with pytest.raises(Refusal, match="the annotation set 'extraction' is gone"):
            open_store(store).classes
    run_here(folder.read(videos), videos, store, SMALL)
    assert gone(store) == {}
    assert content(store) == whole


def test_a_class_list_that_is_gone_is_told(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "schema1" / "store"
    store = Path(shutil.copytree(golden, tmp_path / "store"))
    layout.classes_path(store).unlink()
    found = [item for _, _, items in verify(open_store(store)) for item in items]
    assert [item.what for item in found] == ["the store's class list is gone, but its digest is there"]
    with pytest.raises(Refusal, match="class list is gone"):
        open_store(store).classes


def test_a_lost_video_stays_lost_when_others_come_until_it_is_removed_by_a_command(
    videos: Path, store: Path, capsys: pytest.CaptureFixture
) -> None:
    """The run that writes the catalogue anew was not asked for it."""
    shutil.rmtree(store / "videos" / "walk" / "a")
    small.write(videos / "walk" / "new.mp4", 4)
    listed = folder.read(videos)
    rows = [row for row in listed.rows if row.video_id != "walk/a"]
    summary = run_here(Manifest(rows, listed.classes), videos, store, SMALL)
    assert (summary.stored, summary.lost) == (1, ("walk/a",))
    stores.print_summary(summary, str(store))
    assert "missing 1 stored video gone, and not listed by this run: 'walk/a'" in capsys.readouterr().err
    assert gone(store) == {"videos/walk/a/zarr.json": "walk/a"}
    stores.status(str(store))
    assert "missing      1 stored video gone" in capsys.readouterr().out
    assert stores.verify(str(store)) == 1
    remove(str(store), ["walk/a"])
    assert gone(store) == {}
    assert open_store(store).table.missing == ()


def test_videos_that_are_gone_together_with_the_catalogue_are_counted(videos: Path, store: Path) -> None:
    layout.catalogue_path(store).unlink()
    assert gone(store) == {}
    shutil.rmtree(store / "videos" / "walk")
    (found,) = [item for _, _, items in verify(open_store(store)) for item in items]
    assert (found.video_id, found.path, found.what) == ("", str(layout.catalogue_path(store)), f"2 {NAMELESS}")
    run_here(folder.read(videos), videos, store, SMALL)
    assert gone(store) == {}


def test_a_damaged_record_of_a_plain_folders_size_shows(store: Path) -> None:
    path = layout.record_path(store, "walk/a")
    path.write_bytes(b"x" * catalogue.PLAIN_GROUP)
    with pytest.raises(Refusal, match="the commit record of video 'a' cannot be read"):
        open_store(store).videos


@pytest.mark.parametrize("part", ["rgb", "rgb/c/0/0/0/0", "."])
def test_what_belongs_to_another_video_is_noticed_by_readers(store: Path, tmp_path: Path, part: str) -> None:
    """Whole folders, arrays or shards that change places: of the same shape, and with the same times."""
    one, other = (layout.video_folder(store, name) / part for name in ("walk/a", "walk/b"))
    for path in [*one.rglob("*"), *other.rglob("*"), one, other]:
        os.utime(path, (0, 0))
    catalogue.save(store)
    for source, target in ((one, tmp_path / "aside"), (other, one), (tmp_path / "aside", other)):
        source.rename(target)
    for name in ("walk/a", "walk/b"):
        with pytest.raises(Refusal, match="another video"):
            open_store(store).encoded(name, "rgb", [0])


def test_a_shard_is_bound_to_its_view_and_part() -> None:
    marks = {shard.mark(*place) for place in [("a", "rgb", 0), ("a", "rgb", 1), ("a", "flow", 0), ("b", "rgb", 0)]}
    assert len(marks) == 4
    assert all(len(mark) == shard.MARK_BYTES for mark in marks)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_removal_that_dies_at_any_step_is_no_loss(
    tmp_path: Path, videos: Path, store: Path, disk: Disk, stride: int
) -> None:
    names = ["walk/a", "jump/broken"]
    for step in itertools.count(0, stride):
        root = Path(shutil.copytree(store, tmp_path / str(step)))
        with disk.killed_at(root, step):
            removal.remove(root, names)
        assert gone(root) == {}
        assert open_store(root).table.missing == ()
        if not disk.died:
            break
        left = removal.known(open_store(root))
        removal.remove(root, sorted(left.intersection(names)))
        assert gone(root) == {}
        assert inventory.read(root).in_hand == []
    assert open_store(store).videos != open_store(root).videos == ["jump/c", "walk/b"]


def test_sets_of_annotations_are_known_by_what_was_written(store: Path) -> None:
    annotation.save(store, "others", annotation.load(store, "extraction"))
    assert inventory.annotation_sets(store) == ["extraction", "others"]
    layout.annotations_path(store, "others").unlink()
    assert list(gone(store)) == ["annotations/others.csv"]
    assert open_store(store).classes == ["jump", "walk"]
    with pytest.raises(Refusal, match="the annotation set 'others' is gone"):
        open_store(store, "others").classes


@pytest.mark.remedy("or delete it: it is written again, by the next run or annotation")
def test_the_list_itself_is_told_where_it_is_damaged_and_may_be_deleted(videos: Path, store: Path) -> None:
    for path in (layout.inventory_path(store), layout.annotations_list_path(store)):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"e", b"E", 1))
        found = [item.path for _, _, items in verify(open_store(store)) for item in items]
        assert found == [str(path)]
        with pytest.raises(Refusal, match="the list of what must be in the store cannot be read") as refused:
            open_store(store).annotated
        assert refused.value.where == str(path)
        path.unlink()
        assert gone(store) == {}
        path.write_bytes(whole)
    layout.inventory_path(store).unlink()
    small.write(videos / "walk" / "new.mp4", 4)
    run_here(folder.read(videos), videos, store, SMALL)
    assert inventory.read(store).quarantine == ["jump/broken"]
