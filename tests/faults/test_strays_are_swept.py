"""What killed runs left aside is removed by the next run, and seen by nobody until then."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import open_store
from pipeline.store.verify import verify
from tests.faults import small
from tests.faults.small import SMALL
from tests.pipeline.reference import content


@pytest.mark.parametrize("listed", ["walk", "jump"])
def test_strays_are_swept_by_the_next_run(videos: Path, store: Path, listed: str) -> None:
    """Whichever half of the videos the next run lists."""
    before = content(store)
    strays = [
        store / "zarr.json.partial",
        store / "catalogue.parquet.partial",
        store / "annotations" / "extraction.csv.partial",
        store / "videos" / "zarr.json.partial",
        store / "videos" / "walk" / "zarr.json.partial",
        store / "videos" / "walk" / "a" / "zarr.json.partial",
        store / "videos" / "gone" / "zarr.json.partial",
        store / "quarantine" / "jump" / "broken.json.partial",
        store / ".writing.abc.partial" / "catalogue.parquet",
        store / "videos" / "walk" / "a" / ".writing.abc.partial" / "below" / "file",
    ]
    for stray in strays:
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"half")
    opened = open_store(store)
    assert opened.videos == ["jump/c", "walk/a", "walk/b"]
    assert list(opened.quarantine) == ["jump/broken"]
    assert not any(found for _, _, found in verify(opened))
    rows = [row for row in folder.read(videos).rows if row.video_id.startswith(listed)]
    manifest = folder.read(videos)
    manifest = type(manifest)(rows, manifest.classes)
    assert extract(manifest, videos, store, SMALL, workers=1).stored == 0
    assert not [path for path in store.rglob("*") if "partial" in str(path.relative_to(store))]
    assert content(store) == before


def test_what_a_refused_run_finds_stays(videos: Path, store: Path) -> None:
    (store / "zarr.json.partial").write_bytes(b"half")
    small.write(videos / "walk" / "a.mp4", 4, frames=6)
    with pytest.raises(Exception, match="not what the manifest lists"):
        extract(folder.read(videos), videos, store, SMALL, workers=1)
    assert (store / "zarr.json.partial").exists()
