"""A store of schema version 2, made once by `make.py`, stays readable: what it adds to schema 1 is what is said of
videos."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import environment
from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import VideoStore, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from tests.golden.test_schema1 import GOLDEN as FIRST
from tests.golden.test_schema1 import INFOS
from tests.pipeline.reference import content

GOLDEN = Path(__file__).with_name("schema2")
DIGESTS = {
    "jump/b": "d3cf51fc4b52145e55f3ff3a2123770c",
    "walk/a [1]": "ab9c94cf2f8cae2b937bba974c8089ff",
}
SAID = "5cafb29963a1d25f38adddc32421e496e08329f73f6d3ca98099f154c1dcfb03"


@pytest.fixture(scope="module")
def store() -> VideoStore:
    return open_store(GOLDEN / "store")


def test_the_listing_is_what_was_written(store: VideoStore, tmp_path: Path) -> None:
    expected = {name: replace(info, digest=DIGESTS[name]) for name, info in INFOS.items()}
    assert store.infos == expected
    assert store.classes == ["walk", "jump", "of no video"]
    assert (store.annotated.name, store.annotated.digest) == ("extraction", SAID)
    assert not any(found for _, _, found in verify(store))
    copied = Path(shutil.copytree(store.root, tmp_path / "store"))
    layout.catalogue_path(copied).unlink()
    assert open_store(copied).infos == expected


def test_another_set_says_something_else(store: VideoStore) -> None:
    others = open_store(store.root, "others")
    assert others.classes == ["x"]
    said = {name: (info.label, info.source, info.split) for name, info in others.infos.items()}
    assert said == {"jump/b": ("", "jump/b", ""), "walk/a [1]": ("x", "a, b", "train")}
    assert (others.annotated.absent, others.annotated.left_out) == (1, 1)


def test_its_frames_and_flow_are_those_of_schema_1(store: VideoStore) -> None:
    own, first = content(store.root), content(FIRST / "store")
    arrays = {name for name in first if "/rgb/" in name or "/flow/" in name}
    assert arrays
    assert {name: own[name] for name in arrays} == {name: first[name] for name in arrays}


def test_extraction_of_today_finds_nothing_to_do(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(store.root, tmp_path / "store"))
    monkeypatch.setattr(environment, "versions", lambda: store.software)
    videos = FIRST / "videos"
    summary = extract(folder.read(videos), videos, copied, ExtractionSettings.from_dict(store.settings), workers=1)
    assert (summary.stored, summary.skipped, summary.in_quarantine, summary.annotated) == (0, 2, 1, 0)
    left_out = {"catalogue.parquet", "annotations.json"}
    assert {name: data for name, data in content(copied).items() if name not in left_out} == {
        name: data for name, data in content(store.root).items() if name not in left_out
    }
