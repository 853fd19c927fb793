"""Noise-contrastive losses: a clip's own key, and whatever else counts as its positive, against other clips' keys.

Shapes: B batch, K queue length, D feature size. Rows are unit vectors and are used as given. In every logits matrix,
and in every matrix of positives, column 0 is the own key. float16 and bfloat16 are raised to float32, also under
autocast. A label or source of -1 equals nothing: such a slot of the queue is empty and never a positive.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_choice, check_number

Reduction = Literal["log_of_sum", "mean_of_logs"]
NOTHING = -1


@in_full_precision
def contrast_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.07) -> Tensor:
    """Cosines over temperature of each query with its own key, then with every key of the queue (MoCo, CoCLR).

    Args:
        query, key: (B, D); key i belongs to the same video as query i.
        queue: (K, D), keys of earlier batches.

    Returns:
        (B, 1 + K), own key first.

    Raises:
        ValueError: shapes that do not fit together, or a temperature that is not positive.
    """
    check_number("temperature", temperature, above=0)
    if query.ndim != 2 or query.shape != key.shape or queue.ndim != 2 or queue.shape[1] != query.shape[1]:
        shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, queue {tuple(queue.shape)}"
        raise ValueError(f"features do not fit together: {shapes}, and not query and key (B, D), queue (K, D)")
    own = (query * key).sum(dim=1, keepdim=True)  # (B, 1)
    return torch.cat([own, query @ queue.T], dim=1) / temperature


@in_full_precision
def in_batch_logits(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """Cosines over temperature of each of the 2B clips with its video's other clip, then with all others.

    Rows are the B clips of `first`, then those of `second`. A clip is not compared with itself (SimCLR, section 2.1).

    Args:
        first, second: (B, D), B > 1; row i of both belongs to the same video.

    Returns:
        (2B, 2B - 1), the video's other clip first.

    Raises:
        ValueError: shapes that differ, a single video, or a temperature that is not positive.
    """
    _refuse_pairs(first, second, temperature)
    batch = len(first)
    rows = torch.arange(2 * batch, device=first.device)
    ahead = torch.cat([rows[batch:], rows[1:batch]])  # the other clip lies B ahead, around the end; never 0 = itself
    clips = torch.cat([first, second])
    return (clips @ clips.T).gather(1, (rows[:, None] + ahead) % (2 * batch)) / temperature


@in_full_precision
def cross_logits(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """Cosines over temperature of each clip of `first` with its own counterpart in `second`, then with all others
    there.

    Args:
        first, second: (B, D), B > 1; row i of both is of the same clip, seen in two ways.

    Returns:
        (B, B), the own counterpart first.

    Raises:
        ValueError: shapes that differ, a single video, or a temperature that is not positive.
    """
    _refuse_pairs(first, second, temperature)
    rows = torch.arange(len(first), device=first.device)
    return (first @ second.T).gather(1, (rows[:, None] + rows) % len(first)) / temperature


@in_full_precision
def own_key_nce(logits: Tensor) -> Tensor:
    """Mean over rows of LSE(l) - l_0: cross-entropy towards column 0, the own key (specs of MoCo and CoCLR, stage 1).

    Args:
        logits: (B, 1 + K), own key first.
    """
    # cross_entropy subtracts the row's maximum before the logarithm; LSE(l) - l_0 as two terms loses small losses.
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE of queries against a queue of keys, a scalar: `own_key_nce(contrast_logits(...))`.

    One-directional: the gradient usually flows into `query` only. He et al., MoCo, equation 1.
    """
    return own_key_nce(contrast_logits(query, key, queue, temperature))


