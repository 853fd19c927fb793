"""Pseudo-labels: every few epochs all training videos are embedded and clustered, and train as if clusters were
classes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from pipeline import storage
from pipeline.errors import Refusal
from train import augment
from train.batches.loader import ClipLoader
from train.between_epochs import Grouping
from train.clips import sliding_windows, uniform_windows
from train.clustering.agreement import agreement
from train.clustering.finch import finch
from train.clustering.kmeans import kmeans
from train.clustering.nearest import Neighbours
from train.embedding import OneClipEach, rows_of
from train.networks.network import Network
from train.training_set import TrainingSet, write_labels

FOLDER = "clusters"  # in a stage's folder: one file for each clustering
Clustering = Callable[[Tensor, int, int], np.ndarray]  # rows (N, D), how many clusters (0: its own choice), seed


def _finch(rows: Tensor, count: int, seed: int, neighbours: Neighbours = "exact") -> np.ndarray:
    first = None if count else 1
    return finch(rows, partitions=first, clusters=count or None, neighbours=neighbours, seed=seed).labels[:, -1]


CLUSTERINGS: dict[str, Clustering] = {
    "finch": _finch,
    "finch_approximate": lambda rows, count, seed: _finch(rows, count, seed, "approximate"),
    "kmeans": lambda rows, count, seed: kmeans(rows, count, seed=seed),
    "spherical_kmeans": lambda rows, count, seed: kmeans(rows, count, spherical=True, seed=seed),
}


class PseudoLabels(Grouping):
    """Clusters of the training videos, anew every `every` epochs.

    Of each video one clip, in the middle, goes through the network in evaluation mode; the rows of its last layer are
    clustered, on rank 0, and everybody trains on the same labels. They are written by video id to
    `clusters/epoch-NNNN.parquet`, and metrics.jsonl has how many there are and, where videos have classes, how well
    they agree: nmi, ami, ari, accuracy and purity (`train.clustering.agreement`). Source: SLIC (docs/methods.md 5.2).

    Args:
        network, stream: of the rows that are clustered: the trained one, or another that tells more.
        clusters: a name in CLUSTERINGS, or "labels": the classes themselves, to see what perfect clusters would do.
        count: of clusters; 0: as many as the clustering finds.
        shifted: every video is given the cluster of the video before it, as the released code does by mistake.
    """

    def __init__(
        self,
        network: Network,
        stream: str,
        clusters: str,
        count: int,
        every: int,
        first: int,
        shifted: bool = False,
    ) -> None:
        super().__init__(every, first)
        self.network, self.stream = network, stream
        self.clusters, self.count, self.shifted = clusters, count, shifted

    def compute(self, trainer: Trainer, method: LightningModule) -> Tensor:
        """int64 (N,)."""
        assert isinstance(trainer.train_dataloader, ClipLoader)
        training_set = trainer.train_dataloader.planner.training_set
        classes = np.asarray(training_set.videos.labels, dtype=np.int64)
        if self.clusters == "labels":
            found = _classes(classes, training_set.where)
        else:
            rows = self._embedded(trainer.train_dataloader)
            found = np.zeros(len(classes), np.int64)
            if trainer.is_global_zero:
                try:
                    found = CLUSTERINGS[self.clusters](rows, self.count, torch.initial_seed() % 2**31)
                except ValueError as error:
                    raise Refusal(
                        f"the training videos cannot be clustered: {error}",
                        where=training_set.where,
                        remedy="another cluster_count in the recipe, if that is it; 0 takes as many as FINCH finds",
                    ) from error
            found = trainer.strategy.broadcast(torch.from_numpy(found)).numpy()
        self.noted = {"clusters": float(len(np.unique(found)))} | agreement(found, classes)
        if trainer.is_global_zero:
            self._write(trainer, training_set, found)
        return torch.from_numpy(np.roll(found, 1) if self.shifted else found)

    def _embedded(self, loader: ClipLoader) -> Tensor:
        planner = loader.planner
        spec = planner.reading.spec

        def middle(frames: int) -> np.ndarray:
            fits = frames >= spec.span
            cut = (
                uniform_windows(frames, spec.length, spec.stride, 1)
                if fits
                else sliding_windows(frames, spec.length, spec.stride)
            )
            return cut[0]

        policy = augment.policy("evaluate", crop=spec.crop)
        clips = OneClipEach(planner.training_set.videos, planner.streams.own[self.stream], policy, middle)
        return rows_of(self.network, clips, loader.executor, self.network.layers[-1], unit=False)

    def _write(self, trainer: Trainer, training_set: TrainingSet, found: np.ndarray) -> None:
        assert trainer.logger is not None and trainer.logger.save_dir is not None
        path = Path(trainer.logger.save_dir) / FOLDER / f"epoch-{trainer.current_epoch:04}.parquet"
        said = {"epoch": trainer.current_epoch, "clustering": self.clusters, **self.noted}
        table = pa.table({"video_id": training_set.videos.ids, "cluster": found})
        table = table.replace_schema_metadata({"costream": json.dumps(said)})
        written = io.BytesIO()
        pq.write_table(table, written)
        with storage.writing("the clusters", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_atomically(path, written.getvalue())


def _classes(classes: np.ndarray, where: str) -> np.ndarray:
    if (classes < 0).any():
        raise Refusal(
            f"{(classes < 0).sum()} of {len(classes)} training videos have no class, which `clusters: labels` takes",
            where=where,
            remedy=f"another clustering in the recipe, or {write_labels()}",
        )
    return classes
