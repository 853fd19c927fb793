"""Noise-contrastive losses: a clip's own key against other clips' keys.

Shapes: B batch, K queue length, D feature size. Rows are unit vectors and are used as given. In every logits matrix
column 0 is the own key. float16 and bfloat16 are raised to float32, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import Refusal
from train.precision import in_full_precision
from train.settings import check_number


@in_full_precision
def contrast_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.07) -> Tensor:
    """Cosines over temperature of each query with its own key, then with every key of the queue (MoCo, CoCLR).

    Args:
        query, key: (B, D); key i belongs to the same video as query i.
        queue: (K, D), keys of earlier batches.

    Returns:
        (B, 1 + K), own key first.

    Raises:
        Refusal: shapes that do not fit together, or a temperature that is not positive.
    """
    check_number("temperature", temperature, above=0)
    if query.ndim != 2 or query.shape != key.shape or queue.ndim != 2 or queue.shape[1] != query.shape[1]:
        shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, queue {tuple(queue.shape)}"
        raise Refusal("features do not fit together", where=shapes, remedy="query and key (B, D), queue (K, D)")
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
        Refusal: shapes that differ, a single video, or a temperature that is not positive.
    """
    check_number("temperature", temperature, above=0)
    if first.ndim != 2 or first.shape != second.shape:
        shapes = f"first {tuple(first.shape)}, second {tuple(second.shape)}"
        raise Refusal("features do not fit together", where=shapes, remedy="both views (B, D)")
    batch = len(first)
    if batch < 2:
        raise Refusal(
            "in-batch negatives need other videos in the batch",
            where=f"a batch of {batch}",
            remedy="batch size of 2 or more, or a queue",
        )
    rows = torch.arange(2 * batch, device=first.device)
    ahead = torch.cat([rows[batch:], rows[1:batch]])  # the other clip lies B ahead, around the end; never 0 = itself
    clips = torch.cat([first, second])
    return (clips @ clips.T).gather(1, (rows[:, None] + ahead) % (2 * batch)) / temperature


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


@torch.no_grad()
def own_key_accuracy(logits: Tensor, k: int) -> Tensor:
    """Fraction of rows whose own key (column 0) is among the k largest, a scalar.

    A tie counts against the own key, and so does NaN: a collapsed or broken network does not look perfect.
    """
    own, others = logits[:, :1], logits[:, 1:]
    not_beaten = (~(own > others)).sum(dim=1)
    return (not_beaten < k).to(torch.float32).mean()
