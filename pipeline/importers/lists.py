"""The lists that data sets ship: where they lie, their lines, the class names and splits they give."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import called, storage
from pipeline.errors import Refusal, refuse_unknown
from pipeline.importers.inventory import Place, folder_of, spelling

NUMBERED = re.compile(r"([0-9]{1,9})(?:[ \t]+|,)(?=\S)")  # "1 ApplyEyeMakeup" or "1,ApplyEyeMakeup"
SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|validation|test)(?:ing)?(?![a-z])", re.IGNORECASE)
SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


def find(
    videos: Place,
    lists: Path | None,
    is_list: Callable[[Path], bool],
    what: str,
    folders: Sequence[str] = (),
    one_will_do: bool = False,
) -> list[Path]:
    """The lists of a data set, sorted: those of the first folder that holds any.

    lists: a folder that the user named; without it they are looked for in and beside the folder of videos. folders:
    names that the folder of lists usually has. one_will_do: the user may name a list instead of a folder, and it is
    taken whatever its name. Raises Refusal, with `what` was looked for, when there are none.
    """
    if one_will_do and lists is not None and lists.is_file():
        return [lists]
    # Not videos.parent: that of "." would be "." again.
    top = folder_of(videos)
    bases = [lists] if lists is not None else [top, Path(os.path.abspath(top)).parent]
    places = [place for base in bases for place in (*(base / name for name in folders), base)]
    for place in places:
        found = sorted(path for path in files_in(place) if is_list(path))
        if found:
            return found
    raise Refusal(
        f"there are no {what}",
        where=", ".join(map(str, places)),
        remedy="put them into the folder of videos or beside it, or say where they are:"
        f" {called.option('lists', '/path')}",
    )


def of_split(numbers: Mapping[Path, int | None], split: int | None) -> list[Path]:
    """The lists of one split, from the number that each list bears; without a choice those that bear none, or the
    first's.

    Raises Refusal when there are none.
    """
    borne = set(numbers.values())
    wanted = split if split is not None or None in borne else min(number for number in borne if number is not None)
    chosen = [path for path, number in numbers.items() if number == wanted]
    if not chosen:
        raise Refusal(
            f"there are no lists of split {split}",
            where=str(next(iter(numbers)).parent),
            remedy=f"there are: {', '.join(path.name for path in numbers)}",
        )
    return chosen


def lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line that is not blank, without blanks and marks of byte order around it. Raises
    Refusal."""
    try:
        with storage.open_text(path) as file:
            stripped = [(number, line.strip(" \t\r\n\ufeff")) for number, line in enumerate(file, start=1)]
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    return [(number, line) for number, line in stripped if line]


def csv_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and values of every row of a CSV, by the names in its header or by `columns`, without blanks around them;
    what is empty is left out. Raises Refusal, also for a row that has more fields than there are columns."""
    try:
        with storage.open_text(path, newline="") as file:
            reader = csv.DictReader(file, fieldnames=columns, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or () if name.strip()]
            if len(set(names)) < len(names):
                raise bad_line(path, 1, "its header names a column twice", "every column once")
            for row in reader:
                if any(row.pop(None, ())):  # DictReader's key of what has no column
                    what = "it has more fields than there are columns: quote commas in names"
                    raise bad_line(path, reader.line_num, what, ",".join(names))
                yield reader.line_num, {name.strip(): value.strip() for name, value in row.items() if value}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error


def parts(path: str) -> list[str]:
    """Folders and name of a listed path, as Linux or Windows writes it."""
    return [part for part in path.split("/" if "/" in path else "\\") if part not in ("", ".")]


def unreadable(path: Path, error: Exception) -> Refusal:
    remedy = "give a readable text file (UTF-8)"
    if isinstance(error, csv.Error):  # a field that is longer than any
        remedy = "close the quote that is left open"
    return Refusal(f"the list cannot be read: {error}", where=str(path), remedy=remedy)


def bad_line(path: Path, number: int, what: str, shape: str) -> Refusal:
    return Refusal(what, where=f"{path}, line {number}", remedy=f"a line of this list reads: {shape}")


def class_names(path: Path) -> list[str]:
    """The classes of a class list, one a line: in the order of their numbers, where these are all from 0 or 1 on, and
    otherwise in that of the list."""
    names = [line for _, line in lines(path)]
    if not names:
        raise empty(path)
    numbered = sorted((int(found[1]), name[found.end() :]) for name in names if (found := NUMBERED.match(name)))
    numbers = [number for number, _ in numbered]
    if numbers in ([*range(len(names))], [*range(1, len(names) + 1)]):
        return [name for _, name in numbered]
    return names


def empty(class_list: Path) -> Refusal:
    return Refusal("the class list is empty", where=str(class_list), remedy="list one class a line")


def class_list_beside(lists: Iterable[Path]) -> Path | None:
    """The `ClassInd.txt`, in any case, in the folder of these lists."""
    folder = next(iter(lists)).parent
    return next((path for path in files_in(folder) if path.name.lower() == "classind.txt"), None)


def official_names(classes: Iterable[str]) -> dict[str, str]:
    """Class names by their spelling."""
    return {spelling(name): name for name in classes}


def official_name(name: str, official: dict[str, str], where: str) -> str:
    """A class as the class list writes it. Raises Refusal where it is not listed."""
    if spelling(name) not in official:
        raise Refusal(
            f'"{name}" is not in the class list',
            where=where,
            remedy="give the class list that belongs to these lists;"
            f" this one begins with {next(iter(official.values()))}",
        )
    return official[spelling(name)]


def split_in_name(path: Path) -> str:
    """The split that the name of a list tells: train, val, test, or empty."""
    word = SPLIT_WORD.search(path.stem)
    return SPLITS[word[1].lower()] if word else ""


def check_number(split: int) -> int:
    """One of the three official splits. Raises UsageError."""
    if split not in (1, 2, 3):
        refuse_unknown("split", split, ["1", "2", "3"])
    return split


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, without hidden ones; none of what cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:  # not there, or nothing that can be listed: no lists in it
        return []
