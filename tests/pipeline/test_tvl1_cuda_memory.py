"""What tvl1-cuda does with the memory and the streams of a GPU; stand-ins without flow take its solvers' place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from pipeline import flow

pytest.importorskip("triton", reason="Triton comes for Linux on x86-64 only")


class FewBytes:
    """In the solver's place on a GPU with memory for `free` pairs in all solvers together; no flow."""

    free = 0

    def __init__(self, parameters: Any, pairs: int, size: tuple[int, ...], half_precision: bool) -> None:
        self.pairs = 0
        if pairs > FewBytes.free:
            raise torch.OutOfMemoryError
        self.pairs = pairs
        FewBytes.free -= pairs

    def __del__(self) -> None:
        FewBytes.free += self.pairs

    def launch(self, first: np.ndarray, second: np.ndarray, quantise: Any) -> Callable[[], np.ndarray]:
        assert len(first) <= self.pairs
        return lambda: np.stack([first, second], axis=1).astype(np.float32)


def test_too_little_memory_halves_the_batch_for_frames_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.flow import tvl1_cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tvl1_cuda, "Solver", FewBytes)
    monkeypatch.setattr(FewBytes, "free", 20)
    estimator: Any = flow.create("tvl1-cuda", batch_size=64)
    frames = np.random.default_rng(0).integers(0, 256, (2, 100, 6, 7), dtype=np.uint8)
    for pairs in (8, 100, 3, 100):
        found = estimator.estimate(*frames[:, :pairs])
        assert np.array_equal(found, frames[:, :pairs].transpose(1, 0, 2, 3))
    assert [key[0] for key in estimator._solvers] == [4, 16]  # the one for 8 went, and no one tried 64 again
    estimator.estimate(*frames[:, :5, :3])
    assert [key for key in estimator._solvers] == [(8, 3, 7)]  # what others had is free before fewer pairs are tried
    monkeypatch.setattr(FewBytes, "free", -100)
    with pytest.raises(ValueError, match="too little memory free for a pair of 6 x 5 pixels"):
        estimator.estimate(*frames[:, :5, :, :5])


def test_streams_have_solvers_of_their_own_in_turn_and_halve_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.flow import tvl1_cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tvl1_cuda, "Solver", FewBytes)
    monkeypatch.setattr(FewBytes, "free", 20)
    estimator: Any = flow.create("tvl1-cuda", batch_size=16, streams=2)
    frames = np.random.default_rng(0).integers(0, 256, (2, 30, 6, 7), dtype=np.uint8)
    assert np.array_equal(estimator.estimate(*frames), frames.transpose(1, 0, 2, 3))
    ((key, (next_one, other)),) = estimator._solvers.items()
    assert key[0] == next_one.pairs == other.pairs == 8
    estimator.estimate(*frames[:, :5])
    assert list(estimator._solvers[key]) == [other, next_one]


class Few:
    """In the place of `Mixed`, with memory for so many pixels; no flow."""

    launched: ClassVar[list[list[int]]] = []

    def __init__(self, parameters: Any, half_precision: bool) -> None: ...

    def launch(self, groups: Any, quantise: Any) -> Callable[[], list[np.ndarray]]:
        if sum(first.size for first, _ in groups) > 200:
            raise torch.OutOfMemoryError
        Few.launched.append([len(first) for first, _ in groups])
        return lambda: [np.stack([first, second], axis=1) for first, second in groups]


def test_a_launch_of_all_sizes_is_halved_where_memory_or_the_batch_is_too_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.flow import tvl1_cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tvl1_cuda, "Mixed", Few)
    monkeypatch.setattr(Few, "launched", [])
    estimator: Any = flow.create("tvl1-cuda", batch_size=16, fused=True, streams=2)
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 4, 5), dtype=np.uint8)
    groups = [(frames[0, :7], frames[1, :7]), (frames[0, :3, :3], frames[1, :3, :3]), tuple(frames[:, 7:9])]
    for given in (groups, groups[:1], [tuple(frames)]):
        found = estimator.launch_groups(given)()
        for (first, second), one in zip(given, found, strict=True):
            assert np.array_equal(one, np.stack([first, second], axis=1))
    assert Few.launched[:3] == [[7], [3, 2], [7]] and all(sum(pairs) <= 10 for pairs in Few.launched)
    with pytest.raises(ValueError, match="too little memory free for a pair of 20 x 20 pixels"):
        estimator.estimate(*np.zeros((2, 3, 20, 20), np.uint8))
