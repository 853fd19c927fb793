"""Whatever the files of a store say, with whatever digests: every reader gives what is stored, or refuses by name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.extraction.journal import journal, last_run, origins, same_bytes
from pipeline.extraction.plan import VideoFiles, plan
from pipeline.importers import folder
from pipeline.show import export
from pipeline.store import annotation, catalogue, layout, open_store, removal, shard, stamps
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests import hostile
from tests.faults import small
from tests.pipeline.reference import run_here
from train.reader.shard import ShardReader
from train.training_set import of_splits

SETTINGS = ExtractionSettings({"rgb": RgbSettings(short_side=0), "flow": FlowSettings("dis", short_side=0)}).resolved()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every kind of file, beside its videos."""
    top = tmp_path_factory.mktemp("hostile")
    videos = small.make(top / "videos")
    run_here(folder.read(videos), videos, top / "store", SETTINGS)
    with journal(top / "store", videos=1) as kept:
        kept.add(job.Outcome("walk/a", "stored", frames=3, stamp=(1, 2), record="0" * 32))
    return top / "store"


@pytest.fixture
def store(whole: Path) -> Iterator[Path]:
    """The same, put back as it was after each test."""
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    yield whole
    for path in [path for path in whole.rglob("*") if path.is_file() and path not in before]:
        path.unlink()
    for path, content in before.items():
        if not path.is_file() or path.read_bytes() != content:
            put(path, content)


def put(path: Path, content: bytes) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)  # it may be a FIFO
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def frames(root: Path) -> dict[tuple[str, str], list[bytes]]:
    opened = open_store(root)
    reader = ShardReader(opened)
    return {
        (name, view): [one.tobytes() for one in reader.encoded(name, view, range(opened.shape(name, view)[0])).values()]
        for name in opened.videos
        for view in opened.info(name).views
    }


def readers(root: Path) -> list[Callable[[], object]]:
    """All that reads a store; each opens it anew."""

    files = VideoFiles(root.parent / "videos")
    return [
        lambda: list(verify(open_store(root))),
        lambda: (open_store(root).info("walk/a"), open_store(root).classes, open_store(root).quarantine),
        lambda: of_splits(open_store(root), [""]).digest(),
        lambda: frames(root),
        lambda: open_store(root).flow("walk/a", slice(None)),
        lambda: open_store(root).linear_values("flow"),
        lambda: (last_run(root), origins(root), same_bytes(root, open_store(root).table)),
        lambda: removal.known(open_store(root)),
        lambda: annotation.load(root, "extraction"),
        lambda: plan(folder.read(files.root), open_store(root), SETTINGS, files),
    ]


def refused_or_right(root: Path, what: str) -> int:
    """How many readers refused; what they raise else fails."""
    count = 0
    for number, reader in enumerate(readers(root)):
        try:
            reader()
        except Refusal as refusal:
            count += 1
            assert refusal.where, what
        except Exception as error:
            raise AssertionError(f"{what}, reader {number}: {error!r}") from error
    return count


def serialisable(content: Any) -> bool:
    with contextlib.suppress(ValueError):
        json.dumps(content, ensure_ascii=False).encode()
        return True
    return False


def attributes(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())["attributes"][layout.ATTRIBUTE]


KINDS: dict[str, str] = {
    "root": "zarr.json",
    "record": "videos/walk/a/zarr.json",
    "folder": "videos/walk/zarr.json",
    "quarantine": "quarantine/jump/broken.json",
    "inventory": "inventory.json",
    "sets": "annotations.json",
    "set": "annotations/extraction.csv",
    "catalogue": "catalogue.parquet",
    "stamps": "catalogue.stamps",
    "shard": "videos/walk/a/rgb/c/0/0/0/0",
    "array": "videos/walk/a/rgb/zarr.json",
    "journal": "journal",
}


