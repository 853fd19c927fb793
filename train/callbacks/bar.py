"""The progress line, and what its meters mean."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from pipeline.terminal import visible
from train.batches.batch import Batch
from train.callbacks import ends_step, loader_of
from train.callbacks.metrics import Metrics
from train.console import tell
from train.methods.meters import Meter
from train.methods.method import Method
from train.networks.queue import Queue


class Bar(Callback):
    """One line for the whole stage, what is asked for most in front, as a narrow terminal cuts off its end: time left,
    loss, clips a second, share of waiting for data, which have room in 60 columns; the step; how far a queue is filled,
    until it is, and what guessing gives meanwhile; meters of the method.

    The figures are those of the last line of metrics.jsonl, so showing them costs no wait for the GPU. What the meters
    mean is told once, when the stage starts. Where a line cannot be redrawn (a log file), there is one every ten
    seconds.

    also: meters of what is noted now and then; the last figure stays.
    """

    def __init__(self, title: str, metrics: Metrics, also: dict[str, Meter]) -> None:
        self.title, self.metrics, self.also = title, metrics, also
        self.bar: tqdm | None = None
        self.meters: dict[str, Meter] = {}
        self.known: dict[str, float] = {}
        self.queue: Queue | None = None  # the longest one

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Method)
        self.meters = pl_module.meters(loader_of(trainer).order.batch) | self.also
        for meter in self.meters.values():
            tell(f'{self.title}: "{meter.label}" is {meter.meaning}')
        queues = [part for part in pl_module.modules() if isinstance(part, Queue)]
        self.queue = max(queues, key=lambda queue: len(queue.features), default=None)
        if self.queue is not None and any(meter.places for meter in self.meters.values()):
            tell(
                f"{self.title}: until the queue is filled its other keys are random, and told apart easily: what is"
                " ranked first falls meanwhile, as guessing does, which is no collapse"
            )
        live = sys.stderr.isatty()
        self.bar = tqdm(
            desc=visible(self.title),
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            dynamic_ncols=live,
            ncols=None if live else 200,
            mininterval=0.2 if live else 10,
            bar_format="{remaining} left, {desc} {n_fmt}/{total_fmt} steps{postfix}",
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.bar is None or not ends_step(trainer, batch_idx):
            return
        line = self.metrics.latest
        if line.get("step") == trainer.global_step:
            loader = loader_of(trainer)
            clips = loader.order.batch * trainer.accumulate_grad_batches * loader.planner.reading.count
            shown = [f"loss {line['loss']:.3g}", f"{clips / line['step_time']:.0f} clips/s"]
            shown.append(f"data wait {100 * line['data_time'] / line['step_time']:.0f} %")
            self.bar.set_description_str(", ".join([*shown, visible(self.title)]), refresh=False)
            self.bar.set_postfix_str(", ".join(self._meters(line)), refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def _meters(self, line: dict[str, float]) -> Iterator[str]:
        queued = None
        if self.queue is not None and not self.queue.full:
            queued, length = int(self.queue.filled.sum()), len(self.queue.filled)
            yield f"queue filled: {100 * queued / length:.0f} %"
        self.known |= line
        for name, meter in self.meters.items():
            if name in self.known:
                guessing = meter.places and queued is not None
                chance = f" (guessing {100 * meter.guessing(queued or 0):.2g} %)" if guessing else ""
                yield f"{meter.label}: {100 * self.known[name]:.1f} %{chance}"

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
