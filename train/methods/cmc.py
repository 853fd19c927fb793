"""Contrast across streams, in the manner of CMC: a clip's RGB finds its flow, and its flow its RGB."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pipeline.errors import refuse_unknown
from train.collectives import encode_shuffled, gather_rows, world_size
from train.losses.nce import contrast_logits, cross_logits, own_key_accuracy, own_key_nce
from train.methods.contrastive import OF_NETWORKS, STREAM_CHANNELS, Contrastive, network
from train.methods.method import Meter
from train.networks.momentum import momentum_update
from train.networks.network import Network
from train.networks.queue import Queue
from train.optim import make_optimiser, with_schedule

if TYPE_CHECKING:
    from train.loader import Batch


ACROSS = (("rgb", "flow"), ("flow", "rgb"))  # whose queries, whose keys


class CMC(Contrastive):
    """Our baseline beside CoCLR (specs/coclr.md section 3.1), after Tian et al. 2020; not a replica of their system.

    Both streams have a query and a key encoder and a queue. A query's positive is the OTHER stream's key of the same clip,
    its negatives are the other stream's queue; the loss is the sum of both directions. All else is as in InfoNCE. With
    `queue: 0` there are neither queues nor key encoders: the negatives are the other stream's clips of the batch, over all
    ranks, which learns more on small sets.

    Args:
        rgb, flow: What differs in one stream's encoders (backbone, backbone_settings, dim, temporal_centring); `dim` must
            come out the same.
        settings: as of `Contrastive`, of both streams; `queue: 0` for in-batch negatives, on which `momentum` has no effect.

    Values of a step: `loss`; `rgb_top1` and `flow_top1` (fraction of a stream's queries that rank their own key first).

    Raises:
        UsageError: an unknown backbone or setting, or a number out of range.
    """

    in_batch: ClassVar[bool] = True

    def __init__(
        self,
        rgb: dict[str, Any] | None = None,
        flow: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.save_hyperparameters({"rgb": rgb, "flow": flow})
        shared = {key: self.hparams[key] for key in OF_NETWORKS}
        channels = self.hparams["channels"] or STREAM_CHANNELS
        own = {"rgb": rgb or {}, "flow": flow or {}}
        for stream, differing in own.items():
            for key in differing:
                if key not in OF_NETWORKS or key == "dim":
                    known = [name for name in OF_NETWORKS if name != "dim"]
                    refuse_unknown("setting", key, known, where=f"method.{stream}")
        made = {
            stream: network(in_channels=channels[stream], **(shared | differing)) for stream, differing in own.items()
        }
        self.query_encoders = nn.ModuleDict(made)
        queue, dim = self.hparams["queue"], self.hparams["dim"]
        followed = made if queue else {}
        self.key_encoders = nn.ModuleDict({s: copy.deepcopy(e).requires_grad_(False) for s, e in followed.items()})
        self.queues = nn.ModuleDict({stream: Queue(queue, dim) for stream in followed})

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {"rgb": (0,), "flow": (0,)}

    @property
    def encoders(self) -> dict[str, Network]:
        return {stream: self.query_encoders[stream] for stream in self.streams}  # type: ignore[misc]

    @property
    def starts(self) -> dict[str, tuple[str, list[Network]]]:
        kinds = [self.query_encoders, self.key_encoders] if self.hparams["queue"] else [self.query_encoders]
        return {stream: (stream, [kind[stream] for kind in kinds]) for stream in self.streams}  # type: ignore[misc]

    def meters(self, global_batch: int) -> dict[str, Meter]:
        candidates = 1 + self.hparams["queue"] if self.hparams["queue"] else global_batch
        meaning = (
            "the share of {} clips that rank the {} of the same clip first among {} candidates; guessing gives {:.3g} %"
        )
        return {
            f"{one}_top1": Meter(f"{one} finds {two}", meaning.format(one, two, candidates, 100 / candidates))
            for one, two in ACROSS
        }

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        clips = {stream: batch.view(stream, 0) for stream in self.streams}
        self.check_batch(len(clips["rgb"]) * world_size())
        logits = self._against_queues(clips, batch_idx) if self.hparams["queue"] else self._in_batch(clips)
        losses = [own_key_nce(of_stream) for of_stream in logits.values()]
        values = {f"{stream}_top1": own_key_accuracy(of_stream, 1) for stream, of_stream in logits.items()}
        return {"loss": sum(losses[1:], losses[0]), **values}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = make_optimiser(self.optimiser_settings, self.query_encoders.parameters())
        return with_schedule(self.optimiser_settings, optimiser, self.trainer)

    def _against_queues(self, clips: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Logits (B, 1 + K) of each stream's queries against the other's queue, which takes the keys in after that."""
        updating = self.training and torch.is_grad_enabled()
        follow = updating and batch_idx % self.trainer.accumulate_grad_batches == 0
        pairs = {stream: self._encode(stream, clips[stream], follow) for stream in self.streams}
        logits = {}
        for one, two in ACROSS:
            # A clone: the backward pass needs the queue as it was, and enqueueing writes in place.
            queue = self._queue(two).features.clone()
            logits[one] = contrast_logits(pairs[one][0], pairs[two][1], queue, self.hparams["temperature"])
        if updating:
            for stream in self.streams:
                self._queue(stream).enqueue(pairs[stream][1])
        return logits

    def _in_batch(self, clips: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits (B, B) of each stream's clips against the other's, over the clips of all ranks."""
        rows = {stream: gather_rows(self.query_encoders[stream](clips[stream])) for stream in self.streams}
        return {one: cross_logits(rows[one], rows[two], self.hparams["temperature"]) for one, two in ACROSS}

    def _encode(self, stream: str, clips: Tensor, follow: bool) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, D) of the same clips, in the order of InfoNCE's step."""
        query_encoder, key_encoder = self.query_encoders[stream], self.key_encoders[stream]
        query = query_encoder(clips)
        with torch.no_grad():
            if follow:
                momentum_update(key_encoder, query_encoder, self.hparams["momentum"])
            return query, encode_shuffled(key_encoder, clips, seed=self.global_step)

    def _queue(self, stream: str) -> Queue:
        queue = self.queues[stream]
        assert isinstance(queue, Queue)
        return queue
