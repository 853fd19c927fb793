"""A plain folder of videos: `<class>/<video>`, or flat (unlabelled); `train/ val/ test/` above it is respected."""

from __future__ import annotations

from pipeline.errors import Refusal
from pipeline.importers.inventory import EXTENSIONS, Place, folder_of, ids_of, split_folder, videos_below
from pipeline.manifest import Manifest, Video


def read(videos: Place) -> Manifest:
    """One row for every video below `videos`, in sorted order (that of frames is their own).

    The label is the folder directly above the file, below the split folder; files that lie flat have none. A leading
    `train/`, `val/` or `test/` folder gives the split. Raises Refusal when there is no such folder or no video in it.
    """
    paths = videos_below(videos)
    if not paths:
        raise Refusal(
            "no video was found",
            where=str(folder_of(videos)),
            remedy=f"videos are files that end in {' '.join(EXTENSIONS)}, or have no extension",
        )
    ids = ids_of(videos, paths)
    rows = [_video(path, ids[path]) for path in paths]
    return Manifest(rows, sorted({row.label for row in rows if row.label}, key=lambda name: (name.lower(), name)))


def _video(path: str, video_id: str) -> Video:
    parts = path.split("/")
    split = split_folder(path)
    inner = parts[1:] if split else parts
    label = inner[-2] if len(inner) > 1 else ""
    return Video(video_id=video_id, path=path, label=label, source=video_id, split=split)
