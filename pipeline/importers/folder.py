"""A plain folder of videos: `<class>/<video>`, or flat (unlabelled); `train/ val/ test/` above it is respected."""

from __future__ import annotations

from pipeline.errors import Refusal
from pipeline.importers.inventory import (
    Extracted,
    Place,
    folder_of,
    ids_of,
    inventory_of,
    split_folder,
    told_by_extension,
)
from pipeline.manifest import Manifest, Video


def read(videos: Place) -> Manifest:
    """One row for every video below `videos`, in sorted order (that of frames is their own).

    The label is the folder directly above the file, below the split folder; files that lie flat have none. A leading
    `train/`, `val/` or `test/` folder gives the split. Notes tell what is left out. Raises Refusal when there is no
    such folder or no video in it.
    """
    inventory = inventory_of(videos)
    paths, notes = inventory.videos(), inventory.notes()
    if not paths:
        raise Refusal(
            "; ".join(["no video was found", *notes]),
            where=str(folder_of(videos)),
            remedy="give the folder that holds your videos:"
            " files as .mp4 .mkv .avi .webm .mov, or without an extension",
        )
    ids = ids_of(videos, paths)
    if not isinstance(videos, Extracted):
        notes += told_by_extension(ids)
    rows = [_video(path, ids[path]) for path in paths]
    return Manifest(
        rows, sorted({row.label for row in rows if row.label}, key=lambda name: (name.lower(), name)), tuple(notes)
    )


def _video(path: str, video_id: str) -> Video:
    parts = path.split("/")
    split = split_folder(path)
    inner = parts[1:] if split else parts
    label = inner[-2] if len(inner) > 1 else ""
    return Video(video_id=video_id, path=path, label=label, source=video_id, split=split)
