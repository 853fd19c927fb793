"""Training ends at the first step whose numbers are none, and no checkpoint of it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, distributed
from torch.nn.utils import get_total_norm

from pipeline import called
from pipeline.errors import Refusal
from train.batches.batch import Batch
from train.callbacks import ends_step
from train.callbacks.metrics import Metrics
from train.hardware.collectives import world_size

NEVER = torch.iinfo(torch.int64).max
LOSS, GRADIENT = "its loss is not finite", "the norm of its gradient is not finite"
WEIGHTS = "the norm of its weights, statistics and queues is not finite"
SCALE = "its gradients are not finite at any scale of the loss"
SMALLEST_SCALE = 1e-4  # fairseq gives up at the same; GradScaler itself would go on halving, and leave out every step


class Diverged(Refusal):
    """Training was ended by a loss, gradient or weight that is not finite, on all ranks together."""


class Divergence(Callback):
    """Raises Diverged, which names the first step whose loss or gradient was NaN or infinite on any rank.

    What is not finite is remembered on the device, so that no step waits for it, and looked at where values are read
    anyway: before a line of metrics.jsonl and before a checkpoint, which for its part needs finite weights, statistics
    and queues. Until then at most `log_every` steps are made in vain. In 16-mixed, gradients that are too large for the
    scale of the loss are legal: the step is left out and the scale halved. There, a scale that has collapsed is the
    error.

    Args:
        folder: Of the stage.
        metrics: Comes after this one.
    """

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self.folder, self.metrics = folder, metrics
        self.first: dict[str, Tensor] = {}  # what was not finite -> the first step, int64 scalar on the device

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.first = {what: torch.full((), NEVER, device=pl_module.device) for what in (LOSS, GRADIENT)}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.scaler is None:
            gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
            self._remember(GRADIENT, get_total_norm(gradients), trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        ended = ends_step(trainer, batch_idx)
        self._remember(LOSS, outputs["loss"], trainer.global_step + (not ended))
        if ended and self.metrics.due(trainer):
            self._check(trainer, {})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        weights = [value for value in pl_module.state_dict().values() if value.is_floating_point()]
        now = torch.full((), trainer.global_step, device=pl_module.device)
        self._check(trainer, {WEIGHTS: now.masked_fill(get_total_norm(weights).isfinite(), NEVER)})

    def _remember(self, what: str, value: Tensor, step: int) -> None:
        first = self.first[what]
        first.masked_fill_(~value.detach().isfinite() & (first == NEVER), step)

    def _check(self, trainer: Trainer, also: dict[str, Tensor]) -> None:
        found = self.first | also
        if trainer.scaler is not None:
            collapsed = trainer.scaler.get_scale() < SMALLEST_SCALE
            found[SCALE] = torch.full_like(self.first[LOSS], trainer.global_step if collapsed else NEVER)
        steps = torch.stack(list(found.values()))
        if world_size() > 1:
            distributed.all_reduce(steps, distributed.ReduceOp.MIN)
        step, what = min(zip(steps.tolist(), found, strict=True), key=lambda pair: pair[0])
        if step != NEVER:
            raise Diverged(
                f"training diverged in step {step} of stage {self.folder.name}: {what}",
                where=str(self.folder),
                remedy="a recipe with a lower learning rate (optimiser.lr), clip_gradients, a larger temperature, or"
                f" precision: 32-true, and another {called.option('run')}. {self._kept()}",
            )

    def _kept(self) -> str:
        path = self.folder / "checkpoints" / "last.ckpt"
        return f"The last checkpoint from before is kept: {path}" if path.exists() else "There is no checkpoint yet"
