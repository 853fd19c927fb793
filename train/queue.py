"""The queue of keys of earlier batches that serve as negatives (MoCo)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from train.collectives import gather_rows


class Queue(nn.Module):
    """`length` keys of size `dim`, oldest overwritten first. Starts as random unit rows, used from the first step.

    Everything is a buffer, so a checkpoint restores it exactly. `features` (K, D) changes in place: clone it before
    using it in a graph that is still to be differentiated.
    """

    features: Tensor
    pointer: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", functional.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def check_batch(self, global_batch: int) -> None:
        """Refuses a batch (over all ranks) that does not fill the queue evenly, so that no slot ages differently.

        Raises:
            UsageError: the length is not a multiple of the batch.
        """
        length = len(self.features)
        if global_batch < 1 or length % global_batch:
            nearest = max(1, round(length / max(global_batch, 1))) * max(global_batch, 1)
            raise UsageError(
                f"a queue of {length} keys is not a multiple of the batch of {global_batch} videos (over all ranks)",
                where="method.queue",
                remedy=f"queue {nearest}, or a batch that divides {length}",
            )

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Writes the keys (B, D) of all ranks, in rank order, over the oldest ones.

        Raises:
            UsageError: the length is not a multiple of the batch over all ranks.
        """
        keys = gather_rows(keys)
        self.check_batch(len(keys))
        slots = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.features)
        self.features[slots] = keys.to(self.features.dtype)
        self.pointer.copy_((self.pointer + len(keys)) % len(self.features))
