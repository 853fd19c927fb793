"""What tests of methods give to a training step, and what they keep of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from train.hardware.collectives import mean_over_ranks

CHANNELS = {"rgb": 3, "flow": 2}  # of the clips of these tests


@dataclass
class Views:
    """A batch as methods see it."""

    clips: list[Tensor] | dict[str, list[Tensor]]  # of every stream alike, or by stream
    labels: Tensor | None = None
    sources: Tensor | None = None

    def views(self, stream: str) -> list[Tensor]:
        return self.clips[stream] if isinstance(self.clips, dict) else self.clips

    def view(self, stream: str, number: int) -> Tensor:
        return self.views(stream)[number]

    def to_send(self, stream: str, number: int) -> tuple[Tensor, ...]:
        return (self.view(stream, number),)


class Recorder(Callback):
    """Gradients (after averaging over ranks), values (means over ranks) and learning rates of every step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.values: list[dict[str, float]] = []
        self.learning_rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, method: LightningModule, optimizer: Any) -> None:
        named = method.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.learning_rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, method: LightningModule, outputs: Any, *args: Any) -> None:
        self.values.append({name: float(mean_over_ranks(value)) for name, value in outputs.items()})


def fit(method: LightningModule, given: list[Views], folder: Path, **settings: Any) -> Recorder:
    """Train on these batches, a step each, on the CPU and without a word."""
    recorder = Recorder()
    Trainer(
        accelerator="cpu",
        max_steps=settings.pop("max_steps", len(given)),
        callbacks=[recorder],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    ).fit(method, DataLoader(given, batch_size=None))
    return recorder
