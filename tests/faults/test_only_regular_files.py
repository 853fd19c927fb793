"""What is no regular file, whose bytes may never come or never end, is refused by every reader, and hangs none."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import results
from eval.features import FeatureBank
from eval.runs import recipe_text
from pipeline import importers, storage
from pipeline.bench import pairs
from pipeline.errors import Refusal
from pipeline.existing import open_source
from pipeline.importers import coclr, lists, table
from pipeline.manifest import Manifest
from pipeline.show import flow_files
from pipeline.store import catalogue, fence, inventory, layout, open_store
from pipeline.store.lock import only_writer
from train import checkpoints, recipe
from train.callbacks.metrics import read_lines
from train.published import import_published

READERS: dict[str, Callable[[Path], object]] = {
    "a.csv": Manifest.load,
    "data.yaml": lambda path: importers.describe(str(path)),
    "list.txt": lists.lines,
    "classes.txt": lists.class_names,
    "train.csv": lambda path: list(lists.csv_rows(path)),
    "table.json": lambda path: list(table.rows(path)),
    "split.csv": lambda path: list(coclr._rows(path)),
    "frames.lmdb": open_source,
    "flow.flo": flow_files.read,
    "flow.png": flow_files.is_kitti,
    "image.png": lambda path: pairs.read_pair(path, path),
    "recipe.yaml": lambda path: recipe_text(path.parent),
    "mine.yaml": recipe.load,
    "last.ckpt": checkpoints.read,
    "coclr.pth.tar": import_published,
    "digest.ckpt": checkpoints.digest,
    "bank.h5": FeatureBank.load,
    "results.json": results.read,
    "metrics.jsonl": read_lines,
}


# Decoded block by block, and a picture, whose reader says what else is wrong with it.
PIECE_BY_PIECE = {".lmdb", ".ckpt", ".tar", ".h5", ".png"}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_by_each_reader(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((Refusal, OSError)):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", [name for name in READERS if Path(name).suffix not in PIECE_BY_PIECE])
def test_a_file_larger_than_any_of_its_kind_is_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    """It has no blocks: what read it would get zeros."""
    path = tmp_path / name
    path.touch()
    os.truncate(path, storage.LARGEST_LIST + 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((Refusal, OSError), match="4,294,967,297 bytes, and no file of its kind has over"):
        READERS[name](path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_each_file_of_a_store_has_a_limit(store: Path) -> None:
    for path, read in {
        store / layout.RECORD: lambda: open_store(store),
        layout.record_path(store, "walk/a"): lambda: catalogue.read_content(layout.record_path(store, "walk/a")),
        layout.quarantine_path(store, "jump/broken"): lambda: list(open_store(store).quarantine_entries()),
        layout.inventory_path(store): lambda: inventory.read(store),
        layout.annotations_path(store, "extraction"): lambda: open_store(store).annotated,
    }.items():
        whole = path.read_bytes()
        if path.suffix == ".csv":  # one line without an end; the rest is read piece by piece
            path.write_bytes(b"x" * (storage.LARGEST_RECORD + 1))
        else:
            os.truncate(path, storage.LARGEST_LIST + 1)
        with pytest.raises(Refusal, match="cannot be read"):
            read()
        path.write_bytes(whole)
        read()


def test_a_store_whose_own_files_are_pipes_is_refused_or_read_without_them(store: Path) -> None:
    layout.catalogue_path(store).unlink()
    os.mkfifo(layout.catalogue_path(store))  # it is derived
    assert len(catalogue.table(store)) == 3
    for path in (layout.lock_path(store), layout.fence_path(store)):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        with pytest.raises((Refusal, OSError), match="not a regular file"), only_writer(store):
            pass
        path.unlink()
    with only_writer(store):
        pass
    assert fence.holder(store)
