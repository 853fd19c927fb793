"""Lists meet the folder: every listed video is looked for on disk, and what does not fit is told in notes."""

from __future__ import annotations

import itertools
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline import called
from pipeline.errors import Refusal, counted, named
from pipeline.importers.inventory import (
    Extracted,
    Place,
    folder_of,
    ids_of,
    inventory_of,
    is_surely_video,
    printable,
    spelling,
    split_folder,
    stem,
    told_by_extension,
)
from pipeline.manifest import SPLITS, Manifest, Video
from pipeline.names import looks

NAMED = 5  # of many missing files, these are named
ELSEWHERE = re.compile(r"/|[A-Za-z]:[/\\]|[^/]*\\")  # a path that begins at the root of a machine, or is of Windows
MAYBE = "file that may be a video", "files that may be videos"


@dataclass(frozen=True)
class Entry:
    """What a list says about one video.

    path: as listed, with the class folder. label, split: as in a Manifest. source: the original recording; empty where
    the list does not tell. other_name: a second path that the video may have.
    """

    path: str
    label: str = ""
    split: str = ""
    source: str = ""
    other_name: str = ""


@dataclass(frozen=True)
class Known:
    """What is known of a whole data set. People use subsets, so that a difference is told but never refused."""

    name: str
    classes: int
    splits: Mapping[str, int]


def match(
    videos: Place,
    entries: Iterable[Entry],
    classes: list[str],
    notes: Iterable[str] = (),
    known: Known | None = None,
    case_matters: bool = False,
) -> Manifest:
    """The Manifest of the listed videos that lie below `videos`, sorted by path; its notes tell what does not fit.

    A file answers to an entry when its path ends with the listed one, or when it lies flat (without class folders) and
    has the name; also when a listed path of another machine ends with its own. Its extension may be another (people
    convert), case and blanks of its folders too, and, unless case_matters, that of its name. What agrees more comes
    first, and no file answers to two entries. Raises Refusal when none is found.
    """
    wanted = _merged(entries)
    inventory, extracted = inventory_of(videos), isinstance(videos, Extracted)
    files = inventory.candidates()
    found = _found(wanted, files, case_matters)
    if not found:
        raise Refusal(
            f"none of the {len(wanted):,} listed videos is there, the first is {printable(wanted[0].path)}"
            if wanted
            else "the lists name no video",
            where="; ".join(
                [
                    f"{folder_of(videos)} ({counted(len(files), *(('video', 'videos') if extracted else MAYBE))})",
                    *inventory.of_archives(),
                ]
            ),
            remedy="give the frames that belong to these lists, or the lists that belong to these frames"
            if extracted
            else "give the folder that holds the videos themselves, not frames of them,"
            f" which `bring` takes: {called.option('videos', '/path/to/folder')}",
        )
    ids = ids_of(videos, found.values())
    rows = [_row(entry, path, ids[path]) for entry, path in sorted(found.items(), key=lambda item: item[1])]
    taken = set(found.values())
    missing = [entry.path for entry in wanted if entry not in found]
    unlisted = [file for file in files if file not in taken and (extracted or is_surely_video(file))]
    notes = [*notes, *inventory.of_archives(), *([] if extracted else told_by_extension(ids))]
    if missing:
        notes.append(f"{len(missing):,} of {len(wanted):,} listed videos are not there: {_some(missing)}")
    if unlisted:
        notes.append(
            f"left out, as no list has them: {counted(len(unlisted), 'video')} in the folder, {_some(unlisted)}"
        )
    if known:
        notes += differences(rows, known)
    return Manifest(rows, classes, tuple(notes))


