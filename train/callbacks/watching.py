"""Looking, while it is trained, at videos that are kept out of training.

They are a part of the training split, whole recordings, and never of the test split: choosing by what is shown here
does not touch what evaluation measures.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from train import augment
from train.callbacks import ends_step, loader_of
from train.callbacks.metrics import Metrics
from train.clips.spec import ClipSpec
from train.clips.streams import StoreStreams
from train.embedding import OneClipEach
from train.methods.meters import Meter
from train.methods.method import Method
from train.networks.network import Network
from train.reader import Executor
from train.sampling import Sampling
from train.training_set import Videos


class WatchedClips:
    """Clips of videos as evaluation cuts them.

    spec, sampling: of the clips. streams: of the method's networks. store_settings: `VideoStore.settings`.
    """

    def __init__(
        self, spec: ClipSpec, sampling: Sampling, streams: Sequence[str], store_settings: Mapping[str, Any]
    ) -> None:
        self.spec, self.sampling = spec, sampling
        self.streams = StoreStreams([spec.stream(name) for name in streams], store_settings).own
        self.policy = augment.policy("evaluate", crop=spec.crop)

    def of(self, videos: Videos, stream: str, place: float) -> OneClipEach:
        """Of each video the window at this place, 0 for the first and 1 for the last."""

        def frames_of(frames: int) -> np.ndarray:
            windows = self.sampling.windows(self.spec, frames)
            return windows[round(place * (len(windows) - 1))]

        return OneClipEach(videos, self.streams[stream], self.policy, frames_of)


class Watching(Callback, ABC):
    """Looks every so many steps and at the end; training goes on as if it had not. Ranks share the clips.

    every: steps between two looks. held_out: the videos that are looked at. clips: of them. metrics: is told of the
    numbers.

    `meters`: which of the numbers the progress line shows, and their meaning. `names`: of all of them.
    """

    meters: dict[str, Meter]
    names: tuple[str, ...]

    def __init__(self, every: int, held_out: Videos, clips: WatchedClips, metrics: Metrics) -> None:
        self.every, self.held_out, self.clips, self.metrics = every, held_out, clips, metrics

    @abstractmethod
    def look(self, network: Network, stream: str, reader: Executor) -> list[float]:
        """What is found of a network, equal on all ranks: as many numbers for every stream."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not ends_step(trainer, batch_idx) or (step % self.every and step != trainer.max_steps):
            return
        assert isinstance(pl_module, Method)
        began, reader = time.perf_counter(), loader_of(trainer).executor
        found = [self.look(network, stream, reader) for stream, network in pl_module.networks.items()]
        values = [value for of_stream in found for value in of_stream]
        self.metrics.note(dict(zip(self.names, values, strict=True)), time.perf_counter() - began)
