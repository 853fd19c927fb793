"""The queue of keys of earlier batches that serve as negatives (MoCo)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from train.hardware.collectives import gather_rows
from train.losses.nce import NOTHING


class Queue(nn.Module):
    """`length` keys of size `dim`, oldest overwritten first. Starts as random unit rows, used from the first step.

    Everything is a buffer, so a checkpoint restores it exactly:

    features: (K, D), changes in place: clone it before using it in a graph that is still to be differentiated.
    labels, sources: int64 (K,), class and recording of each key's video; -1, which equals nothing, where it is not
    known. filled: bool (K,), False while a slot still holds its random row. pointer: the slot that is written next.
    """

    features: Tensor
    labels: Tensor
    sources: Tensor
    filled: Tensor
    pointer: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", functional.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("labels", torch.full((length,), NOTHING))
        self.register_buffer("sources", torch.full((length,), NOTHING))
        self.register_buffer("filled", torch.zeros(length, dtype=torch.bool))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._full = False  # asked of the device only until it is

    @property
    def full(self) -> bool:
        """Whether every slot holds a key."""
        self._full = self._full or bool(self.filled.all())
        return self._full

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor | None = None, sources: Tensor | None = None) -> None:
        """Writes the keys (B, D) of all ranks, in rank order, over the oldest ones; labels and sources: int64 (B,).

        Raises:
            UsageError: the length is not a multiple of the batch over all ranks.
        """
        unknown = torch.full((len(keys),), NOTHING, device=keys.device)
        rows = [gather_rows(part) for part in (keys, *(unknown if m is None else m for m in (labels, sources)))]
        check_length(len(self.features), len(rows[0]))
        slots = (self.pointer + torch.arange(len(rows[0]), device=keys.device)) % len(self.features)
        for buffer, values in zip((self.features, self.labels, self.sources), rows, strict=True):
            buffer[slots] = values.to(buffer.dtype)
        self.filled[slots] = True
        self.pointer.copy_((self.pointer + len(rows[0])) % len(self.features))

    def _load_from_state_dict(self, *arguments: Any, **settings: Any) -> None:
        super()._load_from_state_dict(*arguments, **settings)
        self._full = False


def check_length(length: int, global_batch: int) -> None:
    """Refuses a batch (over all ranks) that does not fill a queue evenly, so that no slot ages differently.

    Raises:
        UsageError: the length is not a multiple of the batch.
    """
    if global_batch < 1 or length % global_batch:
        nearest = max(1, round(length / max(global_batch, 1))) * max(global_batch, 1)
        raise UsageError(
            f"a queue of {length} keys is not a multiple of the batch of {global_batch} videos (over all ranks)",
            where="method.queue",
            remedy=f"queue {nearest}, or a batch that divides {length}",
        )