def in_batch_nce(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """Symmetric NT-Xent over the 2B clips of a batch, a scalar: `own_key_nce(in_batch_logits(...))`.

    Chen et al., SimCLR, equation 1. Both views carry gradient.
    """
    return own_key_nce(in_batch_logits(first, second, temperature))


@in_full_precision
def multi_positive_nce(
    logits: Tensor,
    positives: Tensor,
    reduction: Reduction = "log_of_sum",
    drop_self: bool = False,
) -> Tensor:
    """Cross-entropy towards several positives, a scalar: the mean over rows of

    * log_of_sum: `LSE(l) - LSE(l over the positives)` (MIL-NCE; CoCLR's), or
    * mean_of_logs: `LSE(l)` - mean of `l` over the positives (UberNCE's).

    Args:
        logits: (B, 1 + K), own key first.
        positives: bool (B, 1 + K), at least one in each row: a row without any has an infinite loss.
        drop_self: a row that has other positives loses column 0 as one. The own key stays in the denominator, where it
            then counts as a negative (CoCLR's released training, 9 batches in 10).

    Raises:
        ValueError: shapes that do not fit, or positives that are no truth values; an unknown reduction.
    """
    if logits.ndim != 2 or logits.shape != positives.shape or positives.dtype != torch.bool:
        found = f"logits {tuple(logits.shape)}, positives {tuple(positives.shape)} {positives.dtype}"
        raise ValueError(f"positives do not fit the logits: {found}, and not both (B, 1 + K), positives bool")
    check_choice("reduction", reduction, Reduction)
    if drop_self:
        own_counts = positives[:, :1] & (positives.sum(dim=1, keepdim=True) == 1)
        positives = torch.cat([own_counts, positives[:, 1:]], dim=1)
    everything = torch.logsumexp(logits, dim=1)
    if reduction == "log_of_sum":
        wanted = torch.logsumexp(logits.masked_fill(~positives, -torch.inf), dim=1)
    else:
        wanted = logits.masked_fill(~positives, 0).sum(dim=1) / positives.sum(dim=1)
    return (everything - wanted).mean()


@torch.no_grad()
def label_positives(labels: Tensor, queue_labels: Tensor) -> Tensor:
    """Positives of UberNCE, bool (B, 1 + K): the own key, and every key of the queue that has the row's label.

    Args:
        labels: int64 (B,). queue_labels: int64 (K,).
    """
    same = (labels[:, None] == queue_labels) & (labels[:, None] != NOTHING)
    return torch.cat([_own(labels), same], dim=1)


@torch.no_grad()
def cotraining_positives(
    other_key: Tensor,
    other_queue: Tensor,
    sources: Tensor,
    queue_sources: Tensor,
    top_k: int = 5,
    mine: bool = True,
) -> Tensor:
    """Positives of CoCLR, bool (B, 1 + K): the own key, every key of the same source, and what the other stream finds.

    The other stream finds the `top_k` keys of OTHER sources whose features it thinks most similar; where there are
    fewer, all of them. Han et al. 2020, section 3.2; that keys of the same source are positives is the released code's
    (docs/methods.md 4.4).

    Args:
        other_key: (B, D), the other stream's features of the clips that the keys were made of.
        other_queue: (K, D), the other stream's features of the clips in the queue.
        sources: int64 (B,), number of the recording that a clip is of. queue_sources: int64 (K,).
        mine: whether to ask the other stream; published: once the queue is full.

    Raises:
        ValueError: shapes that do not fit; a negative `top_k`.
    """
    check_number("top_k", top_k, whole=True, least=0)
    shapes = [tuple(part.shape) for part in (other_key, other_queue, sources, queue_sources)]
    if other_key.ndim != 2 or shapes[1:] != [(len(other_queue), other_key.shape[1]), shapes[0][:1], shapes[1][:1]]:
        raise ValueError(f"features and sources do not fit together: {shapes}, and not (B, D), (K, D), (B,), (K,)")
    same = (sources[:, None] == queue_sources) & (sources[:, None] != NOTHING)
    positives = same
    if mine and top_k:
        similar = _similarities(other_key, other_queue).masked_fill(same | (queue_sources == NOTHING), -torch.inf)
        best, places = similar.topk(min(top_k, len(other_queue)), dim=1)
        # The surplus of too few other sources has a similarity of -inf.
        positives = same | torch.zeros_like(same).scatter_(1, places, best > -torch.inf)
    return torch.cat([_own(sources), positives], dim=1)


@in_full_precision
def _similarities(rows: Tensor, others: Tensor) -> Tensor:
    return rows @ others.T


def _own(rows: Tensor) -> Tensor:
    return torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)


@torch.no_grad()
def own_key_accuracy(logits: Tensor, k: int) -> Tensor:
    """Fraction of rows whose own key (column 0) is among the k largest, a scalar: `positive_accuracy` of it alone."""
    return positive_accuracy(logits, torch.arange(logits.shape[1], device=logits.device).eq(0).expand_as(logits), k)


@torch.no_grad()
def positive_accuracy(logits: Tensor, positives: Tensor, k: int) -> Tensor:
    """Fraction of rows with a positive, bool (B, 1 + K), among the k largest logits, a scalar.

    A tie counts against the positives, and so does NaN: a collapsed or broken network does not look perfect.
    """
    best = logits.masked_fill(~positives, -torch.inf).amax(dim=1, keepdim=True)
    not_beaten = (~positives & ~(best > logits)).sum(dim=1)
    return (not_beaten < k).to(torch.float32).mean()


def _refuse_pairs(first: Tensor, second: Tensor, temperature: float) -> None:
    check_number("temperature", temperature, above=0)
    if first.ndim != 2 or first.shape != second.shape:
        shapes = f"first {tuple(first.shape)}, second {tuple(second.shape)}"
        raise ValueError(f"features do not fit together: {shapes}, and not both views (B, D)")
    if len(first) < 2:
        raise ValueError(f"in-batch negatives need other videos in the batch, which holds {len(first)}")
