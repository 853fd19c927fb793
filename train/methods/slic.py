"""SLIC: triplets on pseudo-labels that clustering makes anew every few epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from lightning.pytorch import Callback
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from train.between_epochs import ONCE
from train.hardware.collectives import gather_rows, mean_over_pools, world_size
from train.losses.nce import in_batch_logits, own_key_nce
from train.losses.triplet import Strategy, cosine_distances, temporal_discrimination, triplet_loss
from train.methods.meters import Meter
from train.methods.method import Start
from train.methods.one_network import OneNetwork, OneNetworkSettings
from train.networks.settings import NetworkSettings, OtherRows
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch

DRAWN = 0x736C6963  # keeps the random numbers of negatives apart from those of other users of the same seed
KMEANS = ("kmeans", "spherical_kmeans")


class SLICSettings(OneNetworkSettings):
    """Of SLIC. Published defaults, but for `competing`, `shifted_labels` and `wrong_negative`.

    Args:
        stream: As of every such method; the recipe's sampling is `cluster`.
        loss: "triplet"; or "ntxent": anchor and positive find each other among all of the batch, whatever their
            clusters are.
        negatives: Of a pair, drawn among those that violate the margin, or the nearest one.
        margin: By which a row of another cluster shall be farther away than the positive.
        temporal_margin, temporal_weight: Of the term that keeps the second anchor nearer than the positive; a weight of
            0 leaves it out, and then the second anchor is not read.
        temperature: Of "ntxent".
        competing: Videos whose rows alone compete with each other; 0: all of the batch, over all ranks. Published: 16,
            the batch of one of two GPUs.
        clusters: How pseudo-labels are made: "finch" (first partition), "finch_approximate" (for millions of videos),
            "kmeans", "spherical_kmeans"; "labels": the classes, to see what perfect ones would do; "none": every video
            is its own.
        cluster_count: Of k-means; of FINCH, which then merges its nearest clusters until so many are left, or 0: as
            many as it finds.
        clusterer: Another stream's network, of an earlier stage, whose rows are clustered, once, in the place of the
            trained one's; None: the trained one's, as published. Ours: for streams whose clusters tell nothing.
        every, first: Epochs between clusterings, and the epoch of the first one; before it every video is its own.
        shifted_labels: As released by mistake, to measure its effect: each video has the cluster of the one before it.
        wrong_negative: As released by mistake: see `triplet_loss`.
    """

    backbone: str = "r3d-18"
    head: str = "slic"
    loss: Literal["triplet", "ntxent"] = "triplet"
    negatives: Strategy = "random_semi_hard"
    margin: float = Field(default=0.2, ge=0)
    temporal_margin: float = Field(default=0.04, ge=0)
    temporal_weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=0.5, gt=0)
    competing: int = Field(default=0, ge=0)
    clusters: Literal["finch", "finch_approximate", "kmeans", "spherical_kmeans", "labels", "none"] = "finch"
    cluster_count: int = Field(default=0, ge=0)
    clusterer: OtherRows | None = None
    every: int = Field(default=5, ge=1)
    first: int = Field(default=0, ge=0)
    shifted_labels: bool = False
    wrong_negative: bool = False

    @model_validator(mode="after")
    def _counted(self) -> SLICSettings:
        if self.clusters in KMEANS and not self.cluster_count:
            raise cannot_be(f"{self.clusters} without a number of clusters", "cluster_count: 1000", "cluster_count")
        if self.clusters in ("labels", "none") and self.cluster_count:
            raise cannot_be(f"clusters {self.clusters} has a number of its own", "leave it out", "cluster_count")
        if self.clusterer and self.clusterer.stream == self.stream:
            raise cannot_be("the clusterer sees the stream that is trained", "the other stream", "clusterer.stream")
        if self.of_clusterer and self.clusters in ("labels", "none"):
            raise cannot_be(f"clusters {self.clusters} ask no network", "finch, or no clusterer", "clusters")
        return self

    @property
    def of_clusterer(self) -> NetworkSettings | None:
        """The network whose rows are clustered, where it is not the trained one."""
        return self.clusterer.of(self) if self.clusterer else None

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        """Of the clusterer's stream none: it is read between epochs."""
        own = {self.stream: (0, 1, 2) if self.temporal_weight else (0, 1)}
        return own | ({self.clusterer.stream: ()} if self.clusterer else {})

    @property
    def starts(self) -> dict[str, Start]:
        if not self.clusterer or not self.of_clusterer:
            return super().starts
        return super().starts | {"clusterer": Start(self.clusterer.stream, self.of_clusterer, optional=(), needed=True)}

    def of_batch(self, batch: int) -> Self:
        """With pools of a batch at most."""
        return self.changed(competing=min(self.competing, batch))

    def check_batch(self, global_batch: int) -> None:
        """Refuses, by UsageError, a single video, and a batch that does not fall into pools."""
        if global_batch < 2 or self.competing == 1:
            raise UsageError(
                "a clip of another video is needed as negative, and there is one video alone",
                where=f"a batch of {global_batch} (over all ranks), competing: {self.competing}",
                remedy="two videos or more",
            )
        if self.competing and global_batch % self.competing:
            raise UsageError(
                f"a batch of {global_batch} videos (over all ranks) does not fall into pools of {self.competing}",
                where="competing",
                remedy="a batch that is a multiple of it, or competing: 0",
            )


