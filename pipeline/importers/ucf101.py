"""UCF101 by its official lists: `ucfTrainTestlist/{classInd,trainlist0N,testlist0N}.txt`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import Refusal
from pipeline.importers import lists as official
from pipeline.importers.inventory import Place
from pipeline.importers.matching import Entry, Known, match
from pipeline.manifest import Manifest

FOLDER = "ucfTrainTestlist"
LIST = re.compile(r"(classind|(train|test)list0[123])\.txt", re.IGNORECASE)
RECORDING = re.compile(r"v_.+_(g\d+)_c\d+", re.IGNORECASE)
TRAIN_AND_TEST = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


def read(videos: Place, split: int = 1, lists: Path | None = None) -> Manifest:
    """The videos of one of the three official splits, classes in official order.

    lists: the folder of the official lists, or one that holds it; without it they are looked for in and beside
    `videos`. Clips of one recording (`gNN`) have one source. One class lies in `HandstandPushups/` as
    `v_HandStandPushups_*`; the case of names is not compared. Raises Refusal and UsageError.
    """
    official.check_number(split)
    what = f"official lists of UCF101 ({FOLDER}/classInd.txt, trainlist0{split}.txt, testlist0{split}.txt)"
    found = official.find(videos, lists, lambda path: bool(LIST.fullmatch(path.name)), what, (FOLDER,))
    by_name = {path.name.lower(): path for path in found}
    for name in ("classInd.txt", f"trainlist0{split}.txt", f"testlist0{split}.txt"):
        if name.lower() not in by_name:
            raise Refusal(
                f"{name} is not among the lists",
                where=str(found[0].parent),
                remedy="put all of the official lists there",
            )
    classes = official.class_names(by_name["classind.txt"])
    entries = [
        *_entries(by_name[f"trainlist0{split}.txt"], "train", classes),
        *_entries(by_name[f"testlist0{split}.txt"], "test", classes),
    ]
    train, test = TRAIN_AND_TEST[split]
    known = Known(f"UCF101, split {split},", classes=101, splits={"train": train, "test": test})
    return match(videos, entries, classes, known=known)


def recording(label: str, name: str) -> str:
    """The recording that a clip was cut from, `<class>_gNN`; empty where the name is not one of UCF101."""
    numbered = RECORDING.fullmatch(name)
    return f"{label}_{numbered[1]}" if numbered else ""


def _entries(path: Path, split: str, classes: list[str]) -> Iterator[Entry]:
    shape = "Class/v_Class_g01_c01.avi, in training lists followed by the number of the class"
    by_spelling = official.official_names(classes)
    for number, line in official.lines(path):
        *words, index = line.rsplit(None, 1)
        numbered = bool(words) and index.isascii() and index.isdecimal()
        *above, name = official.parts(words[0] if numbered else line)
        if not above:
            raise official.bad_line(path, number, f"{line!r} does not name a class folder", shape)
        label = official.official_name(above[-1], by_spelling, f"{path}, line {number}")
        place = str(classes.index(label) + 1)
        if numbered and index.lstrip("0") != place:
            raise official.bad_line(path, number, f"{label} is number {place}, not {index[:20]}", shape)
        yield Entry(f"{above[-1]}/{name}", label, split, recording(label, name.rpartition(".")[0]))
