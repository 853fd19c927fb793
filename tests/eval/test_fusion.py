"""Late fusion against worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval import fusion
from pipeline.errors import Refusal


def test_probabilities_are_averaged_and_keep_summing_to_one() -> None:
    first, second = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[0.2, 0.8], [0.1, 0.9]])
    np.testing.assert_allclose(fusion.fuse_probabilities(first, second), [[0.5, 0.5], [0.3, 0.7]])
    weighted = fusion.fuse_probabilities(first, second, weights=(3, 1))
    np.testing.assert_allclose(weighted, [[0.65, 0.35], [0.4, 0.6]])
    np.testing.assert_allclose(weighted.sum(1), 1)


def test_tensors_stay_tensors() -> None:
    parts = torch.full((2, 2), 0.5), torch.full((2, 2), 0.5)
    assert torch.equal(fusion.fuse_probabilities(*parts), parts[0])
    assert torch.equal(fusion.fuse_similarities(*parts), torch.ones(2, 2))


def test_similarities_are_summed() -> None:
    parts = [np.full((2, 3), float(i)) for i in range(3)]
    np.testing.assert_array_equal(fusion.fuse_similarities(*parts), np.full((2, 3), 3.0))
    np.testing.assert_array_equal(fusion.fuse_similarities(parts[1]), parts[1])
    np.testing.assert_array_equal(parts[0], 0)  # the inputs are left alone


@pytest.mark.parametrize("weights", [(1,), (0, 0), (-1, 2), (float("nan"), 1)])
def test_weights_fail(weights: tuple[float, ...]) -> None:
    with pytest.raises(Refusal, match="weighted"):
        fusion.fuse_probabilities(np.eye(2), np.eye(2), weights=weights)


@pytest.mark.parametrize("fuse", [fusion.fuse_probabilities, fusion.fuse_similarities])
def test_different_videos_or_no_stream_fail(fuse) -> None:
    with pytest.raises(Refusal, match="same rows"):
        fuse(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(Refusal):
        fuse()
