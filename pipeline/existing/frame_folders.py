"""Folders of JPEGs as denseflow writes them and MMAction2 reads them: a folder a video, `<class>/<video>/`.

Frames are `img_00001.jpg` and so on; the flow of each pair is two gray pictures, `flow_x_00001.jpg` (u) and
`flow_y_00001.jpg` (v). Counting starts at 0 or 1 and leaves nothing out.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

from pipeline.errors import Refusal
from pipeline.importers.inventory import Tree, told_by_kind
from pipeline.storage import stamp_of
from pipeline.video.decode import Undecodable

PICTURE = re.compile(r"(img|flow_x|flow_y)_(\d+)\.jpe?g", re.IGNORECASE)


class FrameFolders(AbstractContextManager):
    """Every folder below `path` that has such pictures, or has nothing below it, which is a video that is empty; links
    are followed, to each folder once."""

    kind = "denseflow-folders"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.videos = sorted(self._videos())
        if not self.videos:
            raise Refusal(
                "no folder below it has img_*.jpg, flow_x_*.jpg or flow_y_*.jpg",
                where=str(path),
                remedy="give the folder above the classes, as <class>/<video>/img_00001.jpg",
            )

    def place(self, video: str) -> str:
        return video

    def frames(self, video: str) -> list[Path]:
        """The files of the frames. Raises Undecodable."""
        return self._pictures(video, "img")

    def flow(self, video: str) -> list[tuple[Path, ...]]:
        """The files of u and v, pair by pair. Raises Undecodable."""
        u, v = self._pictures(video, "flow_x"), self._pictures(video, "flow_y")
        if len(u) != len(v):
            raise Undecodable(f"there are {len(u)} pictures flow_x and {len(v)} pictures flow_y", "open")
        return list(zip(u, v, strict=True))

    def stamp(self, video: str) -> int:
        with contextlib.suppress(OSError):  # there is none, or its name is longer than any
            return stamp_of(sorted((self.path / video).iterdir()))
        return 0

    def close(self) -> None:
        """There is nothing to close."""

    def __exit__(self, *_: object) -> None:
        self.close()

    def _videos(self) -> list[str]:
        tree = Tree(self.path)
        pictures: dict[str, bool] = {}

        def others() -> Iterator[str]:
            for folder, files in tree.folders():
                left = [path for path in files if not PICTURE.fullmatch(posixpath.basename(path))]
                pictures[folder] = len(left) < len(files)
                yield from left

        self.notes += told_by_kind(others(), "files not called img_*.jpg, flow_x_*.jpg or flow_y_*.jpg are left out")
        self.notes += tree.notes()
        above = {posixpath.dirname(folder) for folder in pictures if folder}
        if not any(pictures.values()):
            return []
        return [folder for folder in pictures if folder and (pictures[folder] or folder not in above)]

    def _pictures(self, video: str, kind: str) -> list[Path]:
        """The files of one kind by their numbers, which must have no gap: behind a gap everything would be one too
        early."""
        numbered: dict[int, Path] = {}
        try:
            for entry in os.scandir(self.path / video):
                match = PICTURE.fullmatch(entry.name)
                if match and match[1].lower() == kind:
                    if int(match[2]) in numbered:
                        raise Undecodable(f"two pictures {kind} have the number {int(match[2])}", "open")
                    numbered[int(match[2])] = Path(entry.path)
        except FileNotFoundError as error:
            raise Undecodable(f"{self.path.name} does not have this video", "open") from error
        except OSError as error:
            raise Undecodable(f"its folder cannot be read: {error.strerror}", "open") from error
        numbers = sorted(numbered)
        missing = _first_missing(numbers)
        if missing is not None:
            raise Undecodable(f"picture {kind} number {missing} is missing", "open")
        return [numbered[number] for number in numbers]


def _first_missing(numbers: list[int]) -> int | None:
    """Of sorted numbers that should follow each other from 0 or 1 on; it takes as long as there are pictures."""
    if numbers and numbers[0] > 1:
        return 1
    return next((before + 1 for before, after in pairwise(numbers) if after != before + 1), None)
