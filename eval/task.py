"""What an evaluation measures, and how the clips for it are read."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.protocols import Protocol
from eval.runs import Stage, trained_on
from pipeline.store import VideoStore
from train.provenance import data_of
from train.reader import Executor, create


@dataclass(frozen=True)
class Task:
    """The stages of a run, on videos of a store, by protocols.

    reader, threads: as of `train.reader.create`. half: features are kept as float16, in half the space.
    """

    run: Path
    stages: Sequence[Stage]
    store: VideoStore
    videos: Sequence[str]
    protocols: Sequence[Protocol]
    reader: str
    threads: int
    half: bool = False

    @functools.cached_property
    def home(self) -> str:
        """The name of the store's data set if the run was trained on its training videos, and else nothing: published
        numbers stand beside networks that were trained on the data set that they are tested on."""
        return data_of(self.store) if all(trained_on(stage, self.run, self.store) for stage in self.stages) else ""

    def reading(self) -> contextlib.closing[Executor]:
        return contextlib.closing(create(self.reader, self.store, self.threads))