class SLIC(OneNetwork):
    """Khorasgani, Chen and Shkurti 2022 (arXiv 2206.12534): iterative clustering with multi-view triplets.

    Of each sample the anchor (clip 0) and the positive (clip 1) are rows of one pseudo-label; all pairs of one label in
    the batch are pulled together, each against a row of another label (docs/methods.md 4.8). The second anchor (clip 2)
    stays nearer to the anchor than the positive does. All clips pass the network together and share batch statistics.
    A batch in which no pair has a negative moves nothing.

    Values of a step: `loss`, `pairs_loss` and `temporal_loss`, its two terms, and `positive_top1`: the share of anchors
    that have no row of another label nearer than their positive.
    """

    Settings = SLICSettings
    settings: SLICSettings

    def __init__(self, settings: SLICSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        if settings.clusterer and settings.of_clusterer:
            self.clusterer = settings.of_clusterer.build(channels[settings.clusterer.stream]).frozen()

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        found = super().starting
        return found | {"clusterer": [self.clusterer.parts]} if self.settings.clusterer else found

    def meters(self, global_batch: int) -> dict[str, Meter]:
        rows = 2 * (self.settings.competing or global_batch)
        meaning = (
            f"the share of anchors to which no row of another cluster, of {rows} rows, is nearer than their positive"
        )
        return {"positive_top1": Meter("a positive first", meaning)}

    def configure_callbacks(self) -> list[Callback]:
        from train.pseudo_labels import PseudoLabels  # faiss and scikit-learn, which other methods do without

        given = self.settings
        if given.clusters == "none":
            return super().configure_callbacks()
        stream, network, every = given.stream, self.network, given.every
        if given.clusterer:
            stream, network, every = given.clusterer.stream, self.clusterer, ONCE  # its rows stay what they are
        labels = PseudoLabels(
            network, stream, given.clusters, given.cluster_count, every, given.first, given.shifted_labels
        )
        return [*super().configure_callbacks(), labels]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        given = self.settings
        given.check_batch(len(batch.index) * world_size())
        read = given.reads[given.stream]
        rows = self.network(torch.cat([batch.view(given.stream, number) for number in read]))
        anchor, positive, *second = rows.chunk(len(read))
        alone = -2 - batch.index  # the label of a video that is in no cluster: nobody else has it
        labels = torch.where(batch.groups < 0, alone, batch.groups)
        if given.loss == "ntxent":
            first, other = (gather_rows(functional.normalize(side, dim=1)) for side in (anchor, positive))
            pairs = own_key_nce(in_batch_logits(first, other, given.temperature))
        else:
            generator = self._negatives(batch_idx)

            def triplets(anchor: Tensor, positive: Tensor, labels: Tensor) -> Tensor:
                return triplet_loss(
                    torch.cat([anchor, positive]),
                    labels.repeat(2),
                    given.margin,
                    given.negatives,
                    generator,
                    wrong_negative=given.wrong_negative,
                )

            pairs = mean_over_pools(triplets, given.competing, anchor, positive, labels)
        temporal = rows.sum() * 0
        if second:
            temporal = temporal_discrimination(anchor, positive, second[0], given.temporal_margin)
        in_front = mean_over_pools(_positive_first, given.competing, anchor.detach(), positive.detach(), labels)
        return {
            "loss": pairs + given.temporal_weight * temporal,
            "pairs_loss": pairs.detach(),
            "temporal_loss": temporal.detach(),
            "positive_top1": in_front,
        }

    def _negatives(self, batch_idx: int) -> torch.Generator:
        """Draws negatives: from the run's seed and the step, on all ranks alike."""
        seed = np.random.SeedSequence((DRAWN, torch.initial_seed() % 2**63, self.global_step, batch_idx))
        return torch.Generator(self.device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))


def _positive_first(anchor: Tensor, positive: Tensor, labels: Tensor) -> Tensor:
    """Share of the anchors (B, D) to which no row of another label, among anchors and positives, is nearer than their
    positive."""
    distances = cosine_distances(torch.cat([anchor, positive]))[: len(anchor)]
    own = distances[:, len(anchor) :].diagonal()
    others = labels[:, None] != labels.repeat(2)
    return (distances.masked_fill(~others, torch.inf).amin(dim=1) >= own).float().mean()
