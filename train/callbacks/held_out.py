"""How a classifier does while it is trained: classes of videos that are kept out of training."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from train.callbacks.metrics import Metrics
from train.callbacks.watching import WatchedClips, Watching
from train.embedding import rows_of
from train.methods.meters import Meter
from train.networks.network import Network
from train.reader import Executor
from train.recipe import HeldOutSettings
from train.training_set import Videos

TOP1, ENTROPY = "held_out_top1", "held_out_cross_entropy"  # in metrics.jsonl


class HeldOutClasses(Watching):
    """`held_out_top1` and `held_out_cross_entropy`, by the middle clip of each video; see
    `train.recipe.HeldOutSettings`."""

    def __init__(self, settings: HeldOutSettings, held_out: Videos, clips: WatchedClips, metrics: Metrics) -> None:
        super().__init__(settings.every, held_out, clips, metrics)
        labels = np.asarray(self.held_out.labels)
        most = np.bincount(labels).max() / len(labels)
        meaning = (
            f"the share of {len(labels)} videos held out of training whose class has the largest logit; always saying"
            f" their most frequent class gives {100 * most:.3g} %"
        )
        self.meters, self.names = {TOP1: Meter("held out", meaning)}, (TOP1, ENTROPY)

    def look(self, network: Network, stream: str, reader: Executor) -> list[float]:
        """Fraction of the held-out videos that were right, and mean cross-entropy."""
        logits = rows_of(network, self.clips.of(self.held_out, stream, 0.5), reader, "head", unit=False)
        labels = torch.from_numpy(np.asarray(self.held_out.labels).astype(np.int64)).to(logits.device)
        right = logits.argmax(dim=1) == labels
        return [float(right.float().mean()), float(functional.cross_entropy(logits, labels))]
