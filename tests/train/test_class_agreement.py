"""How assignments agree with classes, against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from train.clustering.classes import class_agreement


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_that_of_a_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_q = torch.randn(9, 5, generator=generator).log_softmax(dim=1)
    labels = torch.randint(-1, 3, (9,), generator=generator)
    rows, classes = log_q.exp().tolist(), labels.tolist()
    known = [row for row in range(9) if classes[row] >= 0]
    right = 0
    for row in known:
        others = [other for other in known if other != row]
        alike = [sum(math.sqrt(p * q) for p, q in zip(rows[row], rows[other], strict=True)) for other in others]
        right += classes[others[alike.index(max(alike))]] == classes[row]
    assert class_agreement(log_q, labels).item() == pytest.approx(right / len(known))


def test_assignments_of_half_precision_and_of_rows_that_share_nothing() -> None:
    sure = torch.tensor([[0.0, -1e4], [0.0, -1e4], [-1e4, 0.0], [-1e4, 0.0]])
    assert class_agreement(sure.bfloat16(), torch.tensor([0, 0, 1, 1])) == 1
    assert class_agreement(sure, torch.tensor([0, 1, 0, 1])) == 0


@pytest.mark.parametrize("labels", [[-1, -1, -1], [-1, 2, -1]])
def test_without_two_labels_nothing_is_right(labels: list[int]) -> None:
    assert class_agreement(torch.zeros(3, 4), torch.tensor(labels)) == 0


def test_labels_of_other_rows_fail() -> None:
    with pytest.raises(ValueError, match=r"assignments \(3, 4\) and labels \(2,\)"):
        class_agreement(torch.zeros(3, 4), torch.tensor([0, 0]))
