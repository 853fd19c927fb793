"""Class by class: what is found, what is confused, and what changed between runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval import changes, classes, commands
from eval.bank import FeatureBank, write
from eval.runs import bank_path
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.eval.test_report import Page, words


def test_confusion_and_recall_by_class_are_counted() -> None:
    wanted, found = np.array([0, 0, 0, 2, 2, -1, 3]), np.array([0, 1, 1, 2, 0, 1, -1])
    counts = classes.confusion(wanted, found, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    first, second = classes.by_class(counts)
    assert (first.label, first.queries, first.recall, first.instead) == (0, 3, 1 / 3, ((1, 2),))
    assert (second.label, second.queries, second.recall, second.instead) == (2, 2, 0.5, ((0, 1),))
    with pytest.raises(ValueError, match="3 classes"):
        classes.confusion(wanted, found, 3)


def test_the_found_class_is_that_of_the_nearest_row() -> None:
    rng = np.random.default_rng(0)
    queries, gallery, have = rng.normal(size=(7, 4)), rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    plain = []
    centred = [rows - rows.mean(0) for rows in (queries, gallery)]
    for row in centred[0]:
        cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in centred[1]]
        plain.append(have[int(np.argmax(cosines))])
    assert classes.found_classes(queries, gallery, have).tolist() == plain


@pytest.fixture
def two(evaluated: Path, store: VideoStore, tmp_path: Path) -> list[Path]:
    """The evaluated run, and one of another seed, whose network on RGB tells classes apart."""
    other = shutil.copytree(evaluated, tmp_path / "other")
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace("seed: 0", "seed: 1"))
    path = bank_path(other, store, "rgb", "trained", "clean", "rgb")
    bank = FeatureBank.load(path)
    told = np.eye(3, bank.features.shape[1], dtype=np.float32)[bank.labels]
    write(path, bank.stream, [told], told.shape, bank.video_ids, bank.labels, bank.splits, bank.attributes)
    return [evaluated, other]


def test_two_runs_are_compared_class_by_class(two: list[Path], store: VideoStore, tmp_path: Path) -> None:
    made = changes.by_class({"one": [(two[0], "rgb")], "other": [(two[1], "rgb")]}, "rgb", "clean", store)
    sheet = made.sheet
    assert list(made.matrices) == ["one", "other", "from one to other"]
    assert [(c.row, c.column, c.share, c.right) for c in made.matrices["other"].cells] == [
        (n, n, 1, True) for n in range(3)
    ]
    assert all(cell.right for cell in made.matrices["from one to other"].cells)
    assert sheet.table.head == ("class", "test videos", "one", "other", "change")
    assert {row[0] for row in sheet.table.rows} == set(store.classes)
    assert all(row[1] == 2 and row[3] == 100.0 and row[4] == f"{100 - float(row[2]):+.1f}" for row in sheet.table.rows)
    risen = [float(str(row[4])) for row in sheet.table.rows]
    assert risen == sorted(risen, reverse=True)
    both = changes.by_class({"both": [(two[0], "rgb"), (two[1], "rgb")]}, "rgb", "clean", store).sheet
    alone = {row[0]: row[2] for row in sheet.table.rows}
    assert {row[0]: row[2] for row in both.table.rows} == {
        name: (float(value or 0) + 100) / 2 for name, value in alone.items()
    }
    commands.report(runs=two, store=str(store.root), out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    shown = Page(page)
    assert page.count('class="matrix"') == 6 and "from seed 0 to seed 1" in page
    assert shown.loads and "Class by class" in words(page) and "seed 1" in page
    assert page.count('class="card map"') == 1 and "Maps of the features" in words(page)
    drawn = re.findall(r'<path class="raw" d="([^"]*)"', page)
    assert drawn and all(path.count("M") == 2 for path in drawn)  # a line for each seed
    assert "mean of 2 runs" in words(page)


def test_what_cannot_be_compared_fails(two: list[Path], store: VideoStore) -> None:
    bank_path(two[0], store, "rgb", "trained", "clean", "rgb").unlink()
    with pytest.raises(Refusal, match="features of the run are not there"):
        changes.by_class({"one": [(two[0], "rgb")]}, "rgb", "clean", store)
    for options in ({}, {"run": two[0], "runs": two, "store": "s"}, {"run": two[0]}):
        with pytest.raises(UsageError, match="of one run or of several"):
            commands.report(**options)
