"""Networks that follow another one slowly, and the queue of what they gave (MoCo)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from train.hardware.collectives import encode_shuffled
from train.networks.network import Network
from train.networks.queue import Queue
from train.reader.affine import network_input


class MomentumPair(nn.Module):
    """A query network, a key network that follows it, and a queue of keys. With length 0 there is the query alone.

    Parts, by their names in the state dict: `query`, which is trained; `key`; and `queue`.

    Args:
        query: Network, as the key network begins too.
        length: Of the queue.
        momentum: Share that the key network keeps of itself at each optimiser step.
    """

    query: Network
    key: Network
    queue: Queue

    def __init__(self, query: Network, length: int, momentum: float) -> None:
        super().__init__()
        self.momentum, self.networks = momentum, ("query", "key") if length else ("query",)
        self.query = query
        if length:
            self.key = copy.deepcopy(query).requires_grad_(False)
            self.queue = Queue(length, query.size(query.layers[-1]))

    @property
    def starting(self) -> list[Mapping[str, nn.Module]]:
        """Parts of the networks, which begin as the same one."""
        return [self.get_submodule(name).parts for name in self.networks]  # type: ignore[misc]

    @property
    def learning(self) -> bool:
        """Whether this is a step of training, in which the key network follows and the queue takes keys in."""
        return self.training and torch.is_grad_enabled()

    def forward(self, first: Tensor, second: Sequence[Tensor], follows: bool, seed: int) -> tuple[Tensor, Tensor]:
        """Queries of the first clips and keys of the second ones, each (B, D). The order is the published one.

        first: network input. second: clips as `Batch.to_send` gives them. follows: whether this is the first pass of a
        step, in which the key network follows. seed: of the shuffle over ranks.
        """
        queries = self.query(first)
        with torch.no_grad():
            if follows:
                momentum_update(self.key, self.query, self.momentum)
            keys = encode_shuffled(lambda *clips: self.key(network_input(*clips)), *second, seed=seed)
        return queries, keys

    def queued(self) -> Tensor:
        """The keys in the queue, (K, D), as they are now: the backward pass needs them so, and enqueueing writes in
        place."""
        return self.queue.features.clone()

    def remember(self, keys: Tensor, labels: Tensor | None = None, sources: Tensor | None = None) -> None:
        """Put the batch's keys (B, D) into the queue, with labels and recordings (B,), if this is a training step."""
        if self.learning:
            self.queue.enqueue(keys, labels, sources)


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """key <- momentum * key + (1 - momentum) * query, over parameters only: batch-norm statistics stay apart.

    In a few launches for all of them together, where two for each parameter would keep a GPU waiting for the host.
    """
    kept: list[Tensor] = list(key.parameters())
    followed: list[Tensor] = list(query.parameters())
    if len(kept) != len(followed):
        raise ValueError(f"a network of {len(kept)} parameters cannot follow one of {len(followed)}")
    torch._foreach_mul_(kept, momentum)
    torch._foreach_add_(kept, followed, alpha=1 - momentum)
