"""A collapse of prototypes is told in the epoch in which it happens, with what to change."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pipeline import called
from train.batches.batch import Batch
from train.callbacks import loader_of
from train.callbacks.metrics import Metrics
from train.clustering.watching import COSINE, EMPTY, ENTROPY, LARGEST, Watch
from train.console import tell

# What no network shows that learns: metric -> limit, what it means beyond, and what to change (docs/methods.md 5.3).
SIGNS: dict[str, tuple[float, str, str]] = {
    LARGEST: (
        0.9,
        "nearly all clips are nearest to one prototype",
        "another learning rate (optimiser.lr): higher where the loss has hardly moved, lower where it has risen",
    ),
    EMPTY: (
        0.95,
        "nearly all prototypes are without a clip that is nearest to them",
        "fewer of them (prototypes), or another learning rate (optimiser.lr)",
    ),
    ENTROPY: (
        0.995,
        "assignments say nothing: every clip belongs to all prototypes alike",
        "a lower learning rate (optimiser.lr), or a smaller epsilon",
    ),
    COSINE: (
        0.95,
        "each prototype nearly coincides with another one",
        "fewer of them (prototypes), or longer rows (dim)",
    ),
}


class Collapse(Callback):
    """Looks at each line of metrics.jsonl of a method with a `Watch`, and tells of a sign of SIGNS when it appears, and
    again only after it was gone.

    A network that has learned nothing yet looks like one that has collapsed, so the first epoch is left out, and the
    clips before `Watch` has seen as many as it remembers.

    Args:
        title: Of the stage.
        metrics: Comes before this one.
    """

    def __init__(self, title: str, metrics: Metrics) -> None:
        self.title, self.metrics = title, metrics
        self.judged_from = 0  # steps
        self.there: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        windows = [part.window for part in pl_module.modules() if isinstance(part, Watch)]
        loader, passes = loader_of(trainer), trainer.accumulate_grad_batches
        videos = loader.order.batch * passes
        self.judged_from = max([len(loader) // passes + 1, *(-(-window // videos) for window in windows)])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        line = self.metrics.latest
        if line.get("step") != trainer.global_step or trainer.global_step < self.judged_from:
            return
        found = {name for name, (limit, _, _) in SIGNS.items() if line.get(name, 0.0) > limit}
        for name in SIGNS:
            if name in found - self.there:
                _, what, remedy = SIGNS[name]
                tell(
                    f"{self.title}: the prototypes have collapsed in epoch {line['epoch']:.0f}, step"
                    f" {line['step']:.0f}: {what} ({name} {line[name]:.3f})"
                    f"\n  to do: in the recipe {remedy}; and another {called.option('run')}"
                )
        self.there = found
