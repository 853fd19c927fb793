"""InfoNCE on one stream: two clips of a video find each other among clips of other videos."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from pipeline.errors import refuse_unknown
from train.collectives import encode_shuffled, gather_rows, world_size
from train.losses.nce import contrast_logits, in_batch_logits, own_key_accuracy, own_key_nce
from train.methods.contrastive import OF_NETWORKS, STREAM_CHANNELS, Contrastive, network
from train.methods.method import Meter
from train.networks.momentum import momentum_update
from train.networks.network import Network
from train.networks.queue import Queue
from train.optim import make_optimiser, with_schedule

if TYPE_CHECKING:
    from train.loader import Batch


class InfoNCE(Contrastive):
    """Stage one of CoCLR (Han et al. 2020): MoCo's InfoNCE with a momentum encoder and a queue of keys.

    The first clip is the query, the second one the key. With `queue: 0` there is neither queue nor momentum encoder:
    both clips are compared with all other clips of the batch over all ranks (SimCLR's NT-Xent), which learns faster
    on small sets.

    Args:
        stream: "rgb" or "flow".
        settings: as of `Contrastive`; `queue: 0` for in-batch negatives, on which `momentum` has no effect.

    Values of a step: `loss`, `contrast_top1` and `contrast_top5` (fraction of queries whose own key ranks first or among
    the first five).

    Raises:
        UsageError: an unknown stream, backbone or setting, or a number out of range.
    """

    in_batch: ClassVar[bool] = True

    def __init__(self, stream: str, **settings: Any) -> None:
        if stream not in STREAM_CHANNELS:
            refuse_unknown("stream", stream, STREAM_CHANNELS, where="method.stream")
        super().__init__(**settings)
        self.save_hyperparameters({"stream": stream})
        in_channels = (self.hparams["channels"] or STREAM_CHANNELS)[stream]
        self.query_encoder = network(in_channels=in_channels, **{key: self.hparams[key] for key in OF_NETWORKS})
        self.key_encoder: Network | None = None
        self.queue: Queue | None = None
        if self.hparams["queue"]:
            self.key_encoder = copy.deepcopy(self.query_encoder).requires_grad_(False)
            self.queue = Queue(self.hparams["queue"], self.hparams["dim"])

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {self.hparams["stream"]: (0, 1)}

    @property
    def encoders(self) -> dict[str, Network]:
        return {self.hparams["stream"]: self.query_encoder}

    @property
    def starts(self) -> dict[str, tuple[str, list[Network]]]:
        followed = [self.query_encoder] if self.key_encoder is None else [self.query_encoder, self.key_encoder]
        return {"query": (self.hparams["stream"], followed)}

    def meters(self, global_batch: int) -> dict[str, Meter]:
        candidates = 2 * global_batch - 1 if self.queue is None else 1 + len(self.queue.features)
        meaning = (
            "the share of clips that rank the other clip of their own video {place} among {candidates} candidates;"
            " guessing gives {guessing:.3g} %"
        )
        first = meaning.format(place="first", candidates=candidates, guessing=100 / candidates)
        fifth = meaning.format(place="in the first five", candidates=candidates, guessing=min(100, 500 / candidates))
        return {
            "contrast_top1": Meter(f"own clip first of {candidates}", first),
            "contrast_top5": Meter("in the first 5", fifth),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        first, second = batch.views(self.hparams["stream"])
        self.check_batch(len(first) * world_size())
        if self.queue is None:
            logits = self._in_batch(first, second)
            return {"loss": own_key_nce(logits), **self._own_key(logits)}
        updating = self.training and torch.is_grad_enabled()
        follow = updating and batch_idx % self.trainer.accumulate_grad_batches == 0
        logits, key = self._against_queue(first, second, follow)
        values = self.compared(logits, batch) | self._own_key(logits)
        if updating:
            self.remember(key, batch)
        return values

    def compared(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and other values, of logits (B, 1 + K) against the queue, which is still as it was for them."""
        return {"loss": own_key_nce(logits)}

    def remember(self, key: Tensor, batch: Batch) -> None:
        """Put the batch's keys (B, D) into the queue."""
        assert self.queue is not None
        self.queue.enqueue(key)

    def _own_key(self, logits: Tensor) -> dict[str, Tensor]:
        return {"contrast_top1": own_key_accuracy(logits, 1), "contrast_top5": own_key_accuracy(logits, 5)}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = make_optimiser(self.optimiser_settings, self.query_encoder.parameters())
        return with_schedule(self.optimiser_settings, optimiser, self.trainer)

    def _against_queue(self, first: Tensor, second: Tensor, follow: bool) -> tuple[Tensor, Tensor]:
        """Logits (B, 1 + K) and keys (B, D). Up to what `remember` does last, the order is the published one and part of
        the method.

        follow: whether the key encoder follows the query encoder, which it does in the first pass of a step.
        """
        assert self.queue is not None and self.key_encoder is not None
        query = self.query_encoder(first)
        with torch.no_grad():
            if follow:
                momentum_update(self.key_encoder, self.query_encoder, self.hparams["momentum"])
            key = encode_shuffled(self.key_encoder, second, seed=self.global_step)
        # A clone: the backward pass needs the queue as it was, and enqueueing writes in place.
        return contrast_logits(query, key, self.queue.features.clone(), self.hparams["temperature"]), key

    def _in_batch(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits (2B, 2B - 1) over the clips of all ranks; one pass, so that both views share batch-norm statistics."""
        rows = self.query_encoder(torch.cat([first, second]))
        first_rows, second_rows = rows.chunk(2)
        return in_batch_logits(gather_rows(first_rows), gather_rows(second_rows), self.hparams["temperature"])
