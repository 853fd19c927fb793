"""What is no regular file, whose bytes may never come or never end, is refused by every reader, and hangs none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import results
from eval.features import FeatureBank
from eval.runs import recipe_text
from pipeline import importers
from pipeline.bench import pairs
from pipeline.errors import Refusal
from pipeline.existing import open_source
from pipeline.importers import coclr, kinetics, lists, table
from pipeline.manifest import Manifest
from pipeline.show import flow_files
from pipeline.store import catalogue, fence, layout
from pipeline.store.lock import only_writer
from tests.faults import small
from train import checkpoints, recipe
from train.callbacks.metrics import read_lines
from train.published import import_published
from train.stages import read_recipe

READERS: dict[str, Callable[[Path], object]] = {
    "a.csv": Manifest.load,
    "data.yaml": lambda path: importers.describe(str(path)),
    "list.txt": lists.lines,
    "classes.txt": lists.class_names,
    "train.csv": lambda path: list(kinetics._rows(path)),
    "table.json": lambda path: list(table.rows(path)),
    "split.csv": lambda path: list(coclr._rows(path)),
    "frames.lmdb": open_source,
    "flow.flo": flow_files.read,
    "flow.png": flow_files.is_kitti,
    "image.png": lambda path: pairs.read_pair(path, path),
    "recipe.yaml": lambda path: recipe_text(path.parent),
    "of_run.yaml": read_recipe,
    "mine.yaml": recipe.load,
    "last.ckpt": checkpoints.read,
    "coclr.pth.tar": import_published,
    "digest.ckpt": checkpoints.digest,
    "bank.h5": FeatureBank.load,
    "results.json": results.read,
    "metrics.jsonl": read_lines,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_by_each_reader(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((Refusal, OSError)):
        READERS[name](tmp_path / name)


def test_a_store_whose_own_files_are_pipes_is_refused_or_read_without_them(tmp_path: Path) -> None:
    store = small.store(small.make(tmp_path / "videos"), tmp_path / "store")
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
