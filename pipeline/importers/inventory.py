"""The videos that lie below a folder, and how their names are compared with what lists call them."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import called
from pipeline.errors import Refusal, named
from pipeline.manifest import unique_ids
from pipeline.names import looks
from pipeline.store import layout

# Containers of videos. A file without an extension is taken too: decoding tells whether it is a video. Any other is
# left out and told: text beside a video, pictures, playlists and archives would be decoded as something, or open other
# files.
EXTENSIONS = tuple(
    ".3g2 .3gp .264 .265 .amv .asf .av1 .avc .avi .divx .dv .f4v .flv .gif .h261 .h263 .h264 .h265 .hevc .ivf .m1v .m2t"
    " .m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mkv .mov .mp4 .mp4v .mpe .mpeg .mpg .mpv .mts .mxf .nut .obu .ogg .ogm .ogv"
    " .qt .rm .rmvb .swf .trp .ts .vob .webm .wmv .wtv .y4m".split()
)
ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".rar", ".7z", ".lmdb", ".mdb")
KIND = re.compile(r"\.(?=\w*[a-z])\w{1,12}", re.IGNORECASE | re.ASCII)  # `.2` and `. Bean` belong to names
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
SHOWN = 3


@dataclass(frozen=True)
class Extracted:
    """Videos whose frames lie in an LMDB or in folders of pictures. videos: their ids there, which stand for paths."""

    path: Path
    videos: Sequence[str]


Place = Path | Extracted  # where videos lie: as files below a folder, or as frames


def folder_of(place: Place) -> Path:
    """The folder, or the LMDB."""
    return place.path if isinstance(place, Extracted) else place


def ids_of(place: Place, paths: Iterable[str]) -> dict[str, str]:
    """The id of each video by its path: frames have theirs already, whatever dots it holds."""
    return {path: path for path in paths} if isinstance(place, Extracted) else unique_ids(paths)


def told_by_extension(ids: Mapping[str, str]) -> list[str]:
    """That files here differ in their extension alone, if any do: their ids would be others without each other."""
    twins = sorted(path for path, video_id in ids.items() if video_id == path and os.path.splitext(path)[1])
    if not twins:
        return []
    return [
        f"{len(twins):,} files have others beside them whose names differ in the extension alone, and hence have it in"
        f" their ids: {printable(named(twins, SHOWN))}; without the others they would not. Rename them, or keep ids by"
        f" a manifest ({called.command('manifest', videos='', out='')})"
    ]


def told_by_kind(paths: Iterable[str], what: str) -> list[str]:
    """Files that are left out, if any are, counted by their extensions, with the first ones of each."""
    kinds: dict[str, list[str]] = collections.defaultdict(list)
    counts: dict[str, int] = collections.Counter()
    for path in paths:
        kind = _kind(path)
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            kinds[kind].append(path)
    ordered = sorted(kinds, key=lambda kind: (-counts[kind], kind))
    shown = {kind: ", ".join(kinds[kind]) + (", ..." if counts[kind] > SHOWN else "") for kind in ordered}
    told = "; ".join(f"{counts[kind]:,} {kind or 'without extension'} ({shown[kind]})" for kind in ordered)
    return [printable(f"{what}: {told}")] if told else []


class Inventory:
    """What lies below a folder, each folder once however many links lead to it; hidden files and stores are passed
    over.

    paths: of all files, relative and sorted. Raises Refusal when there is no such folder or it cannot be listed.
    """

    def __init__(self, top: Path) -> None:
        if not top.is_dir():
            raise Refusal(
                "there is no such folder of videos" if not top.exists() else "this is a file, not a folder of videos",
                where=str(top),
                remedy=f"give the folder that holds your videos: {called.option('videos', '/path/to/folder')}",
            )
        self.top = top
        self.tree = Tree(top)
        found = {path: _identity(top / path) for _, files in self.tree.folders() for path in files}
        self.identities = {path: identity for path, identity in found.items() if identity}
        self.paths = sorted(self.identities)

    def candidates(self) -> list[str]:
        """Paths of all that may be a video by its name."""
        return [path for path in self.paths if may_be_video(path)]

    def videos(self) -> list[str]:
        """Paths of what may be a video by its name; of several that are one file, the one that is no link, or the
        first."""
        return [path for path in self.candidates() if path not in self.same_files]

    @functools.cached_property
    def same_files(self) -> dict[str, str]:
        """Files that are one with another, which is taken in their place."""
        first: dict[tuple[int, int], str] = {}
        linked = {path: os.path.islink(self.top / path) for path in self.paths}
        for path in sorted(self.paths, key=lambda path: (linked[path], path)):
            if may_be_video(path):
                first.setdefault(self.identities[path], path)
        return {
            path: first[self.identities[path]]
            for path in self.paths
            if may_be_video(path) and first[self.identities[path]] != path
        }

    def notes(self) -> list[str]:
        """What is left out, by kind."""
        others = (path for path in self.paths if not may_be_video(path))
        told = [*told_by_kind(others, "files that are no videos by their names are left out"), *self.of_archives()]
        told += self.tree.notes()
        if self.same_files:
            pairs = [f"{path} is {other}" for path, other in self.same_files.items()]
            told.append(
                f"{len(pairs):,} names of files that have another here are left out: {named(pairs, SHOWN)};"
                " a manifest that lists them takes them"
            )
        return [printable(text) for text in told]

    def of_archives(self) -> list[str]:
        """That there are archives, if any."""
        archives = sorted({_kind(path) for path in self.paths} & set(ARCHIVES))
        if not archives:
            return []
        return [f"archives ({' '.join(archives)}) are not opened: unpack them into folders to have their videos"]


class Tree:
    """The folders below one, each once however many links lead to it; hidden files and stores are passed over."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.same: list[str] = []  # paths of folders that have another

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """Relative paths of each folder, "" of the top, and of what lies in it and is no folder.

        Raises Refusal for a folder that cannot be listed.
        """
        # Links after all else: what can be reached without one has the path that has none.
        seen: set[tuple[int, int]] = set()
        waiting = [""]
        while waiting:
            links: list[str] = []
            yield from self._walk(waiting[0], seen, links)
            waiting = sorted([*waiting[1:], *links], key=lambda path: (path.count("/"), path))

    def notes(self) -> list[str]:
        """What `folders` left out."""
        if not self.same:
            return []
        return [f"links to folders that are listed already are left out: {printable(named(self.same, SHOWN))}"]

    def _walk(self, start: str, seen: set[tuple[int, int]], links: list[str]) -> Iterator[tuple[str, list[str]]]:
        """A folder and those below it; `links` gets the links to folders there."""
        below = [start]
        while below:
            folder = below.pop()
            identity = _identity(self.top / folder)
            if not identity:
                continue
            if identity in seen:
                self.same.append(folder)
                continue
            seen.add(identity)
            entries, files = _entries(self.top / folder), []
            if any(entry.name == layout.RECORD for entry in entries):
                continue
            for entry in entries:
                path = posixpath.join(folder, entry.name)
                if entry.name.startswith("."):
                    continue
                if not os.path.isdir(entry.path):
                    files.append(path)
                elif not entry.is_symlink():
                    below.append(path)
                elif leads_back(entry.path):
                    self.same.append(path)
                else:
                    links.append(path)
            yield folder, files


