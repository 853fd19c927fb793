"""SLIC's clustering and losses against values that the released code gave on fixed inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conformance.reference import arrays, tensors
from train.clustering.finch import finch
from train.losses.triplet import (
    Strategy,
    cosine_distances,
    mean_hinge,
    semi_hard_pairs,
    temporal_discrimination,
    triplet_loss,
)

CLUSTERS, TRIPLETS = arrays("slic_finch"), tensors("slic_triplet")


@pytest.mark.parametrize("case", ["gauss40", "ties12"])
def test_partitions(case: str) -> None:
    found = finch(CLUSTERS[f"{case}_x"])
    assert found.counts == tuple(CLUSTERS[f"{case}_num"])
    np.testing.assert_array_equal(found.labels, CLUSTERS[f"{case}_c"])


@pytest.mark.parametrize("case", ["hard", "fallback"])
def test_pairs_candidates_and_corrected_loss(case: str) -> None:
    embeddings, labels = TRIPLETS[f"{case}_emb"].requires_grad_(), TRIPLETS[f"{case}_labels"]
    distances = cosine_distances(embeddings)
    torch.testing.assert_close(distances.detach(), TRIPLETS[f"{case}_dist"], rtol=0, atol=2e-5)
    pairs, candidates = semi_hard_pairs(distances, labels)
    anchors, positives, _ = TRIPLETS[f"{case}_triplets"]
    order = torch.tensor([pairs.tolist().index(pair) for pair in torch.stack([anchors, positives], 1).tolist()])
    assert sorted(order.tolist()) == list(range(len(pairs)))
    assert torch.equal(candidates[order], TRIPLETS[f"{case}_candidates"])
    assert torch.equal(~candidates[order].any(dim=1), TRIPLETS[f"{case}_fallback"])
    loss = mean_hinge(distances, pairs[order], TRIPLETS[f"{case}_neg_corrected"], 0.2)
    torch.testing.assert_close(loss.detach(), TRIPLETS[f"{case}_loss_corrected"], rtol=0, atol=2e-5)
    if case == "hard":  # no pair without candidates, so that the released gradient is right
        loss.backward()
        torch.testing.assert_close(embeddings.grad, TRIPLETS["hard_grad"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("strategy", ["random_semi_hard", "fixed_semi_hard"])
def test_a_pair_without_candidates_is_zero_where_the_released_code_finds_a_loss(strategy: Strategy) -> None:
    loss = triplet_loss(TRIPLETS["fallback_emb"], TRIPLETS["fallback_labels"], strategy=strategy)
    assert loss == TRIPLETS["fallback_loss_corrected"] == 0 < TRIPLETS["fallback_loss"]


@pytest.mark.parametrize("strategy", ["random_semi_hard", "fixed_semi_hard"])
def test_the_released_mistake_gives_the_released_loss(strategy: Strategy) -> None:
    loss = triplet_loss(TRIPLETS["fallback_emb"], TRIPLETS["fallback_labels"], strategy=strategy, wrong_negative=True)
    torch.testing.assert_close(loss, TRIPLETS["fallback_loss"], rtol=0, atol=2e-5)


def test_temporal_term() -> None:
    loss = temporal_discrimination(TRIPLETS["llc_a"], TRIPLETS["llc_p"], TRIPLETS["llc_a2"])
    torch.testing.assert_close(loss, TRIPLETS["llc_loss"], rtol=0, atol=2e-5)
