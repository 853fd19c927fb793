"""The linear probe on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from eval import linear
from pipeline.errors import Refusal


def clusters(per_class: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit-variance rows around class means that are the same for every seed."""
    means = np.random.default_rng(99).normal(size=(classes, 32)) * spread
    labels = np.repeat(np.arange(classes), per_class)
    return means[labels] + np.random.default_rng(seed).normal(size=(len(labels), 32)), labels


def test_separable_classes_are_read_and_noise_is_not() -> None:
    good = linear.probe(*clusters(20, 5, 2.0, 0), *clusters(10, 5, 2.0, 1))
    noise = linear.probe(*clusters(20, 5, 0.0, 0), *clusters(40, 5, 0.0, 1))
    assert good.accuracy > 0.97
    assert abs(noise.accuracy - 0.2) < 0.08
    assert noise.chosen_c in linear.STRENGTHS
    np.testing.assert_allclose(good.probabilities.sum(1), 1)
    assert good.probabilities.shape == (50, 5)


def test_scale_of_the_features_does_not_matter_and_the_seed_decides_the_rest() -> None:
    (train, y), (test, z) = clusters(20, 4, 0.6, 0), clusters(10, 4, 0.6, 1)
    first, again, scaled = (
        linear.probe(train, y, test, z),
        linear.probe(train, y, test, z),
        linear.probe(train * 9, y, test, z),
    )
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    np.testing.assert_allclose(first.probabilities, scaled.probabilities, atol=1e-6)


def test_the_test_labels_choose_nothing() -> None:
    (train, y), (test, z) = clusters(20, 4, 0.6, 0), clusters(10, 4, 0.6, 1)
    shuffled = np.random.default_rng(0).permutation(z)
    first, second = linear.probe(train, y, test, z), linear.probe(train, y, test, shuffled)
    assert first.chosen_c == second.chosen_c
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.accuracy == np.mean(first.classes[first.probabilities.argmax(1)] == z)


def test_held_out_rows_are_a_quarter_of_each_class() -> None:
    labels = np.array([0] * 8 + [1] * 4 + [2] * 1 + [3] * 2)
    mask = linear._held_out(labels, seed=0)
    assert [int(mask[labels == c].sum()) for c in range(4)] == [2, 1, 0, 1]


def test_columns_follow_the_training_classes() -> None:
    (train, y), (test, z) = clusters(10, 3, 2.0, 0), clusters(5, 3, 2.0, 1)
    result = linear.probe(train, y * 10 + 1, test, np.where(z == 2, 777, z * 10 + 1))
    assert result.classes.tolist() == [1, 11, 21]
    assert result.accuracy == pytest.approx(2 / 3, abs=0.05)  # the class unknown in training is an error


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one class", "one video each"])
def test_too_little_to_fit_fails(labels: list[int]) -> None:
    with pytest.raises(Refusal, match="linear probe"):
        linear.probe(np.eye(4), np.array(labels), np.eye(4), np.array(labels))
