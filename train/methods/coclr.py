"""CoCLR: InfoNCE whose positives are also found by the other stream, which is frozen meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from pipeline.errors import refuse_unknown
from train.losses.nce import NOTHING, cotraining_positives, multi_positive_nce, positive_accuracy
from train.methods.contrastive import OF_NETWORKS, STREAM_CHANNELS, network
from train.methods.positives import SeveralPositives
from train.networks.network import Network
from train.networks.queue import Queue
from train.settings import check_flag, check_number

if TYPE_CHECKING:
    from train.loader import Batch


class CoCLR(SeveralPositives):
    """Han et al. 2020, section 3.2: one stream is trained; the other one, frozen, tells which keys are alike.

    Positives of a query are its own key, all keys of the same recording, and the `top_k` keys of other recordings whose
    clips look most similar to the OTHER stream's network (the sampler), which sees the key's clip. Recordings of a batch
    are queued beside the keys. The loss is -log of the positives' share (MIL-NCE).

    A stage starts from two earlier ones: `start: {query: <stage>, sampler: <stage of the other stream>}` in the recipe.

    Args:
        stream: The one that is trained; the sampler sees the other one.
        sampler: What differs in the sampler's encoder (backbone, backbone_settings, dim, temporal_centring).
        top_k: Keys that the sampler finds. Published: 5.
        self_drop: Probability, a coin for the whole batch, that the own key is not counted as a positive where there are
            others, and is a negative then. .9 is the released training, which gains most of the effect; 0 the paper's formula.
        fill_first: Whether the weights stay as they are until the queue is full (released training; before January 2021
            they moved from the first step). Mining begins with a full queue either way.
        settings: as of InfoNCE; `queue` is at least 1.

    Values of a step: those of InfoNCE, `positive_top1` (fraction of queries that rank any positive first), and
    `mined_right` (of the keys that the sampler found, the fraction with the query's label: told where there are labels,
    which nothing is trained on; otherwise 0).

    Raises:
        UsageError: as InfoNCE, and numbers out of range.
    """

    needed_starts: ClassVar[tuple[str, ...]] = ("sampler",)
    kind: ClassVar[str] = "clips that the other stream finds alike"

    def __init__(
        self,
        stream: str,
        sampler: dict[str, Any] | None = None,
        top_k: int = 5,
        self_drop: float = 0.9,
        fill_first: bool = True,
        **settings: Any,
    ) -> None:
        check_number("method.top_k", top_k, whole=True, least=0)
        check_flag("method.fill_first", fill_first)
        for key in sampler or {}:
            if key not in OF_NETWORKS:
                refuse_unknown("setting", key, OF_NETWORKS, where="method.sampler")
        super().__init__(stream, self_drop, **settings)
        self.save_hyperparameters({"sampler": sampler, "top_k": top_k, "fill_first": fill_first})
        made = {key: self.hparams[key] for key in OF_NETWORKS} | (sampler or {})
        in_channels = (settings.get("channels") or STREAM_CHANNELS)[self.other]
        self.sampler = network(in_channels=in_channels, **made).requires_grad_(False)
        self.sampled = Queue(self.hparams["queue"], made["dim"])
        self._found = torch.empty(0)  # the sampler's features of the batch that is being compared
        self.train(self.training)

    @property
    def other(self) -> str:
        """The stream that the sampler sees."""
        return "flow" if self.hparams["stream"] == "rgb" else "rgb"

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        """Of the other stream only the key's clip."""
        return super().reads | {self.other: (1,)}

    @property
    def starts(self) -> dict[str, tuple[str, list[Network]]]:
        return super().starts | {"sampler": (self.other, [self.sampler])}

    def train(self, mode: bool = True) -> Self:
        """The sampler stays in evaluation mode."""
        super().train(mode)
        self.sampler.eval()
        return self

    def compared(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert self.queue is not None
        self._found = self._sample(batch)
        full = self.queue.full
        positives = cotraining_positives(
            self._found, self.sampled.features, batch.sources, self.queue.sources, self.hparams["top_k"], mine=full
        )
        return {
            "loss": multi_positive_nce(logits, positives, drop_self=self.drops_self()),
            "positive_top1": positive_accuracy(logits, positives, 1),
            "mined_right": self._mined_right(positives[:, 1:], batch),
        }

    def remember(self, key: Tensor, batch: Batch) -> None:
        assert self.queue is not None
        self.queue.enqueue(key, labels=batch.labels, sources=batch.sources)
        self.sampled.enqueue(self._found)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Steps that only fill the queue are counted and move nothing but batch-norm statistics."""
        assert self.queue is not None and optimizer_closure is not None
        if self.hparams["fill_first"] and not self.queue.full:
            optimizer_closure()
            optimizer.zero_grad()
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    @torch.no_grad()
    def _sample(self, batch: Batch) -> Tensor:
        """The sampler's features (B, D) of the clips that the keys are made of."""
        return self.sampler(batch.view(self.other, 1))

    def _mined_right(self, positives: Tensor, batch: Batch) -> Tensor:
        """Mean over rows, each the share among its labelled positives of other recordings; 0 where it has none."""
        assert self.queue is not None
        known = (batch.labels[:, None] != NOTHING) & (self.queue.labels != NOTHING)
        mined = positives & known & (batch.sources[:, None] != self.queue.sources)
        right = mined & (batch.labels[:, None] == self.queue.labels)
        return (right.sum(dim=1) / mined.sum(dim=1).clamp(min=1)).mean()