class ExtractedInventory:
    """The same of videos whose frames others extracted: all of them, as they come."""

    def __init__(self, top: Extracted) -> None:
        self.paths = list(top.videos)

    def candidates(self) -> list[str]:
        return self.paths

    def videos(self) -> list[str]:
        return self.paths

    def notes(self) -> list[str]:
        return []

    def of_archives(self) -> list[str]:
        return []


def inventory_of(place: Place) -> Inventory | ExtractedInventory:
    """Raises Refusal when there is no such folder or it cannot be listed."""
    return ExtractedInventory(place) if isinstance(place, Extracted) else Inventory(place)


def may_be_video(path: str) -> bool:
    """Whether it has the extension of a video, or none."""
    kind = os.path.splitext(path)[1]
    return not KIND.fullmatch(kind) or kind.lower() in EXTENSIONS


def is_surely_video(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS)


def stem(path: str) -> str:
    """A path without the extension of a video. What follows another dot belongs to the name: `take.2` stays."""
    return os.path.splitext(path)[0] if is_surely_video(path) else path


def spelling(name: str) -> str:
    """The name of a class or folder as it is compared: `Playing Guitar` and `playing_guitar` are one class."""
    return looks(looks(name).casefold()).replace(" ", "_")


def split_folder(path: str) -> str:
    """The split that a leading `train/`, `val/` or `test/` of a relative path gives, or empty."""
    first, below, _ = path.partition("/")
    return SPLIT_FOLDERS.get(first.lower(), "") if below else ""


def leads_back(folder: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    target = os.path.realpath(folder)
    parent = os.path.realpath(os.path.dirname(folder))
    return os.path.commonpath([target, parent]) == target


def printable(names: str) -> str:
    """Names of files for a text, whatever bytes they hold."""
    return names.encode("utf-8", "backslashreplace").decode()


def _identity(path: Path) -> tuple[int, int] | None:
    """What file or folder a path leads to; of a link that leads nowhere, the link. None of what went while it was
    listed, as a download that ends does."""
    for look in (path.stat, path.lstat):
        with contextlib.suppress(OSError):
            status = look()
            return status.st_dev, status.st_ino
    return None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Refusal(
            f"a folder cannot be listed: {error.strerror}",
            where=str(error.filename),
            remedy="make it readable, or move it out of the folder of videos",
        ) from error


def _kind(path: str) -> str:
    return os.path.splitext(path)[1].lower()