def _merged(entries: Iterable[Entry]) -> list[Entry]:
    """Each video once. Raises Refusal where lists contradict each other: a test video must not be trained on."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        other = by_path.setdefault(entry.path, entry)
        if other != entry:
            raise Refusal(
                "the lists contradict each other: "
                + " and ".join(f"({item.label or 'no label'}, {item.split or 'no split'})" for item in (other, entry)),
                where=printable(entry.path),
                remedy="list every video once, or give one list instead of a folder of them as"
                f" {called.option('lists')}",
            )
    return list(by_path.values())


def _found(entries: list[Entry], files: list[str], case_matters: bool) -> dict[Entry, str]:
    """The file of each entry, if there is one: first what agrees to the letter, for all entries, then what is near."""
    free = dict.fromkeys(files)
    found: dict[Entry, str] = {}
    for entry in entries:
        path = posixpath.normpath(entry.path)
        if path in free:
            found[entry] = path
            del free[path]
    # To the byte, then as it looks (`é` is one letter or two, as a system writes it), then in any case, then nearly.
    cases: tuple[Callable[[str], str], ...] = (str, looks, _nearly)
    if not case_matters:
        cases = (str, looks, _folded, lambda name: _folded(_nearly(name)))
    ways: tuple[tuple[Callable[[str], list[str]], Callable[[str], list[str]]], ...] = (
        (_tails, lambda name: [_tail(name)]),
        (_flat, lambda name: [_name(name)]),
        (_whole, _below),
    )
    for (file_keys, entry_keys), case in itertools.product(ways, cases):
        index = defaultdict(list)
        for file in free:
            for key in file_keys(file):
                index[case(key)].append(file)
        for entry in entries:
            names = [name for name in (entry.path, entry.other_name) if name and entry not in found]
            keys = [case(key) for name in names for key in entry_keys(name)]
            candidates = [file for key in keys for file in index.get(key, ()) if file in free]
            if candidates:
                found[entry] = min(candidates, key=lambda file: _unlikeness(entry, file))
                del free[found[entry]]
    return found


def _folded(name: str) -> str:
    return looks(looks(name).casefold())


def _nearly(name: str) -> str:
    """Letters of any width, and no blanks around folders and names."""
    return "/".join(part.strip() for part in unicodedata.normalize("NFKC", looks(name)).split("/"))


def _unlikeness(entry: Entry, file: str) -> tuple:
    """Sorts the files that could be one video: of its first name, in its split's folder, of the listed extension."""
    folder = split_folder(file)
    first_name = _name(entry.path).casefold() == _name(file).casefold()
    same_extension = posixpath.splitext(entry.path)[1] == posixpath.splitext(file)[1]
    return (not first_name, bool(folder) and folder != entry.split, not same_extension, file)


def _tail(path: str) -> str:
    """A path as it is compared: its folders by their spelling, its name without extension."""
    folders, name = posixpath.split(posixpath.normpath(path))
    return posixpath.join(spelling(folders), stem(name))


def _tails(file: str) -> list[str]:
    """What a list may call a file: its path from any of its folders on."""
    parts = _tail(file).split("/")
    return ["/".join(parts[start:]) for start in range(len(parts) - 1)]


def _whole(file: str) -> list[str]:
    """The path of a file that lies in a folder."""
    return [_tail(file)] if "/" in file else []


def _below(path: str) -> list[str]:
    """What a path of another machine may be called here: it from any of its folders on."""
    if not ELSEWHERE.match(path):
        return []
    parts = _tail(path.replace("\\", "/")).split("/")
    return ["/".join(parts[start:]) for start in range(len(parts) - 1)]


def _name(path: str) -> str:
    return stem(posixpath.basename(path))


def _flat(file: str) -> list[str]:
    """The name of a file that lies in no class folder: at the top, or directly in `train/`, `val/` or `test/`."""
    folders = posixpath.dirname(file)
    return [_name(file)] if not folders or (split_folder(file) and "/" not in folders) else []


def _row(entry: Entry, path: str, video_id: str) -> Video:
    return Video(video_id, path, entry.label, entry.source or video_id, entry.split)


def differences(rows: list[Video], known: Known) -> list[str]:
    """A note where videos and classes are not as many as the whole set has."""
    here = dict(Counter(row.split for row in rows))
    classes = len({row.label for row in rows if row.label})
    if (here, classes) == (dict(known.splits), known.classes):
        return []
    return [f"{known.name} has {_counts(known.splits, known.classes)}; yours has {_counts(here, classes)}"]


def _counts(splits: Mapping[str, int], classes: int) -> str:
    parts = [f"{splits[split]:,} {split or 'no split'}" for split in SPLITS if split in splits]
    of_classes = f" of {counted(classes, 'class', 'classes')}" if classes else ""
    return f"{counted(sum(splits.values()), 'video')}{of_classes} ({', '.join(parts)})"


def _some(names: list[str]) -> str:
    return printable(named(names, NAMED))