@pytest.mark.parametrize(
    "changes", [hostile.SOME, pytest.param(tuple(hostile.RAW), marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_no_meaning_are_refused_by_every_reader(store: Path, kind: str, changes: tuple[str, ...]) -> None:
    path = next((store / "journal").iterdir()) if kind == "journal" else store / KINDS[kind]
    original = path.read_bytes()
    for name in changes:
        path.write_bytes(hostile.RAW[name](original))
        refused_or_right(store, f"{kind}, {name}")
    path.unlink()
    path.mkdir()
    refused_or_right(store, f"{kind}, a folder in its place")
    path.rmdir()
    os.mkfifo(path)
    refused_or_right(store, f"{kind}, a FIFO in its place")
    path.unlink()
    put(path, original)


@pytest.mark.parametrize("share", [0.03, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["root", "record", "quarantine", "inventory", "sets"])
def test_each_value_of_a_file_may_be_gone_or_another(store: Path, kind: str, share: float) -> None:
    """With the digest that belongs to it, so that nothing but its meaning is wrong."""
    path = store / KINDS[kind]
    whole, count = path.read_bytes(), 0
    content = attributes(path) if kind in ("root", "record") else json.loads(whole)
    for what, changed in hostile.mutated(content, share):
        if not serialisable(changed):
            continue
        changed.pop("digest", None)
        path.write_bytes(
            layout.group({layout.ATTRIBUTE: layout.seal(changed)})
            if kind in ("root", "record")
            else (json.dumps(layout.seal(changed), ensure_ascii=False, indent=1) + "\n").encode()
        )
        count += refused_or_right(store, f"{kind}, {what}") > 0
    assert count > 2 or kind in ("inventory", "sets")  # of which few values are read


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("fps",), -1.0, "fps"),
        (("fps",), float("nan"), "NaN"),
        (("fps",), 2.0**31, "fps"),
        (("length",), -3, "length"),
        (("file", "bytes"), -1, "file.bytes"),
        (("shapes", "rgb"), [3, 0, 24, 3], "shape"),
        (("shapes", "rgb"), [3, 16, 24], "shape"),
        (("shapes", "flow"), [3, 2, 16, 24], "3 of flow, not 2"),
        (("cuts",), [1, 0], "cuts"),
        (("files", "rgb/zarr.json"), "x", "files.rgb/zarr.json"),
        (("files",), {}, "3 frames of rgb, and 0 shards"),
        (("video_id",), "", "video_id"),
        (("length",), 10**12, "length"),
    ],
)
def test_a_record_is_refused_with_the_key_that_cannot_be(store: Path, place: tuple, value: object, told: str) -> None:
    path = layout.record_path(store, "walk/a")
    content = attributes(path)
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    content.pop("digest")
    path.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal(content)}))
    with pytest.raises(Refusal) as refused:
        open_store(store).videos
    assert told in refused.value.what
    assert refused.value.where == str(path)


@pytest.mark.parametrize(
    ("view", "key", "value"),
    [
        ("flow", "mapping", "cubic"),
        ("flow", "bound", -20.0),
        ("flow", "bound", "20"),
        ("flow", "codec", "png"),
        ("flow", "estimator", 7),
        ("rgb", "quality", 0),
        ("rgb", "chroma", "4:1:0"),
        ("rgb", "short_side", 2.5),
        ("rgb", "colour", "blue"),
        ("decode", "fps", -1.0),
    ],
)
def test_settings_of_a_store_that_cannot_be_are_refused_by_name(
    store: Path, view: str, key: str, value: object
) -> None:
    path = store / layout.RECORD
    content = attributes(path)
    content.pop("digest")
    content["settings"].setdefault(view, {})[key] = value
    path.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal(content)}))
    with pytest.raises(Refusal, match=f"says what cannot be: {view}.*{key}") as refused:
        open_store(store)
    assert refused.value.where == str(path)


def shard_with(content: bytes, slots: int, change: Callable[[np.ndarray], None]) -> bytes:
    """A shard whose index is another, with the checksum that belongs to it."""
    behind = 16 * slots + shard.CRC_BYTES
    index = np.frombuffer(content[-behind : -shard.CRC_BYTES], "<u8").reshape(slots, 2).copy()
    change(index)
    footer = index.tobytes()
    return content[:-behind] + footer + google_crc32c.value(footer).to_bytes(4, "little")


def swap(index: np.ndarray) -> None:
    index[[0, 1]] = index[[1, 0]]


def far_away(index: np.ndarray) -> None:
    index[1, 0] = 2**62


def huge(index: np.ndarray) -> None:
    index[-1, 1] = 373 * 2**30


def overrun(index: np.ndarray) -> None:
    index[0, 1], index[1, 0] = 2**63, 2**63


def missing(index: np.ndarray) -> None:
    index[1] = shard.MISSING


def repeated(index: np.ndarray) -> None:
    index[1] = index[0]


@pytest.mark.parametrize("change", [swap, far_away, huge, overrun, missing, repeated])
def test_an_index_that_is_not_that_of_its_frames_is_refused(store: Path, change: Callable[[np.ndarray], None]) -> None:
    path = store / KINDS["shard"]
    path.write_bytes(shard_with(path.read_bytes(), 3, change))
    for read in (lambda: open_store(store).encoded("walk/a", "rgb", [2]), lambda: frames(store)):
        with pytest.raises(Refusal, match=r"'walk/a' is damaged: (its index is not|it ends after)"):
            read()


