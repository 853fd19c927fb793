"""Masks and key points that somebody has already, in a folder, found by the ids of the videos.

Of the video `Walk/w_01` it is FOLDER/Walk/w_01.npy or .npz (an array `maps` or `keypoints`), or a folder of pictures of
that name, taken in the order of the numbers in their names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from pipeline import pictures, storage
from pipeline.errors import UsageError
from pipeline.people.estimator import MapEstimator
from pipeline.people.key_points import JOINTS, heat_maps

PICTURES = (".png", ".jpg", ".jpeg")
SUFFIXES = (".npz", ".npy")
LARGEST = 2**30  # bytes of an array that is compressed
MOST_PEOPLE = 1000  # in a frame


@dataclass
class MapFiles(MapEstimator):
    """Takes what is there. There must be as many maps as frames that are estimated: of every frame, or, where the view
    is estimated at every n-th, of the frames 0, n, 2n and so on.

    Args:
        folder: Where they lie. No part of the store's settings: each video's record keeps a digest of what was taken.
    """

    name: ClassVar[str] = "files"
    RUNNING: ClassVar[frozenset[str]] = frozenset({"folder"})
    view: ClassVar[str]
    planes: ClassVar[int]

    folder: str = ""
    _given: _Given | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str):
            raise TypeError(f"folder {self.folder!r} is no path")

    def open(self) -> None:
        if not self.folder or not os.path.isdir(self.folder):
            raise UsageError(
                f"the {self.view} is to be taken from files, and "
                + (f"there is no folder {self.folder}" if self.folder else "no folder is given"),
                where=f"--{self.view}.running",
                remedy=f"""give it: --{self.view}.running '{{"folder": "/path/to/files"}}'""",
            )

    def of_video(self, video_id: str) -> MapEstimator:
        one = dataclasses.replace(self)
        with _read():  # what is wrong with one video's files ends no run
            one._given = self._found(Path(self.folder) / video_id)
        return one

    def finish(self, cut: bool) -> None:
        assert self._given is not None, "of_video() comes first"
        if self._given.taken != self._given.count and not cut:
            raise ValueError(f"{self._given.where} has {self._given.count} maps, and {self._given.taken} were needed")

    @property
    def facts(self) -> dict[str, Any]:
        assert self._given is not None, "of_video() comes first"
        return {"sha256": self._given.digest}

    def maps(self, frames: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        assert self._given is not None, "of_video() comes first"
        if len(numbers) and numbers[-1] >= self._given.count:
            raise ValueError(f"{self._given.where} has {self._given.count} maps, and the video more frames than that")
        self._given.taken += len(numbers)
        return np.stack([self._map(self._given, number, size) for number in numbers])

    def _map(self, given: _Given, number: int, size: tuple[int, int]) -> np.ndarray:
        planes = given.frame(number)
        if planes.dtype != np.uint8 or planes.ndim != 3 or planes.shape[0] != self.planes:
            wanted = f"uint8 ({self.planes}, H, W)"
            raise ValueError(f"a map of {given.where} is {planes.dtype} {planes.shape}, not {wanted}")
        return np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) for plane in planes])

    def _found(self, path: Path) -> _Given:
        for suffix in SUFFIXES:
            file = path.with_name(path.name + suffix)
            if os.path.isfile(file):
                return self._array(file)
        if os.path.isdir(path):
            return _pictures(path)
        raise ValueError(f"there is no {self.view} at {path}: neither a file {' or '.join(SUFFIXES)} nor a folder")

    def _array(self, file: Path) -> _Given:
        """What is compressed may be far larger than its file, and is read whole; any other array where it is needed."""
        digest = storage.file_digest(file)
        try:
            loaded = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} is no whole array: {error}") from error
        if isinstance(loaded, np.ndarray):
            return self._of_arrays({"maps": loaded}, file, digest)
        with loaded:
            if (largest := max((part.file_size for part in loaded.zip.infolist()), default=0)) > LARGEST:
                raise ValueError(f"{file} holds an array of {largest:,} bytes, over {LARGEST:,}: save it as .npy")
            return self._of_arrays(loaded, file, digest)

    def _of_arrays(self, arrays: Mapping[str, np.ndarray], file: Path, digest: str) -> _Given:
        if "maps" not in arrays:
            raise ValueError(f'{file} holds {", ".join(arrays) or "nothing"}, and no array "maps"')
        maps = arrays["maps"]
        if maps.ndim not in (3, 4):
            raise ValueError(f"maps of {file} are {maps.dtype} {maps.shape}, not uint8 (F, {self.planes}, H, W)")
        maps = maps[:, None] if maps.ndim == 3 and self.planes == 1 else maps  # (F, H, W) of masks
        return _Given(str(file), len(maps), digest, lambda number: maps[number])


@dataclass
class _Given:
    """What there is of a video. frame: the n-th map, uint8 (P, H, W), or key points, float (people, 17, 3)."""

    where: str
    count: int
    digest: str
    frame: Callable[[int], np.ndarray]
    taken: int = 0


@contextlib.contextmanager
def _read() -> Iterator[None]:
    """A ValueError for what cannot be read."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error


def _pictures(folder: Path) -> _Given:
    """Gray pictures, 255 is sure."""
    files = sorted((path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=_place)
    digest = hashlib.sha256("".join(storage.file_digest(path) for path in files).encode()).hexdigest()

    def frame(number: int) -> np.ndarray:
        with _read():
            content = storage.read_regular(files[number])
        image = pictures.decoded(content, cv2.IMREAD_GRAYSCALE)
        if image is None or (damaged := pictures.damage(content)):
            raise ValueError(f"{files[number]} is no {'picture' if image is None else f'whole picture: {damaged}'}")
        return image[None]

    return _Given(str(folder), len(files), digest, frame)


def _place(picture: Path) -> tuple[list[int], str]:
    """Sorts pictures of a video: mask_2 before mask_10."""
    return [int(number) for number in re.findall("[0-9]+", picture.name)], picture.name


class MaskFiles(MapFiles):
    """Soft masks, uint8: 255 is somebody. Arrays `maps` (F, H, W) or (F, 1, H, W), or a folder of gray pictures."""

    view = "segmentation"
    planes = 1


class PoseFiles(MapFiles):
    """Arrays `maps`, uint8 (F, 17, H, W), or `keypoints`, (F, people, 17, 3): see `key_points.heat_maps`. Where a frame
    has fewer people than another, their confidence is 0."""

    view = "pose"
    planes = len(JOINTS)

    def _of_arrays(self, arrays: Mapping[str, np.ndarray], file: Path, digest: str) -> _Given:
        if "keypoints" not in arrays:
            return super()._of_arrays(arrays, file, digest)
        points = arrays["keypoints"]
        if points.ndim != 4 or points.shape[2:] != (len(JOINTS), 3) or points.dtype.kind != "f":
            raise ValueError(f"keypoints of {file} are {points.dtype} {points.shape}, not float (F, people, 17, 3)")
        if points.shape[1] > MOST_PEOPLE:
            raise ValueError(f"keypoints of {file} are of {points.shape[1]:,} people a frame, over {MOST_PEOPLE:,}")
        return _Given(str(file), len(points), digest, lambda number: points[number])

    def _map(self, given: _Given, number: int, size: tuple[int, int]) -> np.ndarray:
        planes = given.frame(number)
        return heat_maps(planes, size) if planes.dtype.kind == "f" else super()._map(given, number, size)
