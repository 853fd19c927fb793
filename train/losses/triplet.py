"""Triplet losses of SLIC: clips of one cluster nearer than clips of others, the same frames nearer than later ones.

Shapes: N rows, D feature size, P pairs. Distances are 1 - cos, so embeddings need not be unit rows. float16 and
bfloat16 are raised to float32, also under autocast. A label of -1 equals nothing: its row is in no pair, and of another
label than every other row.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from train.hardware.precision import in_full_precision
from train.losses.nce import NOTHING
from train.settings.arguments import check_choice, check_number

Strategy = Literal["random_semi_hard", "fixed_semi_hard"]
SHORTEST = 1e-8  # rows are divided by no less, as in torch.cosine_similarity


@in_full_precision
def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: float = 0.2,
    strategy: Strategy = "random_semi_hard",
    generator: torch.Generator | None = None,
    *,
    wrong_negative: bool = False,
) -> Tensor:
    """Khorasgani et al. 2022 (SLIC), the triplet term, a scalar: the mean over all pairs of one label of
    max(0, d(anchor, positive) - d(anchor, negative) + margin).

    The negative is one of the pair's candidates (`semi_hard_pairs`): any of them with equal chances (random_semi_hard),
    or the nearest one (fixed_semi_hard). A pair without candidates counts as the zero that it is. Without any pair the
    loss is a zero with zero gradients, so that ranks with and without pairs can train together.

    Memory is that of a few matrices P x N, 13 bytes an element. For a batch of 256 videos (anchors and positives: N =
    512) it is 2 MB if each is a cluster of its own (P = 256), 20 MB with 50 clusters among them, and at worst, if all
    rows but one are of one cluster (P = 130,305), 0.9 GB.

    Args:
        embeddings: (N, D).
        labels: integers (N,), the rows' clusters.
        generator: draws the negatives, on any device; None: torch's own of the embeddings' device.
        wrong_negative: the released code's mistake, to measure its effect: for a pair without candidates the place of
            the nearest negative among the rows of other labels is taken for a row's number, so that some row that is no
            negative may be pushed away.

    Raises:
        ValueError: shapes that do not fit, or labels that are no integers; an unknown strategy, or a margin below 0.
    """
    check_choice("strategy", strategy, Strategy)
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"embeddings are {tuple(embeddings.shape)}, and not (N, D) with N at least 1")
    distances = cosine_distances(embeddings)
    pairs, candidates = semi_hard_pairs(distances, labels, margin)
    others = _differ(labels)  # (N, N)
    nearest = distances.masked_fill(~others, torch.inf).argmin(dim=1)  # (N,) a candidate if there is any
    negatives = nearest[pairs[:, 0]]  # (P,)
    if wrong_negative:
        places = others.cumsum(dim=1).gather(1, nearest[:, None])[:, 0] - 1
        negatives = torch.where(candidates.any(dim=1), negatives, places.clamp(min=0)[pairs[:, 0]])
    if strategy == "random_semi_hard":
        negatives = torch.where(candidates.any(dim=1), _drawn(candidates, generator), negatives)
    return mean_hinge(distances, pairs, negatives, margin)


@in_full_precision
def cosine_distances(embeddings: Tensor) -> Tensor:
    """1 - cos of all pairs of rows, (N, N), of embeddings (N, D). A row of zeros is at a distance of 1 from all."""
    unit = functional.normalize(embeddings, dim=1, eps=SHORTEST)
    return 1 - unit @ unit.T


@torch.no_grad()
@in_full_precision
def semi_hard_pairs(distances: Tensor, labels: Tensor, margin: float = 0.2) -> tuple[Tensor, Tensor]:
    """All pairs of one label, and the rows that may be their negatives (SLIC's "semi-hard", which includes the hard
    ones).

    Args:
        distances: (N, N).
        labels: integers (N,).

    Returns:
        pairs: int64 (P, 2), all i < j of one label, in rising order, unless no row has another label; i is the anchor.
        candidates: bool (P, N), rows k of another label with d(i, k) < d(i, j) + margin.

    Raises:
        ValueError: shapes that do not fit, or labels that are no integers; a margin below 0.
    """
    check_number("margin", margin, least=0)
    if labels.shape != distances.shape[:1] or distances.shape != (len(labels), len(labels)):
        found = f"distances {tuple(distances.shape)}, labels {tuple(labels.shape)}"
        raise ValueError(f"labels do not fit the rows: {found}, and not one label a row, (N,)")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}, and not integers, the rows' clusters")
    differ = _differ(labels)
    pairs = (~differ & differ.any(dim=1, keepdim=True)).triu(diagonal=1).nonzero()
    anchors = pairs[:, 0]
    within = distances[anchors] < (distances[anchors, pairs[:, 1]] + margin)[:, None]
    return pairs, within & differ[anchors]


def _differ(labels: Tensor) -> Tensor:
    """bool (N, N): of another label; true of the diagonal, too, where a row has none."""
    return (labels[:, None] != labels) | (labels == NOTHING)


def _drawn(candidates: Tensor, generator: torch.Generator | None) -> Tensor:
    """(P,) one candidate of each pair, all with equal chances; anything where there are none."""
    device = candidates.device if generator is None else generator.device
    # float64: in float32 a number below 1 times a count may round up to the count
    chance = torch.rand(len(candidates), generator=generator, dtype=torch.float64, device=device).to(candidates.device)
    reached = candidates.cumsum(dim=1, dtype=torch.int32)
    rank = (chance * reached[:, -1]).long()  # 0 .. count - 1
    return (reached <= rank[:, None]).sum(dim=1).clamp(max=candidates.shape[1] - 1)


@in_full_precision
def mean_hinge(distances: Tensor, pairs: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Mean over pairs of max(0, d(anchor, positive) + margin - d(anchor, negative)), a scalar; zero without pairs.

    Args:
        distances: (N, N). pairs: int64 (P, 2), anchor and positive. negatives: int64 (P,).
    """
    anchors, positives = pairs.unbind(dim=1)
    # In this order a row that is no candidate gives exactly zero.
    hinges = functional.relu(distances[anchors, positives] + margin - distances[anchors, negatives])
    return hinges.sum() / max(len(pairs), 1)


@in_full_precision
def temporal_discrimination(anchor: Tensor, positive: Tensor, second_anchor: Tensor, margin: float = 0.04) -> Tensor:
    """SLIC's temporal term, a scalar: the mean over rows of max(0, d(anchor, second anchor) - d(anchor, positive) +
    margin).

    Two augmentations of the same frames shall be nearer than frames of another time or video.

    Args:
        anchor, positive, second_anchor: (B, D), B at least 1; row i of all belongs to one sample.

    Raises:
        ValueError: shapes that differ, or no row; a margin below 0.
    """
    check_number("margin", margin, least=0)
    parts = {"anchor": anchor, "positive": positive, "second_anchor": second_anchor}
    if anchor.ndim != 2 or not len(anchor) or len({part.shape for part in parts.values()}) != 1:
        shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in parts.items())
        raise ValueError(f"embeddings do not fit together: {shapes}, and not all three (B, D), B at least 1")
    near = functional.cosine_similarity(anchor, second_anchor, dim=1, eps=SHORTEST)
    far = functional.cosine_similarity(anchor, positive, dim=1, eps=SHORTEST)
    return functional.relu(far - near + margin).mean()
