"""TensorBoard's histograms of which prototypes clips belong to, which `train.clustering.watching` sums up."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from train.batches.batch import Batch
from train.callbacks.metrics import Metrics
from train.clustering.watching import Watch

BINS = 128  # at most; prototypes next to each other share one


class Assignments(Callback):
    """With each line of metrics.jsonl, of each stream, the prototypes of the clips that a `Watch` remembers.

    metrics: comes before this one.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or self.metrics.latest.get("step") != step or trainer.logger is None:
            return
        for watch in (part for part in pl_module.modules() if isinstance(part, Watch)):
            for number, recent in enumerate(watch.recent):
                known = recent[recent >= 0]
                if len(known):
                    name = "prototypes of clips" + (f", stream {number + 1}" if len(watch.recent) > 1 else "")
                    logger: Any = trainer.logger
                    logger.experiment.add_histogram(name, known.cpu(), step, bins=min(BINS, watch.count))
