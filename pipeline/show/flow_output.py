"""Where the command `flow` puts flow: a file for one pair; an array, or a folder of numbered files, for a video."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np

from pipeline import storage
from pipeline.errors import Refusal, UsageError
from pipeline.show import flow_files
from pipeline.show.npy import GrowingArray
from pipeline.views.colour import colour_code, full_colour, measured_pairs

ARRAY, PICTURE, KITTI = ".npy", ".png", ".kitti.png"
ENDINGS = (KITTI, PICTURE, ".flo", ARRAY)  # the longer ones first


def ending_of(out: Path) -> str:
    """Which of ENDINGS. Raises UsageError."""
    for ending in ENDINGS:
        if out.name.lower().endswith(ending) and len(out.name) > len(ending):
            return ending
    raise UsageError(
        f"flow cannot be written as {out.name!r}", where=str(out), remedy=f"known endings: {', '.join(ENDINGS)}"
    )


class Output:
    """Takes the flow of pair after pair, in little memory; nothing is under its name before `finish`, and then all of
    it.

    A single pair gives one file. The pairs of a video give one array as `.npy`; otherwise a folder named like `out`
    without its ending, in which files are numbered like the first frames of their pairs.
    """

    def __init__(self, out: Path, single: bool, longest: float = 0.0) -> None:
        """`longest`: pixels that get full colour in pictures; 0 measures it.

        Raises UsageError for an unknown ending, and Refusal where nothing can be written.
        """
        self.ending = ending_of(out)
        self.single, self.longest = single, longest
        self.folder = not single and self.ending != ARRAY
        self.gathers = self.ending == PICTURE or not (single or self.folder)  # pictures share the scale of all pairs
        self.path = out.with_name(out.name[: -len(self.ending)]) if self.folder else out
        if self.path.is_dir():
            raise Refusal(
                "there is such a folder already", where=str(self.path), remedy="remove it, or give another --out"
            )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=".flow.", suffix=".partial", dir=out.parent))
            (self._aside / "files").mkdir()
        except OSError as error:
            raise flow_files.unwritable(out, error) from error
        self._array = GrowingArray(self._aside / "all.npy")
        self._pairs = 0

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, flow: np.ndarray) -> None:
        """float32 (n, 2, H, W) in pixels."""
        try:
            if self.gathers:
                self._array.add(flow.astype(np.float32, copy=False))
            else:
                for one in flow:
                    target = self.path if self.single else self.path / self._name(self._pairs).name
                    self._write(flow_files.encode(target, one))
        except OSError as error:
            raise flow_files.unwritable(self.path, error) from error

    def finish(self) -> None:
        try:
            if self.gathers:
                self._array.finish()
            if self.ending == PICTURE:
                self._write_pictures()
            done = self._name(0) if self.single else self._aside / "files" if self.folder else self._array.path
            storage.flush_file_system(self._aside)
            os.replace(done, self.path)
        except OSError as error:
            raise flow_files.unwritable(self.path, error) from error

    def _name(self, number: int) -> Path:
        return self._aside / "files" / f"{number:06d}{self.ending}"

    def _write(self, data: bytes) -> None:
        self._name(self._pairs).write_bytes(data)
        self._pairs += 1

    def _write_pictures(self) -> None:
        flow = np.load(self._aside / "all.npy", mmap_mode="r")
        if not self.longest:
            self.longest = full_colour(flow[measured_pairs(len(flow))])
        for one in flow:
            picture = colour_code(one[None], self.longest)[0]
            self._write(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
