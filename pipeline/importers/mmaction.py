"""Lists as mmaction has them: `path label` for videos, `path total_frames label` for folders of frames."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import refuse_unknown
from pipeline.importers import lists as official
from pipeline.importers.inventory import Place, folder_of, is_surely_video
from pipeline.importers.matching import Entry, match
from pipeline.importers.ucf101 import recording
from pipeline.manifest import Manifest

SHAPE = "path label, or path total_frames label; the label is a number from 0"
NUMBERED = re.compile(r"split_?0?(\d)(?!\d)")
LARGEST_LABEL = 99_999  # every number up to the largest is a class; the largest data sets have some thousands


@dataclass(frozen=True)
class _Line:
    list: Path
    number: int
    path: str
    label: int


def read(
    videos: Place,
    split: int | None = None,
    lists: Path | None = None,
    classes: Path | None = None,
    val_is: str = "val",
) -> Manifest:
    """The listed videos. Lists of frame folders are matched with the videos that the frames were taken from.

    split: which of the lists that have `split_N` in their names; the first by default. lists: one list, or a folder of
    lists whose names tell train, val or test; without it they are looked for in and beside `videos`. classes: a class
    list; by default the folder of each label's videos, or the number itself. val_is: the split that `val` lists stand
    for; `test` for UCF101 and HMDB51, where they are the official test lists. Raises Refusal.
    """
    if val_is not in ("val", "test"):
        refuse_unknown("split", val_is, ["val", "test"], where="setting val_is")
    found = official.find(
        videos, lists, _is_list, "lists (.txt) with train, val or test in their names", one_will_do=True
    )
    parsed = [line for path in official.of_split(_numbers(found), split) for line in _lines(path)]
    names = official.class_names(classes) if classes else _names_of(parsed)
    entries = []
    for line in parsed:
        if line.label >= len(names):
            what = f"label {line.label} is beyond the {len(names)} classes of the class list"
            raise official.bad_line(line.list, line.number, what, SHAPE)
        told = official.split_in_name(line.list)
        path, label = _relative(line.path, videos), names[line.label]
        source = recording(label, posixpath.splitext(posixpath.basename(path))[0])
        entries.append(Entry(path, label, val_is if told == "val" else told, source))
    return match(videos, entries, names, case_matters=True)  # these are anybody's names


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and bool(official.split_in_name(path))


def _numbers(found: list[Path]) -> dict[Path, int | None]:
    """The split that each list is of; lists of frames only where there are none of videos."""
    of_videos = [path for path in found if "rawframes" not in path.name]
    numbers = {path: NUMBERED.search(path.name) for path in of_videos or found}
    return {path: int(number[1]) if number else None for path, number in numbers.items()}


def _lines(path: Path) -> Iterator[_Line]:
    rows = official.lines(path)
    of_frames = all(re.search(r"\s\d+\s+\d+$", line) for _, line in rows)
    for number, line in rows:
        *before, label = line.rsplit(None, 2 if of_frames else 1)
        if not before or not label.isdecimal():
            raise official.bad_line(path, number, f"{line!r} does not end in a label", SHAPE)
        if len(label) > len(str(LARGEST_LABEL)):
            raise official.bad_line(path, number, f"label {label} is beyond {LARGEST_LABEL:,}", SHAPE)
        video = before[0]
        if any(is_surely_video(part) for part in (video.split() if of_frames else video.split()[:-1])):
            raise official.bad_line(path, number, f"{line!r} has several labels, and a video here has one", SHAPE)
        yield _Line(path, number, posixpath.normpath(video), int(label))


def _relative(path: str, videos: Place) -> str:
    """A listed path that starts at the root of the file system, from the folder of videos on."""
    top = f"{folder_of(videos).absolute()}/"
    return path.removeprefix(top)


def _names_of(parsed: list[_Line]) -> list[str]:
    """Class names from the folders, where each label has one of its own; else the numbers."""
    folders = defaultdict(set)
    for line in parsed:
        folders[line.label].update(official.parts(line.path)[-2:-1] or [""])
    only = {label: next(iter(names)) for label, names in folders.items() if len(names) == 1}
    count = max(folders, default=-1) + 1
    if sorted(only) == list(range(count)) and len(set(only.values())) == count and all(only.values()):
        return [only[label] for label in range(count)]
    return [str(label) for label in range(count)]
