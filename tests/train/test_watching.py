"""How prototypes are used: figures against plain loops, and a collapse that is told when it happens."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from train.callbacks import collapse
from train.clustering import watching
from train.clustering.sinkhorn import assign
from train.clustering.watching import REMEMBERED, Watch

COUNT, BATCH, DIM = 5, 7, 3


def steps(number: int, streams: int = 1) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(number)
    return [[torch.randn(BATCH, COUNT, generator=generator) / 3 for _ in range(streams)] for _ in range(number)]


def prototypes(count: int = COUNT, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def entropy(log_q: Tensor) -> float:
    each = [-sum(math.exp(value) * value for value in row) for row in log_q.double().tolist()]
    return sum(each) / len(each) / math.log(log_q.shape[1])


@pytest.mark.parametrize("number", [1, 3, 12])  # less than is remembered, and more: 5 x 10 clips are
def test_figures_equal_loops(number: int) -> None:
    watch, members, found = Watch(COUNT), [], {}
    for [scores] in steps(number):
        log_q = assign(scores)
        found = watch(prototypes(), [scores], [log_q, assign(scores.flip(0))])
        members += [max(range(COUNT), key=row.__getitem__) for row in scores.tolist()]
        assert found["assignment_entropy"].item() == pytest.approx(entropy(log_q), rel=1e-5)
        same = [int(one.argmax() == two.argmax()) for one, two in zip(log_q, log_q.flip(0), strict=True)]
        assert not torch.equal(log_q, assign(scores.flip(0)))
        assert found["stream_agreement"].item() == pytest.approx(sum(same) / BATCH)
    counted = Counter(members[-REMEMBERED * COUNT :])
    assert found["largest_prototype"].item() == pytest.approx(max(counted.values()) / counted.total())
    assert found["empty_prototypes"].item() == pytest.approx(1 - len(counted) / COUNT)
    rows = prototypes().tolist()
    cosines = [
        max(sum(a * b for a, b in zip(one, two, strict=True)) for j, two in enumerate(rows) if j != i)
        for i, one in enumerate(rows)
    ]
    assert found["prototype_cosine"].item() == pytest.approx(sum(cosines) / COUNT, rel=1e-5)


def test_without_another_stream_there_is_no_agreement() -> None:
    [[scores]] = steps(1)
    assert "stream_agreement" not in Watch(COUNT)(prototypes(), [scores], [assign(scores)])


def test_a_stream_that_collapses_is_not_hidden_by_the_other() -> None:
    watch = Watch(COUNT, streams=2)
    for [one, two] in steps(8, streams=2):
        two[:, 3] = 9
        found = watch(prototypes(), [one, two], [assign(one), torch.full((BATCH, COUNT), -math.log(COUNT))])
    assert found["largest_prototype"] == 1 and found["empty_prototypes"].item() == pytest.approx(0.8)
    assert found["assignment_entropy"].item() == pytest.approx(1)


@pytest.mark.parametrize("off", ["no gradient", "evaluation"])
def test_what_is_no_training_is_not_remembered(off: str) -> None:
    watch, [[scores]] = Watch(COUNT), steps(1)
    watch.train(off != "evaluation")
    with torch.set_grad_enabled(off != "no gradient"):
        watch(prototypes(), [scores], [assign(scores)])
    assert watch.slot == 0 and (watch.recent == -1).all()


def test_it_goes_on_from_its_state() -> None:
    whole, half = Watch(COUNT), Watch(COUNT)
    given = steps(9)
    for place, [scores] in enumerate(given):
        wanted = whole(prototypes(), [scores], [assign(scores)])
        if place == 4:
            again = Watch(COUNT)
            again.load_state_dict(half.state_dict())
            half = again
        assert half(prototypes(), [scores], [assign(scores)]) == wanted


def test_many_prototypes_are_compared_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as often as the others; all of them together give the mean over all."""
    monkeypatch.setattr(watching, "COMPARED", BATCH)
    count = 3 * BATCH
    watch, rows = Watch(count), prototypes(count)
    scores = torch.randn(BATCH, count)
    found = [watch(rows, [scores], [assign(scores)])["prototype_cosine"] for _ in range(3)]
    monkeypatch.setattr(watching, "COMPARED", count)
    assert len(set(found)) == 3
    wanted = watch(rows, [scores], [assign(scores)])["prototype_cosine"]
    torch.testing.assert_close(torch.stack(found).mean(), wanted)


@pytest.mark.parametrize(("count", "streams"), [(1, 1), (0, 1), (5, 0), (2.5, 1)])
def test_what_cannot_be_watched_fails(count: Any, streams: int) -> None:
    with pytest.raises(ValueError, match="must be a whole number, at least"):
        Watch(count, streams)


class Told:
    """Lines of metrics.jsonl, and what Collapse said of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batches: int = 4, passes: int = 1) -> None:
        self.texts: list[str] = []
        monkeypatch.setattr(collapse, "tell", self.texts.append)
        self.metrics = SimpleNamespace(latest={})
        monkeypatch.setattr(collapse, "loader_of", lambda trainer: Loader(batches))
        self.trainer: Any = SimpleNamespace(accumulate_grad_batches=passes, global_step=0)
        self.watched = collapse.Collapse("stage", self.metrics)  # type: ignore[arg-type]
        self.watched.on_train_start(self.trainer, Watch(COUNT))  # type: ignore[arg-type]

    def line(self, step: int, written: bool = True, **values: float) -> str:
        self.trainer.global_step = step
        if written:
            self.metrics.latest = {"step": step, "epoch": step // 4, **values}
        self.texts.clear()
        self.watched.on_train_batch_end(self.trainer, None, None, None, 0)  # type: ignore[arg-type]
        return "".join(self.texts)


class Loader:
    order = SimpleNamespace(batch=BATCH)

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches


HEALTHY = {"assignment_entropy": 0.9, "largest_prototype": 0.1, "empty_prototypes": 0.0, "prototype_cosine": 0.3}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_sign_is_told_once_while_it_lasts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    told = Told(monkeypatch)
    assert told.line(9, **HEALTHY) == ""
    text = told.line(10, **(HEALTHY | {name: 1.0}))
    assert "stage: the prototypes have collapsed in epoch 2, step 10: " in text and f"({name} 1.000)" in text
    assert "to do: in the recipe" in text
    assert told.line(11, **(HEALTHY | {name: 1.0})) == told.line(12, **HEALTHY) == ""
    assert told.line(13, written=False) == ""
    assert told.line(14, **(HEALTHY | {name: 1.0}))


@pytest.mark.parametrize(("passes", "first"), [(1, 8), (2, 4)])
def test_what_has_learned_nothing_yet_is_not_judged(monkeypatch: pytest.MonkeyPatch, passes: int, first: int) -> None:
    """7 clips a pass fill the 50 that are remembered in the eighth; and an epoch of 4 passes is over before."""
    told = Told(monkeypatch, passes=passes)
    assert [bool(told.line(step, largest_prototype=1.0)) for step in range(first + 1)] == [False] * first + [True]


def test_the_first_epoch_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, batches=20)
    assert not told.line(20, largest_prototype=1.0) and told.line(21, largest_prototype=1.0)


def test_methods_without_prototypes_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Told(monkeypatch).line(100, loss=1.0) == ""
