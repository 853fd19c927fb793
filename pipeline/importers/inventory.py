"""The videos that lie below a folder, and how their names are compared with what lists call them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Refusal
from pipeline.manifest import unique_ids
from pipeline.store import layout

# What people have; named in messages. A file with another extension, or none, is taken too unless it is surely no video:
# what cannot be decoded lands in quarantine with its reason, which is better than being passed over in silence.
EXTENSIONS = tuple(
    ".3gp .avi .flv .gif .h264 .h265 .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
NOT_VIDEOS = frozenset(
    ".csv .txt .md .json .yaml .yml .xml .html .htm .pdf .zip .tar .gz .rar .7z .jpg .jpeg .png .bmp .srt .vtt .py .sh"
    " .npy .npz .pkl .mat .partial".split()
)
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


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


def videos_below(top: Place) -> list[str]:
    """Relative paths of all files below `top` that may be videos, sorted; of frames the ids, as they come.

    Links to folders are followed; hidden files, and stores that lie among the videos, are passed over. Raises Refusal
    when there is no such folder or it cannot be listed.
    """
    if isinstance(top, Extracted):
        return list(top.videos)
    if not top.is_dir():
        raise Refusal(
            "there is no such folder of videos" if not top.exists() else "this is a file, not a folder of videos",
            where=str(top),
            remedy="give the folder that holds your videos: VIDEOS=/path/to/folder",
        )
    return sorted(path for path in _files(top) if os.path.splitext(path)[1].lower() not in NOT_VIDEOS)


def is_surely_video(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS)


def stem(path: str) -> str:
    """A path without the extension of a video. What follows another dot belongs to the name: `take.2` stays."""
    return os.path.splitext(path)[0] if is_surely_video(path) else path


def spelling(name: str) -> str:
    """The name of a class or folder as it is compared: `Playing Guitar` and `playing_guitar` are one class."""
    return name.casefold().replace(" ", "_")


def split_folder(path: str) -> str:
    """The split that a leading `train/`, `val/` or `test/` of a relative path gives, or empty."""
    first, below, _ = path.partition("/")
    return SPLIT_FOLDERS.get(first.lower(), "") if below else ""


def _files(top: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(top, onerror=_unreadable, followlinks=True):
        if layout.RECORD in names:
            folders.clear()
            continue
        folders[:] = [n for n in folders if not n.startswith(".") and not leads_back(os.path.join(folder, n))]
        found += [os.path.relpath(os.path.join(folder, name), top) for name in names if not name.startswith(".")]
    return found


def leads_back(folder: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    target = os.path.realpath(folder)
    parent = os.path.realpath(os.path.dirname(folder))
    return os.path.commonpath([target, parent]) == target


def _unreadable(error: OSError) -> None:
    raise Refusal(
        f"a folder cannot be listed: {error.strerror}",
        where=str(error.filename),
        remedy="make it readable, or move it out of the folder of videos",
    )
