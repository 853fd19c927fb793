"""Nearest rows by cells and bounds against a plain loop over float64 similarities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.clustering import divisions
from train.clustering import nearest as module
from train.clustering.nearest import nearest_rows
from train.clustering.rows import unit


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows lie in many cells, and most blocks are not beside each other."""
    monkeypatch.setattr(module, "BLOCK", 6)
    monkeypatch.setattr(module, "BESIDE", 1)
    monkeypatch.setattr(divisions, "TOGETHER", 6)
    monkeypatch.setattr(divisions, "LARGEST", 24)


def loop_nearest(rows: np.ndarray) -> list[int]:
    """The lowest of the rows with the largest cosine, to 1e-12."""
    scaled = [row / np.abs(row).max() if row.any() else row for row in rows.astype(np.float64)]
    units = [row / np.linalg.norm(row) if row.any() else row for row in scaled]
    found = []
    for i, row in enumerate(units):
        similar = [-np.inf if i == j else float(np.dot(row, other)) for j, other in enumerate(units)]
        found.append(next(j for j, value in enumerate(similar) if value >= max(similar) - 1e-12))
    return found


def drawn(kind: str, count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "random":
        return rng.normal(size=(count, dim))
    if kind == "grid":  # many ties, opposite rows and rows of zeros
        return rng.integers(-1, 2, size=(count, dim)).astype(float)
    centres = 3 * rng.normal(size=(max(1, count // 8), dim))
    groups = centres[rng.integers(len(centres), size=count)]
    if kind == "same":
        return groups * rng.uniform(1e-20, 1e20, size=(count, 1))
    if kind == "closer than float32 sees":
        return groups * (1 + 1e-9 * rng.normal(size=(count, dim)))
    return groups + 0.3 * rng.normal(size=(count, dim))


KINDS = ["random", "groups", "grid", "same", "closer than float32 sees"]


@settings(max_examples=100)
@given(st.sampled_from(KINDS), st.integers(13, 120), st.integers(2, 9), st.integers(0, 10**6))
def test_exact_search_equals_a_loop_for_any_seed(kind: str, count: int, dim: int, seed: int) -> None:
    rows = drawn(kind, count, dim, np.random.default_rng(seed))
    assert nearest_rows(torch.from_numpy(rows), seed=seed % 7).tolist() == loop_nearest(rows)


@settings(max_examples=30)
@given(st.sampled_from(KINDS[:3]), st.integers(1, 60), st.integers(1, 5), st.integers(0, 10**6))
def test_float32_features_are_searched_as_they_are(kind: str, count: int, dim: int, seed: int) -> None:
    rows = drawn(kind, count, dim, np.random.default_rng(seed)).astype(np.float32)
    assert nearest_rows(torch.from_numpy(rows)).tolist() == loop_nearest(rows)


@pytest.mark.parametrize("zeros", [1, 5, 40])
def test_rows_of_zeros_are_as_far_from_each_row_as_a_right_angle(zeros: int) -> None:
    rng = np.random.default_rng(zeros)
    rows = np.zeros((40, 3))
    rows[rng.permutation(40)[zeros:]] = -np.abs(rng.normal(size=(40 - zeros, 3)))
    rows[7] = [5, 5, 5]  # its cosine to every other row but those of zeros is below 0
    assert nearest_rows(torch.from_numpy(rows)).tolist() == loop_nearest(rows)


def test_most_pairs_are_not_looked_at_where_rows_lie_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn("groups", 300, 16, np.random.default_rng(0))
    looked = 0
    improve = module._Search._improve

    def counting(search: module._Search, places: slice | torch.Tensor, similar: torch.Tensor, start: int) -> None:
        nonlocal looked
        looked += similar.numel()
        improve(search, places, similar, start)

    monkeypatch.setattr(module._Search, "_improve", counting)
    assert nearest_rows(torch.from_numpy(rows)).tolist() == loop_nearest(rows)
    assert looked < 0.5 * 300**2


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.integers(13, 80), st.integers(1, 9), st.integers(0, 10**6))
def test_approximate_search_finds_another_row_and_none_farther_with_more_divisions(
    kind: str, count: int, dim: int, seed: int
) -> None:
    rows = torch.from_numpy(drawn(kind, count, dim, np.random.default_rng(seed)))
    units, zeros = unit(rows), (~rows.any(dim=1)).nonzero()[:, 0]
    before = torch.full((count,), -2.0, dtype=torch.float64)
    for number in (1, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(divisions, "DIVISIONS", number)
            found = nearest_rows(rows, "approximate", seed)
            assert found.equal(nearest_rows(rows, "approximate", seed))
        assert (found != torch.arange(count)).all() and found[zeros].equal((zeros == 0).long())
        similar = (units * units[found]).sum(1)
        assert (similar >= before - 1e-6).all()
        before = similar


def test_approximate_search_finds_what_lies_in_groups_by_many_divisions(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.from_numpy(drawn("groups", 500, 16, np.random.default_rng(1)))
    exact = nearest_rows(rows)
    assert (nearest_rows(rows, "approximate") == exact).double().mean() > 0.97
    monkeypatch.setattr(divisions, "DIVISIONS", 1)
    assert 0.3 < (nearest_rows(rows, "approximate") == exact).double().mean() < 0.97


def test_neither_autocast_nor_a_fast_precision_changes_what_is_found() -> None:
    rows = torch.from_numpy(drawn("groups", 300, 32, np.random.default_rng(2)).astype(np.float32))
    wanted = nearest_rows(rows)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert nearest_rows(rows.requires_grad_()).equal(wanted)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
def test_a_gpu_finds_the_same_rows() -> None:
    rows = torch.from_numpy(drawn("groups", 3000, 64, np.random.default_rng(3)).astype(np.float32))
    assert nearest_rows(rows.cuda()).equal(nearest_rows(rows))
