"""Networks of others, as files of `torch.export`: they hold the weights and what is computed with them, so that the
package that a network is from need not be here (docs/flow.md saves one of torchvision's)."""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline import environment, storage  # noqa: F401  (before torch, which reads what it sets)

# isort: split
import torch

from pipeline.errors import UsageError
from pipeline.people.estimator import MapEstimator
from pipeline.people.key_points import JOINTS
from pipeline.views.size import resize

PIXELS = {  # mean and deviation that are taken off the colours, 0..1
    "imagenet": (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
    "0..1": (np.zeros(3), np.ones(3)),
    "-1..1": (np.full(3, 0.5), np.full(3, 0.5)),
}
SCORES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda scores: scores.softmax(0),
    "sigmoid": torch.sigmoid,
    "shares": lambda scores: scores,
}


REMEDY = "save it so: torch.export.save(torch.export.export(network.eval(), (torch.zeros(1, 3, 256, 256),)), path)"


@dataclass
class Program(MapEstimator):
    """One network for the whole frame, on a CPU. Subclasses say of which view.

    It gets a frame as float32 (1, 3, height, width), RGB, stretched to the size that it was saved with, and gives
    scores (1, C, h, w), alone or first of what it gives.

    Args:
        path: Of the file. No part of the store's settings: `digest` tells which network it is.
        digest: sha256 of the file; any other is refused. None becomes that of the file that is there.
        channel: Which of the C is the view's only plane; None: all are its planes, in their order.
        scores: What they are: softmax (over the C, then 0..1), sigmoid (each for itself) or shares (0..1 already).
        pixels: What it gets of bytes: imagenet (0..1, less ImageNet's mean and by its deviation), 0..1 or -1..1.
    """

    name: ClassVar[str] = "program"
    RUNNING: ClassVar[frozenset[str]] = frozenset({"path"})
    software: ClassVar[tuple[str, ...]] = ("torch",)
    view: ClassVar[str]
    planes: ClassVar[int]

    path: str = ""
    digest: str | None = None
    channel: int | None = None
    scores: Literal["softmax", "sigmoid", "shares"] = "softmax"
    pixels: Literal["imagenet", "0..1", "-1..1"] = "imagenet"
    _network: Any = field(default=None, init=False, repr=False)
    _shown: tuple[int, int] = field(default=(0, 0), init=False, repr=False)  # height and width of what it gets

    def __post_init__(self) -> None:
        if self.channel is not None and (type(self.channel) is not int or self.channel < 0):
            raise TypeError(f"channel {self.channel!r} is no whole number from 0 on")
        for name, known in (("scores", SCORES), ("pixels", PIXELS)):
            if getattr(self, name) not in known:
                raise TypeError(f"{name} {getattr(self, name)!r} is none of {', '.join(known)}")
        if not isinstance(self.path, str):
            raise TypeError(f"path {self.path!r} is no path")
        if self.path or self.digest is None:  # else it is only asked for its settings
            self.open()

    def open(self) -> None:
        if not os.path.isfile(self.path):
            raise UsageError(
                f"the {self.view} is to be estimated by a network, and "
                + (f"there is no file {self.path}" if self.path else "its file is not given"),
                where=f"--{self.view}.running",
                remedy=f"""give it: --{self.view}.running '{{"path": "/path/to/network.pt2"}}'""",
            )
        found = storage.file_digest(Path(self.path))
        if self.digest not in (None, found):
            raise UsageError(
                f"this is not the network that the settings record: sha256 {found}, recorded {self.digest}",
                where=self.path,
                remedy="put the recorded file there; another network needs a store of its own",
            )
        self.digest = found
        self._network, self._shown = _loaded(self.path, found)
        try:
            scores = tuple(self._scores(np.zeros((*self._shown, 3), np.uint8)).shape)
        except Exception as error:  # what runs is somebody's program
            problem = f"the network fails on a frame of the size that it was saved with: {error or repr(error)}"
            raise UsageError(problem, where=self.path, remedy=REMEDY) from error
        planes = 1 if self.channel is not None else scores[0]
        if len(scores) != 3 or planes != self.planes or (self.channel or 0) >= scores[0]:
            raise UsageError(
                f"the network gives scores {scores} of a frame, and the {self.view} has {self.planes} planes",
                where=self.path,
                remedy="take one that gives them, or say which channel is the only plane:"
                f""" --{self.view}.parameters '{{"channel": 0}}'""",
            )

    def maps(self, frames: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        found = np.empty((len(frames), self.planes, *size), np.uint8)
        for place, frame in enumerate(resize(frames, 0, self._shown)):
            scores = self._scores(frame)
            if not scores.isfinite().all():
                raise ValueError(f"the network {self.path} gives scores that are not finite")
            shares = SCORES[self.scores](scores)[slice(None) if self.channel is None else [self.channel]]
            found[place] = np.rint(255 * np.clip(resize(shares.numpy(), 0, size), 0, 1))
        return found

    @torch.no_grad()
    def _scores(self, frame: np.ndarray) -> torch.Tensor:
        """(C, h, w) float32 of a frame, uint8 (height, width, 3)."""
        assert self._network is not None, "open() comes first"
        mean, deviation = PIXELS[self.pixels]
        given = (frame / 255 - mean) / deviation
        found = self._network(torch.from_numpy(given.astype(np.float32)).permute(2, 0, 1)[None].contiguous())
        while not isinstance(found, torch.Tensor):
            found = next(iter(found.values() if isinstance(found, Mapping) else found))
        return found[0].float()


@functools.lru_cache(maxsize=1)  # the estimator that resolves settings and the one that works share it
def _loaded(path: str, digest: str) -> tuple[Any, tuple[int, int]]:
    """The network in a file, and the height and width that it was saved with. `digest` tells files at one path apart.
    Raises UsageError."""
    if not zipfile.is_zipfile(path):
        raise UsageError("this is no file of torch.export", where=path, remedy=REMEDY)
    try:
        program = torch.export.load(path)
    except Exception as error:  # other archives make it raise nearly anything
        raise UsageError(f"this is no file of torch.export: {error}", where=path, remedy=REMEDY) from error
    asked = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shapes = [tuple(value.shape) for value in asked if isinstance(value, torch.Tensor)]
    whole = len(asked) == len(shapes) == 1 and all(type(side) is int for side in shapes[0])
    if not whole or len(shapes[0]) != 4 or shapes[0][:2] != (1, 3):
        raise UsageError(
            f"the network asks for {', '.join(map(str, shapes)) or 'nothing'}, and not for one frame of a fixed size",
            where=path,
            remedy=REMEDY,
        )
    return program.module(), shapes[0][2:]


class MaskProgram(Program):
    """A share for each pixel of somebody being there: of a network for the 21 classes of Pascal VOC, channel 15."""

    view = "segmentation"
    planes = 1


class PoseProgram(Program):
    """A map for each joint, in the order of COCO. Networks that ask for boxes, or give points, are no such: what they
    found is taken by `files`."""

    view = "pose"
    planes = len(JOINTS)