COLUMN = {"length": -1, "fps": 2.0**31, "form": 7, "bytes": -2}


@pytest.mark.parametrize("column", [*COLUMN, "frames", "cuts", "null", "forms", "columns"])
def test_a_catalogue_that_cannot_be_is_not_believed(store: Path, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With digest and stamps that belong to it: the records are read instead."""
    expected, known = frames(store), catalogue.Catalogue(store)
    (batch,) = known.batches()
    rows, forms = batch.to_pylist(), dict(known.forms)
    if column in COLUMN:
        rows[1][column] = COLUMN[column]
    elif column == "frames":
        rows[1]["length"] = 2**31 - 1
    elif column == "cuts":
        rows[1]["cuts"] = [-5]
    elif column == "null":
        rows[1]["folder"] = None
    elif column == "forms":
        forms = {text.replace('"partial": ""', '"partial": 3'): number for text, number in forms.items()}
    schema = catalogue.COLUMNS if column != "columns" else catalogue.COLUMNS.append(pa.field("more", pa.int32()))
    monkeypatch.setattr(catalogue, "COLUMNS", schema)
    table = pa.Table.from_pylist([{**row, "more": 1} if column == "columns" else row for row in rows], schema)
    (changed,) = table.to_batches()
    found = changed.append_column("stamp", pa.array([0] * len(rows), pa.int64()))
    found = found.append_column("cached", pa.array([True] * len(rows)))
    monkeypatch.setattr(catalogue._InOrderOfUse, "renumbered", lambda _, batch: batch.select(schema.names))
    monkeypatch.setattr(catalogue._InOrderOfUse, "listed", lambda _: json.dumps(list(forms)).encode())
    made = catalogue.written([found], forms)
    monkeypatch.undo()
    layout.catalogue_path(store).write_bytes(made.content)
    seen = [entry.stamp for entry in catalogue.record_files(store) if entry.size != catalogue.PLAIN_GROUP]
    stamps.save(store, made.digest, np.array(seen))
    refused_or_right(store, f"catalogue, {column}")
    opened = open_store(store)
    assert opened.videos == ["jump/c", "walk/a", "walk/b"]
    assert (opened.table.lengths == 3).all() and (opened.table.fps > 0).all()
    assert frames(store) == expected


SET = "video_id,label,source,split\r\n"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("", "Empty CSV"),
        ("video_id,label\r\nwalk/a,walk\r\n", "its columns are video_id, label"),
        (f"{SET}walk/a,run,,\r\n", "the label 'run' is none"),
        (f"{SET}walk/a,walk,,dev\r\n", "the split 'dev' is none"),
        (f"{SET}walk/b,walk,,\r\nwalk/a,walk,,\r\n", "not sorted"),
        (f"{SET}walk/a,walk,,\r\nwalk/a,jump,,\r\n", "not sorted"),
        (f"{SET}walk/a,walk\r\n", "Expected 4 columns"),
        (f"{SET}walk/\udcff,walk,,\r\n", "UTF"),
    ],
)
def test_an_annotation_set_that_cannot_be_is_refused(store: Path, table: str, told: str) -> None:
    path = layout.annotations_path(store, "extraction")
    path.write_bytes(annotation.file_of(["jump", "walk"], table.encode(errors="surrogateescape")))
    with pytest.raises(Refusal, match="annotation set 'extraction' cannot be read") as refused:
        open_store(store).classes
    assert (told in refused.value.what, refused.value.where) == (True, str(path)), refused.value.what
    assert str(path) in {item.path for _, _, items in verify(open_store(store)) for item in items}


@pytest.mark.parametrize("name", ["videos", "quarantine", "annotations", "journal"])
def test_a_file_in_the_place_of_a_folder_is_refused(store: Path, tmp_path: Path, name: str) -> None:
    aside = tmp_path / "aside"
    (store / name).rename(aside)
    (store / name).write_bytes(b"no folder")
    count = refused_or_right(store, f"a file {name}")
    os.unlink(store / name)
    aside.rename(store / name)
    assert count > 0


def test_export_refuses_a_shard_of_another_video(store: Path, tmp_path: Path) -> None:
    one, other = (store / f"videos/walk/{name}/rgb/c/0/0/0/0" for name in "ab")
    one.write_bytes(other.read_bytes())
    with pytest.raises(Refusal, match="this is the shard of another video"):
        export.export(open_store(store), "walk/a", tmp_path / "a.npy")
