"""The lists that CoCLR ships: `{train,val,test}_split[NN].csv` (`path,num_frames`), ClassInd.txt, video_source.json."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import storage
from pipeline.errors import Refusal, counted
from pipeline.importers import lists as official
from pipeline.importers.inventory import Place
from pipeline.importers.matching import Entry, match
from pipeline.importers.ucf101 import recording
from pipeline.manifest import Manifest
from pipeline.validation import parse_json

LIST = re.compile(r"(train|val|test)_split(\d\d)?\.csv")
SHAPE = "path,num_frames with .../<class>/<video> as path"
SOURCES = "video_source.json"


@dataclass(frozen=True)
class _Row:
    list: Path
    number: int
    folder: str
    video: str
    has_frames: bool


def read(videos: Place, split: int | None = None, lists: Path | None = None, classes: Path | None = None) -> Manifest:
    """The videos that the CSVs name as frame folders, found as `<class>/<video>` with any extension of a video.

    split: which numbered lists; by default those without a number (Kinetics), or else the first. lists: a folder of the
    CSVs, or one CSV; without it they are looked for in and beside `videos`. classes: the class list, in the order that
    CoCLR's classifiers have; by default the ClassInd.txt beside the CSVs, or else labels in alphabetical order. Clips
    of one recording are told by video_source.json beside the CSVs, or for UCF101 by their names. Raises Refusal.
    """
    listed = official.find(videos, lists, _is_list, f"CSVs of CoCLR ({LIST.pattern})", one_will_do=True)
    found = official.of_split({path: _number(path) for path in listed}, split)
    rows = [row for path in found for row in _rows(path)]
    class_list = classes or official.class_list_beside(found)
    notes = []
    if class_list:
        names = official.class_names(class_list)
    else:
        names = sorted({row.folder for row in rows}, key=lambda name: (name.lower(), name))
        notes.append("there is no ClassInd.txt beside the lists: classes are in alphabetical order")
    by_spelling, sources = official.official_names(names), _sources(found[0].with_name(SOURCES))
    entries = []
    for row in rows:
        label = official.official_name(row.folder, by_spelling, f"{row.list}, line {row.number}")
        source = sources.get(f"{row.folder}/{row.video}", sources.get(row.video[:-4], "")) or recording(
            label, row.video
        )
        entries.append(Entry(f"{row.folder}/{row.video}", label, official.split_in_name(row.list), source))
    empty = sum(not row.has_frames for row in rows)
    if empty:
        notes.append(
            f"kept, though CoCLR drops what its lists give 0 frames, as [ ] in names misled its count:"
            f" {counted(empty, 'video')}"
        )
    return match(videos, entries, names, notes)


def _is_list(path: Path) -> bool:
    return bool(LIST.fullmatch(path.name))


def _number(path: Path) -> int | None:
    """The split that a list is of; Kinetics has one, without a number."""
    name = LIST.fullmatch(path.name)
    return int(name[2]) if name and name[2] else None


def _rows(path: Path) -> Iterator[_Row]:
    for number, line in official.lines(path):
        try:
            *before, frames = next(csv.reader([line]))
        except csv.Error as error:
            raise official.unreadable(path, error) from error
        parts = official.parts(",".join(before))  # an unquoted path may hold commas
        if len(parts) < 2 or not frames.isdecimal():
            raise official.bad_line(path, number, f"{line!r} is not a path and a number of frames", SHAPE)
        yield _Row(path, number, parts[-2], parts[-1], bool(frames.strip("0")))


def _sources(path: Path) -> dict[str, str]:
    """The recording of each key of video_source.json; where two keys have the same id, they are one recording."""
    if not path.is_file():
        return {}
    try:
        ids = parse_json(storage.read_text(path))
        if not isinstance(ids, dict) or not all(type(number) in (int, str) for number in ids.values()):
            raise ValueError("it is something else")
        return {key: f"source-{number}" for key, number in ids.items()}
    except (OSError, ValueError) as error:
        raise Refusal(
            f"it does not map names to numbers: {error}", where=str(path), remedy="give the file as CoCLR ships it"
        ) from error
