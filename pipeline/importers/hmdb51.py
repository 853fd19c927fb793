"""HMDB51 by its official lists: `testTrainMulti_7030_splits/<class>_test_split<N>.txt`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.importers import lists as official
from pipeline.importers.inventory import Place
from pipeline.importers.matching import Entry, Known, match
from pipeline.manifest import Manifest

FOLDER = "testTrainMulti_7030_splits"
SPLIT_OF = {"1": "train", "2": "test", "0": ""}
KNOWN = {"train": 3570, "test": 1530, "": 1666}


def read(videos: Place, split: int = 1, lists: Path | None = None, classes: Path | None = None) -> Manifest:
    """The clips of one of the three official splits; those that a split leaves out have an empty one.

    lists: the folder of the official lists, or one that holds it; without it they are looked for in and beside
    `videos`. classes: a class list whose order is taken; by default classes are sorted. The papers' own class list is
    in another order, which weights of a classifier depend on. Raises Refusal and UsageError.
    """
    official.check_number(split)
    list_name = re.compile(rf"(.+)_test_split{split}\.txt")
    what = f"official lists of HMDB51 ({FOLDER}/<class>_test_split{split}.txt)"
    found = official.find(videos, lists, lambda path: bool(list_name.fullmatch(path.name)), what, (FOLDER,))
    by_class = {path.name.removesuffix(f"_test_split{split}.txt"): path for path in found}
    names = official.class_names(classes) if classes else sorted(by_class)
    by_spelling = official.official_names(names)
    entries = [
        entry
        for folder, path in by_class.items()
        for entry in _entries(path, folder, official.official_name(folder, by_spelling, str(path)))
    ]
    return match(videos, entries, names, known=Known(f"HMDB51, split {split},", classes=51, splits=KNOWN))


def _entries(path: Path, folder: str, label: str) -> Iterator[Entry]:
    for number, line in official.lines(path):
        *name, use = line.rsplit(None, 1)
        if use not in SPLIT_OF or not name:
            raise official.bad_line(path, number, f"{line!r} does not end in 0, 1 or 2", "name.avi 1")
        yield Entry(f"{folder}/{name[0]}", label, SPLIT_OF[use])
