"""Rows of all ranks in rank order, so that results do not depend on how many processes share a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenation along dimension 0 of every rank's rows (equally many), in rank order.

    The gradient of each row is the sum over ranks of what they computed from it. A loss that every rank computes on
    the gathered rows therefore has the gradient of the one-process run once DDP has averaged over ranks.
    """
    return _GatherRows.apply(rows) if world_size() > 1 else rows


def own_slice(count: int) -> slice:
    """Where this rank's rows lie among `count` rows of all ranks."""
    share = count // world_size()
    first = share * distributed.get_rank() if world_size() > 1 else 0
    return slice(first, first + share)


def mean_over_pools(loss: Callable[..., Tensor], pool: int, *rows: Tensor) -> Tensor:
    """Mean of a loss over groups of `pool` videos, whose rows alone compete with each other; 0: those of all ranks do.

    So the negatives "of one GPU", which papers have, are a number of a recipe's and the same on any number of ranks.

    Args:
        loss: Of the rows of a group, (pool, ...) of each tensor; a scalar, or several of them as (N,).
        rows: Each (B, ...): a row, or a part of any shape, of each of this rank's videos. Groups are of videos that
            follow each other in the batch over all ranks.

    Raises:
        ValueError: the batch over all ranks is no multiple of `pool`.
    """
    everybody = [gather_rows(part) for part in rows]
    batch = len(everybody[0])
    if pool and batch % pool:
        raise ValueError(f"a batch of {batch} videos (over all ranks) does not fall into groups of {pool}")
    groups = zip(*(part.split(pool or batch) for part in everybody), strict=True)
    return torch.stack([loss(*group) for group in groups]).mean(dim=0)


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of every rank's `values`, which are left as they were; without gradient."""
    if world_size() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / world_size()


def encode_shuffled(encoder: Callable[..., Tensor], *clips: Tensor, seed: int) -> Tensor:
    """This rank's `encoder(*clips)`, computed on clips that are shuffled over all ranks (shuffle-BN of MoCo).

    Without it a query and its key share their batch-norm statistics with the same neighbours, which tells them apart
    from the queue. The permutation follows from `seed` alone, so ranks agree on it without a message, and a resumed
    run draws the same one. A single process has nobody to shuffle with. Without gradient through the shuffle of clips,
    of which each goes to the one rank that encodes it.

    clips: what belongs to a clip is one row of each tensor, (B, ...), of the same shape and type on all ranks.
    """
    if world_size() == 1:
        return encoder(*clips)
    share, ranks = len(clips[0]), world_size()
    order = torch.randperm(share * ranks, generator=torch.Generator().manual_seed(seed))
    own = own_slice(len(order))
    asked = order.view(ranks, share)  # by whom
    sent = [of_rank[(of_rank >= own.start) & (of_rank < own.stop)] - own.start for of_rank in asked]
    came_from = order[own] // share
    counts = torch.bincount(came_from, minlength=ranks).tolist(), [len(rows) for rows in sent]
    leaving, arrived = (
        _beside(places, clips[0])
        for places in (torch.cat(sent), torch.argsort(torch.argsort(came_from, stable=True)))  # they come rank by rank
    )

    def exchanged(rows: Tensor) -> Tensor:
        given = rows[leaving].contiguous()  # in one order of axes on all ranks, whatever lies in their memory
        mine = torch.empty_like(given)
        distributed.all_to_all_single(mine, given, *counts)
        return mine[arrived]

    encoded = gather_rows(encoder(*map(exchanged, clips)))
    return encoded[_beside(torch.argsort(order)[own], clips[0])]


def _beside(places: Tensor, rows: Tensor) -> Tensor:
    """On the device of the rows; from pageable memory a step on a GPU would wait for it."""
    return places.pin_memory().to(rows.device, non_blocking=True) if rows.is_cuda else places


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        distributed.all_gather(gathered, rows)
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.view(world_size(), -1, *total.shape[1:])[distributed.get_rank()]
