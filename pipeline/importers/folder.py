"""A plain folder of videos: `<class>/<video>`, or flat (unlabelled); `train/ val/ test/` above it is respected."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline import layout
from pipeline.errors import Refusal
from pipeline.manifest import Manifest, Video, unique_ids

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


def read(videos: Path) -> Manifest:
    """One row for every video below `videos`, in sorted order.

    The label is the folder directly above the file, below the split folder; files that lie flat have none. A leading
    `train/`, `val/` or `test/` folder gives the split. Links to folders are followed; hidden files, and stores that lie
    among the videos, are passed over. Raises Refusal when there is no such folder or no video in it.
    """
    if not videos.is_dir():
        raise Refusal(
            "there is no such folder of videos" if not videos.exists() else "this is a file, not a folder of videos",
            where=str(videos),
            remedy="give the folder that holds your videos: VIDEOS=/path/to/folder",
        )
    paths = sorted(path for path in _files(videos) if _may_be_video(path))
    if not paths:
        raise Refusal(
            "no video was found",
            where=str(videos),
            remedy=f"videos are files that end in {' '.join(EXTENSIONS)}, or have no extension",
        )
    ids = unique_ids(paths)
    rows = [_video(path, ids[path]) for path in paths]
    return Manifest(rows, sorted({row.label for row in rows if row.label}, key=lambda name: (name.lower(), name)))


def _files(top: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(top, onerror=_unreadable, followlinks=True):
        if layout.RECORD in names:
            folders.clear()
            continue
        folders[:] = [n for n in folders if not n.startswith(".") and not _leads_back(os.path.join(folder, n))]
        found += [os.path.relpath(os.path.join(folder, name), top) for name in names if not name.startswith(".")]
    return found


def _leads_back(folder: str) -> bool:
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


def _may_be_video(path: str) -> bool:
    extension = os.path.splitext(path)[1].lower()
    return extension not in NOT_VIDEOS


def _video(path: str, video_id: str) -> Video:
    parts = path.split("/")
    split = SPLIT_FOLDERS.get(parts[0].lower(), "") if len(parts) > 1 else ""
    inner = parts[1:] if split else parts
    label = inner[-2] if len(inner) > 1 else ""
    return Video(video_id=video_id, path=path, label=label, source=video_id, split=split)
