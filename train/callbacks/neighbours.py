"""How the representation does while it is trained: nearest neighbours of videos that are kept out of training.

The videos are a part of the training split, whole recordings, and never of the test split: choosing by what is shown
here does not touch what evaluation measures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from train import augment
from train.callbacks import ends_step, loader_of
from train.callbacks.metrics import Metrics
from train.clips.spec import ClipSpec
from train.clips.streams import StoreStreams
from train.embedding import OneClipEach, rows_of
from train.methods.meters import Meter
from train.methods.method import Method
from train.networks.network import Network
from train.reader import Executor
from train.recipe import NeighbourSettings
from train.sampling import Sampling
from train.training_set import TrainingSet, Videos

DOMAIN = 0x6E6E  # keeps these random numbers apart from those of other users of the same seed


class Neighbours(Callback):
    """Looks every so many steps and at the end; training goes on as if it had not. Ranks share the clips.

    Args:
        training_set: whose held-out videos are looked at.
        spec, sampling: of the clips; frames are cut as evaluation does.
        streams: of the method's networks.
        store_settings: `VideoStore.settings`.
        layer: of theirs, by whose rows videos are compared.
        metrics: is told of the numbers, whose names and meaning are `meters`.
    """

    def __init__(
        self,
        settings: NeighbourSettings,
        training_set: TrainingSet,
        spec: ClipSpec,
        sampling: Sampling,
        seed: int,
        streams: Sequence[str],
        store_settings: Mapping[str, Any],
        layer: str,
        metrics: Metrics,
    ) -> None:
        self.settings, self.spec, self.sampling, self.metrics = settings, spec, sampling, metrics
        self.streams = StoreStreams([spec.stream(name) for name in streams], store_settings)
        self.policy, self.layer = augment.policy("evaluate", crop=spec.crop), layer
        self.held_out = training_set.held_out
        drawn = np.random.default_rng((DOMAIN, seed, 1)).permutation(len(training_set))[: settings.gallery]
        self.gallery = training_set.videos.take(np.sort(drawn))
        self.labelled = all((np.asarray(part.labels) >= 0).all() for part in (self.held_out, self.gallery))
        name, meter = self._meter()
        self.meters = {name if len(streams) == 1 else f"{name}_{stream}": meter for stream in streams}

    def _meter(self) -> tuple[str, Meter]:
        queries = len(self.held_out)
        if not self.labelled:
            meaning = (
                f"the share of {queries} videos held out of training whose last clip is most like their own first one;"
                f" guessing gives {100 / queries:.3g} %"
            )
            return "same_video_top1", Meter("finds itself", meaning)
        classes = np.asarray(self.gallery.labels)
        chances = [float((classes == label).mean()) for label in np.asarray(self.held_out.labels)]
        meaning = (
            f"the share of {queries} videos held out of training whose nearest of {len(classes)} training videos is of"
            f" their class; guessing gives {100 * sum(chances) / queries:.3g} %"
        )
        return "knn_top1", Meter("kNN", meaning)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not ends_step(trainer, batch_idx) or (step % self.settings.every and step != trainer.max_steps):
            return
        assert isinstance(pl_module, Method)
        began, reader = time.perf_counter(), loader_of(trainer).executor
        values = [self.look(network, stream, reader) for stream, network in pl_module.networks.items()]
        self.metrics.note(dict(zip(self.meters, values, strict=True)), time.perf_counter() - began)

    def look(self, network: Network, stream: str, reader: Executor) -> float:
        """The fraction of the held-out videos that were right."""
        if self.labelled:
            queries, gallery = (self._clips(part, stream, 0.5) for part in (self.held_out, self.gallery))
            wanted, found = np.asarray(self.held_out.labels), np.asarray(self.gallery.labels)
        else:
            queries, gallery = (self._clips(self.held_out, stream, place) for place in (1.0, 0.0))
            wanted = found = np.arange(len(self.held_out))
        asked, known = (rows_of(network, clips, reader, self.layer) for clips in (queries, gallery))
        nearest = (asked @ known.T).argmax(dim=1).numpy(force=True)
        return float((found[nearest] == wanted).mean())

    def _clips(self, videos: Videos, stream: str, place: float) -> OneClipEach:
        """Of each video the window at this place, 0 for the first and 1 for the last."""

        def frames_of(frames: int) -> np.ndarray:
            windows = self.sampling.windows(self.spec, frames)
            return windows[round(place * (len(windows) - 1))]

        return OneClipEach(videos, self.streams.own[stream], self.policy, frames_of)
