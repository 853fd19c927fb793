"""Nearest-neighbour retrieval: which training videos lie closest to a test video, and whether they show the same class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.errors import Refusal

Rows = np.ndarray | torch.Tensor
KS = (1, 5, 10, 20, 50)
NO_LABEL = -1
PAIRS_AT_ONCE = 2**24  # bounds the memory of the masks in `recall`


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
    return torch.nn.functional.normalize(rows, dim=1)


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
    scores, wanted, have = (_array(x) for x in (similarities, query_labels, gallery_labels))
    _check(scores, wanted, have, ks)
    rows = max(1, PAIRS_AT_ONCE // scores.shape[1])
    blocks = (slice(first, first + rows) for first in range(0, len(scores), rows))
    return shares(np.concatenate([_first_hit(scores[block], wanted[block], have) for block in blocks]), ks)


def first_hits(queries: Rows, gallery: Rows, query_labels: Rows, gallery_labels: Rows) -> np.ndarray:
    """(Q,) rank from 0 of each query's first item of its own class, as `recall` counts it, by the products of rows
    (`unit_rows`, or those of several streams beside each other); beyond every k where there is none.

    No (Q, G) similarities are kept. Raises Refusal as `recall` does.
    """
    q, g, wanted, have = (
        torch.as_tensor(queries),
        torch.as_tensor(gallery),
        _array(query_labels),
        _array(gallery_labels),
    )
    rows = max(1, PAIRS_AT_ONCE // max(1, len(g)))
    found = []
    for first in range(0, len(q), rows):
        scores = _array(q[first : first + rows] @ g.T)
        _check(scores, wanted[first : first + rows], have, KS)
        found.append(_first_hit(scores, wanted[first : first + rows], have))
    return np.concatenate(found)


def shares(ranks: np.ndarray, ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k from the ranks (Q,) of first hits: {k: share in 0..1}."""
    return {int(k): float(np.mean(ranks < k)) for k in ks}


def _first_hit(scores: np.ndarray, wanted: np.ndarray, have: np.ndarray) -> np.ndarray:
    """(Q,) rank from 0 of each query's first item of its own class; a rank beyond every k where there is none."""
    matches = (wanted[:, None] == have[None]) & (wanted != NO_LABEL)[:, None]
    best = np.where(matches, scores, -np.inf).max(1, keepdims=True)
    first = (matches & (scores == best)).argmax(1)  # the lowest row among equals
    ahead = (scores > best).sum(1) + ((scores == best) & (np.arange(len(have)) < first[:, None])).sum(1)
    return np.where(matches.any(1), ahead, np.iinfo(np.int64).max)


def chance(query_labels: Rows, gallery_labels: Rows, ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k of a random order of the gallery: the mean over queries of 1 - C(G - n, k) / C(G, k), n items of its class."""
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
    """The k most similar gallery rows of every query, by exact inner product of the (centred) unit rows (faiss).

    Nothing of size (Q, G) is kept, so a gallery of millions is fine. A k beyond the gallery takes all of it.

    Returns:
        Similarities (Q, k) float32, falling, and gallery rows (Q, k) int64.
    """
    import faiss  # here, so that a broken or doubled installation can be told before it is imported

    if k < 1:
        raise Refusal(f"k must be at least 1, not {k}", where="eval.retrieval.nearest")
    q, g = (unit_rows(x, centre, side).float().cpu().numpy() for x, side in ((queries, "query"), (gallery, "gallery")))
    index = faiss.IndexFlatIP(g.shape[1])
    index.add(g)
    return index.search(q, min(k, len(g)))


def _array(values: Rows) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    return np.asarray(values)


def _check(scores: np.ndarray, wanted: np.ndarray, have: np.ndarray, ks: Sequence[int]) -> None:
    if scores.ndim != 2 or scores.shape != (len(wanted), len(have)) or not scores.size:
        raise Refusal(
            f"similarities are {scores.shape}, but there are {len(wanted)} query and {len(have)} gallery labels",
            where="eval.retrieval.recall",
            remedy="give (Q, G) similarities with Q and G labels, none of them empty",
        )
    if np.isnan(scores).any():
        raise Refusal("similarities contain NaN, which has no rank", where="eval.retrieval.recall")
    if any(k < 1 for k in ks):
        raise Refusal(f"every k must be at least 1: {tuple(ks)}", where="eval.retrieval.recall")
