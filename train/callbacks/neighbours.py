"""How the representation does while it is trained: nearest neighbours of videos that are kept out of training.

The videos are a part of the training split, whole recordings, and never of the test split: choosing by what is shown here
does not touch what evaluation measures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, distributed

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from train.augment import ClipPlan, Policy
from train.callbacks import ends_step, loader_of
from train.callbacks.metrics import Metrics
from train.clips import sliding_windows
from train.collectives import gather_rows, world_size
from train.inference import unit_features
from train.loader import ClipSettings, usable_frames
from train.methods.meters import Meter
from train.methods.method import Method
from train.networks.network import Network
from train.reader import Executor
from train.recipe import NeighbourSettings

DOMAIN = 0x6E6E  # keeps these random numbers apart from those of other users of the same seed


def hold_out(store: VideoStore, videos: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """(videos to train on, videos held out), each in the order given; which follows from the seed.

    share: of the videos to hold out, whole recordings; 0: none.

    Raises Refusal where there are too few recordings to do without one.
    """
    if not share:
        return list(videos), []
    recordings: dict[str, list[str]] = {}
    for video in videos:
        recordings.setdefault(store.info(video).source, []).append(video)
    names = sorted(recordings)
    held: set[str] = set()
    for place in np.random.default_rng((DOMAIN, seed)).permutation(len(names))[:-1]:
        held.update(recordings[names[place]])
        if len(held) >= max(2, share * len(videos)):
            break
    if len(held) < 2:
        raise Refusal(
            f"{len(names)} recordings are too few to hold some out of training",
            where=str(store.root),
            remedy="neighbours: {every: 0} in the recipe",
        )
    return [video for video in videos if video not in held], [video for video in videos if video in held]


class Neighbours(Callback):
    """Looks every so many steps and at the end; training goes on as if it had not. Ranks share the clips.

    Args:
        videos, held_out: what `hold_out` gave.
        policy: cuts the frames, as evaluation does.
        streams: of the method's networks.
        layer: of theirs, by whose rows videos are compared.
        metrics: is told of the numbers, whose names and meaning are `meters`.
    """

    def __init__(
        self,
        settings: NeighbourSettings,
        store: VideoStore,
        videos: Sequence[str],
        held_out: Sequence[str],
        clips: ClipSettings,
        policy: Policy,
        seed: int,
        streams: Sequence[str],
        layer: str,
        metrics: Metrics,
    ) -> None:
        self.settings, self.store, self.clips, self.policy, self.metrics = settings, store, clips, policy, metrics
        self.held_out, self.layer = list(held_out), layer
        drawn = np.random.default_rng((DOMAIN, seed, 1)).permutation(len(videos))[: settings.gallery]
        self.gallery = [videos[place] for place in sorted(drawn)]
        self.labelled = all(store.info(video).label for video in [*self.held_out, *self.gallery])
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
        classes = [self.store.info(video).label for video in self.gallery]
        chances = [classes.count(self.store.info(video).label) / len(classes) for video in self.held_out]
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
            queries, gallery = ([self._plan(video, 0.5) for video in part] for part in (self.held_out, self.gallery))
            wanted, found = ([self.store.info(video).label for video in part] for part in (self.held_out, self.gallery))
        else:
            queries, gallery = ([self._plan(video, place) for video in self.held_out] for place in (1.0, 0.0))
            wanted = found = self.held_out
        features = _of_all_ranks(network, stream, [*queries, *gallery], reader, self.layer)
        nearest = (features[: len(queries)] @ features[len(queries) :].T).argmax(dim=1).tolist()
        right = [found[place] == label for place, label in zip(nearest, wanted, strict=True)]
        return sum(right) / len(right)

    def _plan(self, video: str, place: float) -> ClipPlan:
        """The sliding window at this place of the video, 0 for the first and 1 for the last."""
        info = self.store.info(video)
        windows = sliding_windows(usable_frames(info), self.clips.length, self.clips.stride)
        pixels = self.policy.pixels((info.height, info.width), self.clips.length, np.random.default_rng(0))
        return ClipPlan(video, windows[round(place * (len(windows) - 1))], pixels)


def _of_all_ranks(network: Network, stream: str, plans: list[ClipPlan], reader: Executor, layer: str) -> Tensor:
    """Unit rows (N, D) of a layer, of the plans, of which each rank computes every so many."""
    ranks, rank = world_size(), distributed.get_rank() if world_size() > 1 else 0
    share = -(-len(plans) // ranks)
    mine = [plans[(rank * share + i) % len(plans)] for i in range(share)]  # the last ranks do some twice
    own = torch.cat([features for _, (features,) in unit_features([network], stream, mine, reader, layer)])
    return gather_rows(own.to(next(network.parameters()).device))[: len(plans)]
