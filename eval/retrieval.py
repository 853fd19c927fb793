"""Nearest-neighbour retrieval: which training videos lie closest to a test video, and whether they show its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.errors import Refusal

Rows = np.ndarray | torch.Tensor
KS = (1, 5, 10, 20, 50)
NO_LABEL = -1
PAIRS_AT_ONCE = 2**26  # similarities that are in memory at once
SHORTEST = 1e-12  # a row is not divided by less
NEIGHBOURS, TEMPERATURE = 20, 0.07  # of the classifier by neighbours


def similarity(queries: Rows, gallery: Rows, centre: bool = True) -> Rows:
    """Cosine similarity of every query with every gallery row.

    Args:
        queries: (Q, D) features, one row per query video.
        gallery: (G, D) features.
        centre: subtract each side's own mean first, as the CoCLR protocol does (each split has its own mean).

    Returns:
        (Q, G), of the kind (array or tensor) and floating type of the inputs. A row of length zero resembles nothing:
        0.

    Raises:
        Refusal: sizes that do not fit, values that are not finite, or one row only where it is to be centred.
    """
    q, g = unit_rows(queries, centre, "query"), unit_rows(gallery, centre, "gallery")
    if q.shape[1] != g.shape[1]:
        raise Refusal(
            f"queries have {q.shape[1]} features and the gallery has {g.shape[1]}",
            where="eval.retrieval.similarity",
            remedy="take both from one network",
        )
    common = torch.promote_types(q.dtype, g.dtype)
    scores = q.to(common) @ g.to(common).T
    return scores if isinstance(queries, torch.Tensor) else scores.numpy()


def unit_rows(features: Rows, centre: bool, side: str) -> torch.Tensor:
    """(N, D) features as unit rows, after subtracting their mean if `centre`; `side` names them in messages."""
    rows = torch.as_tensor(features).detach()
    if rows.ndim != 2 or len(rows) == 0:
        raise Refusal(f"{side} features must be (N, D) with N > 0, not {tuple(rows.shape)}", where="eval.retrieval")
    if not rows.is_floating_point() or rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    if not bool(torch.isfinite(rows).all()):
        bad = int((~torch.isfinite(rows)).any(1).nonzero()[0])
        raise Refusal(
            f"{side} features are not finite",
            where=f"row {bad} of {len(rows)}",
            remedy="the network diverged or the features are damaged: train again with a lower rate, or recompute them",
        )
    if centre:
        if len(rows) == 1:
            raise Refusal(
                f"one {side} row alone cannot be centred: minus its own mean, nothing is left",
                where="eval.retrieval",
                remedy="give at least two videos on each side, or pass centre=False",
            )
        rows = rows - rows.mean(0)
        return rows.div_(rows.norm(dim=1, keepdim=True).clamp_min_(SHORTEST))  # in place: 2 GB of 240,000 rows of 2,048
    return torch.nn.functional.normalize(rows, dim=1, eps=SHORTEST)


def recall(similarities: Rows, query_labels: Rows, gallery_labels: Rows, ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k: the share of queries with at least one gallery item of their class among the k most similar.

    This is what the papers of this field call recall (torchmetrics calls it RetrievalHitRate). A query whose class does
    not occur in the gallery is a miss, and the label -1 (none) equals nothing.
    Equal similarities rank in gallery order: the lower row comes first. A k beyond the gallery takes all of it.

    Args:
        similarities: (Q, G), larger is closer.
        query_labels: (Q,) integers.
        gallery_labels: (G,) integers.
        ks: numbers of neighbours, each at least 1.

    Returns:
        {k: share in 0..1}, in the order of `ks`.
    """
    scores, wanted, have = _tensor(similarities), _tensor(query_labels), _tensor(gallery_labels)
    _check(scores, wanted, have, ks)
    rows = max(1, PAIRS_AT_ONCE // scores.shape[1])
    blocks = (slice(first, first + rows) for first in range(0, len(scores), rows))
    return shares(np.concatenate([_first_hit(scores[block], wanted[block], have) for block in blocks]), ks)


@dataclass(frozen=True)
class Found:
    """What Q queries find: `ranks` (Q,), from 0, of the first gallery row of their class, beyond every k where there is
    none; `similarities` (Q, k) of the nearest rows, falling, and which these `rows` (Q, k) are."""

    ranks: np.ndarray
    similarities: np.ndarray
    rows: np.ndarray


def search(queries: Rows, gallery: Rows, query_labels: Rows, gallery_labels: Rows, k: int = NEIGHBOURS) -> Found:
    """By the products of rows, which are those of `unit_rows`, or of several streams beside each other.

    Exact: a matrix product and its largest values, on a GPU where there is one; equal similarities rank in gallery
    order. No more than `PAIRS_AT_ONCE` similarities are kept. Raises Refusal as `recall` does.
    """
    wanted, have = _tensor(query_labels), _tensor(gallery_labels)
    ranks, values, places = [], [], []
    for block, scores in _products(queries, gallery):
        _check(scores, wanted[block], have, KS)
        ranks.append(_first_hit(scores, wanted[block], have))
        near, where = _largest(scores, k)
        values.append(near)
        places.append(where)
    return Found(np.concatenate(ranks), torch.cat(values).numpy(), torch.cat(places).numpy())


def shares(ranks: np.ndarray, ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k from the ranks (Q,) of first hits: {k: share in 0..1}."""
    return {int(k): float(np.mean(ranks < k)) for k in ks}


def by_class(ranks: np.ndarray, labels: np.ndarray, ks: Sequence[int] = KS) -> dict[int, dict[int, float]]:
    """R@k of the queries of each class that has any: {class: {k: share in 0..1}}."""
    return {int(label): shares(ranks[labels == label], ks) for label in np.unique(labels)}


def neighbours_vote(found: Found, gallery_labels: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """The class (Q,) for which the nearest rows vote, each with exp(similarity / temperature); the lowest among equals.

    Source: Wu et al. 2018 (arXiv 1805.01978), equation 8, and many since.
    """
    weights = np.exp((found.similarities - found.similarities[:, :1]) / temperature)
    votes = np.zeros((len(weights), int(gallery_labels.max()) + 1))
    np.add.at(votes, (np.arange(len(weights))[:, None], gallery_labels[found.rows]), weights)
    return votes.argmax(1)


def _products(queries: Rows, gallery: Rows) -> Iterator[tuple[slice, torch.Tensor]]:
    """The products of blocks of queries with the whole gallery, (B, G)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    q, g = torch.as_tensor(queries), torch.as_tensor(gallery).to(device)
    rows = max(1, PAIRS_AT_ONCE // max(1, len(g)))
    for first in range(0, len(q), rows):
        yield slice(first, first + rows), q[first : first + rows].to(device) @ g.T


def _first_hit(scores: torch.Tensor, wanted: torch.Tensor, have: torch.Tensor) -> np.ndarray:
    """(Q,) rank from 0 of each query's first item of its own class; a rank beyond every k where there is none."""
    wanted, have = wanted.to(scores.device), have.to(scores.device)
    matches = (wanted[:, None] == have[None]) & (wanted != NO_LABEL)[:, None]
    best = scores.masked_fill(~matches, -torch.inf).amax(1, keepdim=True)
    ahead = (scores > best).sum(1)
    tied = scores == best
    several = torch.nonzero(tied.sum(1) > 1)[:, 0]  # the lowest row among equals comes first
    if len(several):
        place = torch.arange(len(have), device=scores.device)
        first = (matches[several] & tied[several]).int().argmax(1, keepdim=True)
        ahead[several] += (tied[several] & (place < first)).sum(1)
    return ahead.masked_fill(~matches.any(1), torch.iinfo(torch.int64).max).cpu().numpy()


def _largest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row, falling, and where they are; of equal ones the first. On the CPU."""
    k = min(k, scores.shape[1])
    values, places = scores.topk(k, dim=1)
    torn = torch.nonzero((scores >= values[:, -1:]).sum(1) > k)[:, 0]  # not all that equal the last one are among them
    if len(torn):
        places[torn] = scores[torn].sort(dim=1, descending=True, stable=True).indices[:, :k]
    places = places.sort(dim=1).values
    values, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values.cpu(), places.gather(1, order).cpu()


def chance(query_labels: Rows, gallery_labels: Rows, ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k of a random order of the gallery: mean over queries of 1 - C(G - n, k) / C(G, k), n items of its class."""
    wanted, have = _array(query_labels), _array(gallery_labels)
    own = np.array([np.sum(have == label) if label != NO_LABEL else 0 for label in wanted])
    size, shares = len(have), {}
    for k in ks:
        # C(G-n, k) / C(G, k) as a product over the draws: draw j misses with probability (G-n-j) / (G-j)
        draws = np.arange(min(k, size))
        misses = np.prod(np.clip(size - own[:, None] - draws, 0, None) / (size - draws), axis=1)
        shares[int(k)] = float(np.mean(1 - misses))
    return shares


def nearest(queries: Rows, gallery: Rows, k: int, centre: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar gallery rows of every query, by exact inner product of the (centred) unit rows; equal ones in
    gallery order.

    Nothing of size (Q, G) is kept, so a gallery of millions is fine. A k beyond the gallery takes all of it.

    Returns:
        Similarities (Q, k) float32, falling, and gallery rows (Q, k) int64.
    """
    if k < 1:
        raise Refusal(f"k must be at least 1, not {k}", where="eval.retrieval.nearest")
    q, g = (unit_rows(x, centre, side).float().cpu() for x, side in ((queries, "query"), (gallery, "gallery")))
    found = [_largest(scores, k) for _, scores in _products(q, g)]
    return torch.cat([values for values, _ in found]).numpy(), torch.cat([places for _, places in found]).numpy()


def _array(values: Rows) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    return np.asarray(values)


def _tensor(values: Rows) -> torch.Tensor:
    found = torch.as_tensor(values).detach()
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _check(scores: torch.Tensor, wanted: torch.Tensor, have: torch.Tensor, ks: Sequence[int]) -> None:
    if scores.ndim != 2 or scores.shape != (len(wanted), len(have)) or not scores.numel():
        raise Refusal(
            f"similarities are {tuple(scores.shape)}, but there are {len(wanted)} query and {len(have)} gallery labels",
            where="eval.retrieval.recall",
            remedy="give (Q, G) similarities with Q and G labels, none of them empty",
        )
    if bool(torch.isnan(scores).any()):
        raise Refusal("similarities contain NaN, which has no rank", where="eval.retrieval.recall")
    if any(k < 1 for k in ks):
        raise Refusal(f"every k must be at least 1: {tuple(ks)}", where="eval.retrieval.recall")
