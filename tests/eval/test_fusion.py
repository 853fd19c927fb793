"""Late fusion against worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eval import fusion
from pipeline.errors import Refusal


def test_probabilities_are_averaged_and_keep_summing_to_one() -> None:
    first, second = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[0.2, 0.8], [0.1, 0.9]])
    np.testing.assert_allclose(fusion.fuse_probabilities(first, second), [[0.5, 0.5], [0.3, 0.7]])
    weighted = fusion.fuse_probabilities(first, second, weights=(3, 1))
    np.testing.assert_allclose(weighted, [[0.65, 0.35], [0.4, 0.6]])
    np.testing.assert_allclose(weighted.sum(1), 1)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), st.floats(0.01, 100), st.integers(0, 10**6))
def test_fusion_equals_a_loop_whatever_the_weights_sum_to(weights: list[float], scale: float, seed: int) -> None:
    streams = [np.random.default_rng([seed, i]).dirichlet(np.ones(3), size=2) for i in range(len(weights))]
    scaled = fusion.fuse_probabilities(*streams, weights=[scale * weight for weight in weights])
    summed = fusion.fuse_similarities(*streams)
    for row in range(2):
        for column in range(3):
            values = [float(stream[row, column]) for stream in streams]
            mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
            assert scaled[row, column] == pytest.approx(mean, rel=1e-12)
            assert summed[row, column] == pytest.approx(sum(values), rel=1e-12)


def test_four_views_at_the_weights_of_cocon() -> None:
    views = [torch.eye(4)[i : i + 1] for i in range(4)]  # view i is sure of class i
    fused = fusion.fuse_probabilities(*views, weights=(2, 2, 1, 1))
    torch.testing.assert_close(fused, torch.tensor([[2.0, 2, 1, 1]]) / 6)
    torch.testing.assert_close(fusion.fuse_probabilities(*views, weights=(0, 0, 5, 0)), views[2])


def test_tensors_stay_tensors() -> None:
    parts = torch.full((2, 2), 0.5), torch.full((2, 2), 0.5)
    assert torch.equal(fusion.fuse_probabilities(*parts), parts[0])
    assert torch.equal(fusion.fuse_similarities(*parts), torch.ones(2, 2))


def test_similarities_are_summed() -> None:
    parts = [np.full((2, 3), float(i)) for i in range(3)]
    np.testing.assert_array_equal(fusion.fuse_similarities(*parts), np.full((2, 3), 3.0))
    np.testing.assert_array_equal(fusion.fuse_similarities(parts[1]), parts[1])
    np.testing.assert_array_equal(parts[0], 0)  # the inputs are left alone


def test_features_are_averaged_and_similarities_counted_by_their_weights() -> None:
    parts = [np.full((2, 3), 1.0), np.full((2, 3), 4.0)]
    np.testing.assert_array_equal(fusion.fuse_features(*parts), np.full((2, 3), 2.5))
    np.testing.assert_array_equal(fusion.fuse_features(*parts, weights=(2, 1)), np.full((2, 3), 2.0))
    np.testing.assert_array_equal(fusion.fuse_similarities(*parts, weights=(2, 1)), np.full((2, 3), 6.0))


@pytest.mark.parametrize("weights", [(1,), (0, 0), (-1, 2), (float("nan"), 1)])
def test_weights_fail(weights: tuple[float, ...]) -> None:
    with pytest.raises(Refusal, match="weighted"):
        fusion.fuse_probabilities(np.eye(2), np.eye(2), weights=weights)


@pytest.mark.parametrize("fuse", [fusion.fuse_probabilities, fusion.fuse_similarities, fusion.fuse_features])
def test_different_videos_or_no_stream_fail(fuse) -> None:
    with pytest.raises(Refusal, match="same rows"):
        fuse(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(Refusal):
        fuse()


@pytest.mark.parametrize("fuse", [fusion.fuse_probabilities, fusion.fuse_similarities, fusion.fuse_features])
def test_arrays_with_tensors_fail(fuse) -> None:
    for streams in ((np.eye(2), torch.eye(2)), (torch.eye(2), np.eye(2))):
        with pytest.raises(Refusal, match="arrays in part"):
            fuse(*streams)
