"""A rerun notices what changed since a video was stored, refuses before it writes, and redoes exactly what it must."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import environment, storage
from pipeline.commands import stores
from pipeline.errors import Refusal
from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.manifest import Manifest
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.store.writing import create_store
from pipeline.video.decode import OpenVideo
from tests.faults import small
from tests.faults.small import OTHER, SMALL, write
from tests.pipeline.reference import content, run_here

AFTER = 10**12  # nanoseconds, a quarter of an hour


def touch(path: Path, nanoseconds: int = AFTER) -> None:
    """As if it was written so much later than it was."""
    time = path.stat().st_mtime_ns + nanoseconds
    os.utime(path, ns=(time, time))


def state(store: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file with its inode, time and bytes, and every folder with its time; the lock tells who held it last."""
    return {
        str(path.relative_to(store)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in store.rglob("*")
        if path.name != ".lock"
    }


def refused(videos: Path, store: Path, settings: ExtractionSettings = SMALL) -> Refusal:
    """The refusal of a run that has left the store as it was."""
    before = state(store)
    with pytest.raises(Refusal) as caught:
        extract(folder.read(videos), videos, store, settings, workers=1)
    assert state(store) == before
    assert "nothing was written" in caught.value.remedy
    return caught.value


def fresh(videos: Path, store: Path, settings: ExtractionSettings = SMALL) -> dict[str, bytes]:
    run_here(folder.read(videos), videos, store, settings)
    return content(store)


def test_a_rerun_with_nothing_to_do_writes_nothing(videos: Path, store: Path) -> None:
    before, held = state(store), (store / ".lock").stat()
    summary = extract(folder.read(videos), videos, store, SMALL, workers=1)
    assert (summary.stored, summary.skipped, summary.in_quarantine) == (0, 3, 1)
    assert state(store) == before
    assert (store / ".lock").stat().st_mtime_ns == held.st_mtime_ns


@pytest.mark.remedy("`--overwrite true` redoes exactly these; or extract into another STORE=")
def test_a_source_of_another_size_is_noticed_and_only_its_video_is_redone(
    videos: Path, store: Path, tmp_path: Path
) -> None:
    source = videos / "walk" / "b.mp4"
    old = source.stat().st_size
    write(source, 7, frames=9)
    os.utime(source, (0, 0))  # an archive that was unpacked: of another size, and older than the record
    told = refused(videos, store)
    assert told.what.startswith("1 stored videos are not what the manifest lists:\n    walk/b: ")
    assert f"bytes {old} -> {source.stat().st_size}" in told.what
    assert f"-> {storage.file_digest(source)[:12]}.." in told.what
    assert "--overwrite true" in told.remedy
    before = state(store)
    summary = run_here(folder.read(videos), videos, store, SMALL, overwrite=True)
    assert (summary.stored, summary.skipped) == (1, 2)
    changed = {name for name, facts in state(store).items() if before.get(name) != facts}
    others = {name for name in changed if not name.startswith("videos/walk/b")}
    assert others - {"videos/walk"} == {"catalogue.parquet", "catalogue.stamps", "inventory.json"}
    assert content(store) == fresh(videos, tmp_path / "fresh")


def test_a_newer_source_of_the_same_size_is_read_and_judged_by_its_bytes(videos: Path, store: Path) -> None:
    source = videos / "walk" / "a.mp4"
    touch(source)
    assert run_here(folder.read(videos), videos, store, SMALL).skipped == 3
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    source.write_bytes(data)
    touch(source)
    told = refused(videos, store)
    assert "walk/a: sha256 " in told.what
    assert "bytes " not in told.what
    touch(source, -3 * AFTER)  # older than what was made of it
    assert "walk/a: sha256 " in refused(videos, store).what


@pytest.mark.usefixtures("in_this_process")
def test_a_source_with_the_stamp_of_its_record_is_not_read(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the journal, whatever that record's own time is; without a journal it is read."""
    store, read = tmp_path / "store", []
    extract(folder.read(videos), videos, store, SMALL, workers=1)
    digest = storage.file_digest
    monkeypatch.setattr(storage, "file_digest", lambda path: read.append(path.stem) or digest(path))
    assert extract(folder.read(videos), videos, store, SMALL, workers=1).skipped == 3
    assert read == []
    touch(videos / "walk" / "a.mp4", -AFTER)
    assert extract(folder.read(videos), videos, store, SMALL, workers=1).skipped == 3
    assert read == ["a"]
    shutil.rmtree(store / "journal")
    assert extract(folder.read(videos), videos, store, SMALL, workers=1).skipped == 3
    assert sorted(read[1:]) == ["a", "b", "c"]


def test_a_source_that_changes_while_it_is_read_is_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record would have the digest of other bytes than its frames come from."""
    blocks = OpenVideo.blocks

    def meanwhile(video: OpenVideo, *arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        yield from blocks(video, *arguments, **options)
        if video.path.stem == "a":
            touch(video.path)

    monkeypatch.setattr(OpenVideo, "blocks", meanwhile)
    summary = run_here(folder.read(videos), videos, tmp_path / "store", SMALL)
    assert summary.stored == 2
    assert summary.quarantined["walk/a"] == "the file was written to while it was read"


def test_a_vanished_source_is_no_reason_to_complain(videos: Path, store: Path) -> None:
    listed = folder.read(videos)
    (videos / "walk" / "a.mp4").unlink()
    before = state(store)
    for overwrite in (False, True):
        assert run_here(listed, videos, store, SMALL, overwrite=overwrite).skipped == 3
    assert state(store) == before


def relabelled(manifest: Manifest) -> Manifest:
    rows = [replace(row, label="run", split="test") if row.video_id == "walk/a" else row for row in manifest.rows]
    return replace(manifest, rows=rows, classes=[*manifest.classes, "run"])


def test_another_label_source_or_split_is_noticed_and_rewritten_and_no_video_is_touched(
    videos: Path, store: Path, tmp_path: Path
) -> None:
    listed = relabelled(folder.read(videos))
    before = state(store)
    summary = extract(listed, videos, store, SMALL, workers=1)
    assert (summary.stored, summary.skipped, summary.annotated) == (0, 3, 1)
    changed = {name for name, facts in state(store).items() if before.get(name) != facts}
    assert changed == {"annotations", "annotations/extraction.csv"}
    info = open_store(store).info("walk/a")
    assert (info.label, info.split) == ("run", "test")
    after = state(store)
    assert extract(listed, videos, store, SMALL, workers=1).annotated == 0
    assert state(store) == after
    run_here(listed, videos, tmp_path / "fresh", SMALL)
    assert content(store).keys() == content(tmp_path / "fresh").keys()
    fresh = open_store(tmp_path / "fresh")
    assert open_store(store).infos == fresh.infos


def test_many_changes_are_counted_and_the_first_are_shown(videos: Path, store: Path) -> None:
    for seed in range(9):
        write(videos / "many" / f"{seed}.mp4", seed)
    run_here(folder.read(videos), videos, store, SMALL)
    for seed in range(9):
        write(videos / "many" / f"{seed}.mp4", seed, frames=8)
    told = refused(videos, store).what.splitlines()
    assert told[0] == "9 stored videos are not what the manifest lists:"
    assert len(told) == 7
    assert told[-1] == "    and 4 more"


@pytest.mark.remedy("use what it was made with, or another STORE=; `--overwrite true` redoes the whole store")
def test_other_settings_are_noticed_field_by_field_and_the_store_is_redone_when_asked(
    videos: Path, store: Path, tmp_path: Path
) -> None:
    told = refused(videos, store, OTHER)
    assert "rgb.quality: stored 90, asked 80" in told.what
    assert run_here(folder.read(videos), videos, store, SMALL).skipped == 3
    summary = run_here(folder.read(videos), videos, store, OTHER, overwrite=True)
    assert (summary.stored, summary.skipped, len(summary.quarantined)) == (3, 0, 1)
    assert content(store) == fresh(videos, tmp_path / "fresh", OTHER)


@pytest.fixture
def other_software(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets this be another version of a package."""

    def pretend(**versions: str) -> None:
        here = environment.versions() | versions
        monkeypatch.setattr(environment, "versions", lambda: here)

    return pretend


def test_a_video_of_another_store_is_noticed_and_redone_when_asked(videos: Path, store: Path, tmp_path: Path) -> None:
    """Its folder was copied in; training and evaluation would read it as if it had this store's settings."""
    expected = content(store)
    other = small.store(videos, tmp_path / "other", OTHER)
    shutil.rmtree(store / "videos" / "walk" / "a")
    shutil.copytree(other / "videos" / "walk" / "a", store / "videos" / "walk" / "a")
    with pytest.raises(Refusal, match="1 video made with other settings than the store's.*: 'walk/a'"):
        open_store(store).videos
    assert "walk/a: settings_hash" in refused(videos, store).what
    summary = run_here(folder.read(videos), videos, store, SMALL, overwrite=True)
    assert (summary.stored, summary.skipped) == (1, 2)
    assert content(store) == expected


@pytest.mark.parametrize("name", ["costream", "av", "numpy"])
def test_another_major_version_is_noticed_and_the_store_is_redone_when_asked(
    videos: Path, store: Path, tmp_path: Path, other_software: Callable[..., None], name: str
) -> None:
    stored = environment.versions()[name]
    other_software(**{name: "97.1"})
    assert f"software.{name}: stored {stored}, here 97.1" in refused(videos, store).what
    assert run_here(folder.read(videos), videos, store, SMALL, overwrite=True).stored == 3
    assert open_store(store).software[name] == "97.1"
    assert content(store) == fresh(videos, tmp_path / "fresh")


def test_versions_that_decide_no_byte_of_this_store_are_not_in_the_way(
    videos: Path, store: Path, other_software: Callable[..., None]
) -> None:
    first, _, rest = environment.versions()["numpy"].partition(".")
    other_software(torch="97", zarr="97", numba="97", python="4.0", numpy=f"{first}.9{rest}")
    assert run_here(folder.read(videos), videos, store, SMALL).skipped == 3


def test_another_minor_version_is_allowed_and_told(
    videos: Path, store: Path, other_software: Callable[..., None], capsys: pytest.CaptureFixture
) -> None:
    stored = environment.versions()["numpy"]
    other_software(numpy=f"{stored}1")
    small.write(videos / "walk" / "new.mp4", 1)
    summary = run_here(folder.read(videos), videos, store, SMALL)
    assert (summary.stored, summary.skipped) == (1, 3)
    stores.print_summary(summary, str(store))
    stores.status(store)
    told = capsys.readouterr()
    assert f"note software.numpy: stored {stored}, here {stored}1: videos of this run may differ" in told.err
    assert f"software.numpy: stored {stored}, here {stored}1" in told.out


def test_a_store_that_holds_nothing_takes_any_settings(videos: Path, tmp_path: Path) -> None:
    create_store(tmp_path / "store", OTHER)
    assert run_here(folder.read(videos), videos, tmp_path / "store", SMALL).stored == 3
    assert content(tmp_path / "store") == fresh(videos, tmp_path / "fresh")


@pytest.mark.remedy("give their files and a manifest that lists them, or another STORE=")
def test_overwriting_loses_no_video_that_cannot_be_made_again(videos: Path, store: Path) -> None:
    listed = folder.read(videos)
    (videos / "walk" / "a.mp4").rename(videos / "walk" / "moved")
    before = state(store)
    with pytest.raises(Refusal, match=r"would lose 1 stored videos.*\n    walk/a: walk/a.mp4 is not there"):
        run_here(listed, videos, store, OTHER, overwrite=True)
    with pytest.raises(Refusal, match=r"would lose 1 stored videos.*\n    walk/a: not in the manifest"):
        run_here(folder.read(videos), videos, store, OTHER, overwrite=True)
    assert state(store) == before
    assert run_here(folder.read(videos), videos, store.parent / "another", OTHER).stored == 3
    (videos / "walk" / "moved").rename(videos / "walk" / "a.mp4")
    assert run_here(listed, videos, store, OTHER, overwrite=True).stored == 3


def test_a_store_from_elsewhere_is_not_told_from_one_made_here(videos: Path, store: Path, tmp_path: Path) -> None:
    """Records hold no times, so that a copy, whose files are all new, is up to date as well."""
    copied = Path(shutil.copytree(store, tmp_path / "copy", copy_function=shutil.copyfile))
    assert run_here(folder.read(videos), videos, copied, SMALL).skipped == 3
    assert content(copied) == content(store)
    assert not any(found for _, _, found in verify(open_store(copied)))
    assert np.array_equal(open_store(copied).read("walk/a", "rgb", [0]), open_store(store).read("walk/a", "rgb", [0]))
