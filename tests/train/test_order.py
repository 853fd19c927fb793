"""Orders as functions of (seed, epoch): every video in its turn, the same batches on any number of ranks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from train.order import WINDOW, Order, OrderSettings
from train.settings import read

counts = st.integers(1, 200)
seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 24)


def make(videos: int, batch: int, seed: int = 0, **settings: Any) -> Order:
    """Videos without labels."""
    return Order(OrderSettings(**settings), videos, batch, seed, labels=np.full(videos, -1))


def epoch_of(order: Order, epoch: int) -> list[np.ndarray]:
    return [order.share(epoch * len(order) + place)[1] for place in range(len(order))]


def test_default_order_stays_as_it_was() -> None:
    """A seed means an order; numbers that were told with it stay what they are."""
    order = make(13, 4, seed=5)
    assert order.samples(0).tolist() == [12, 8, 7, 4, 0, 5, 11, 2, 10, 6, 3, 9, 1]
    assert order.samples(1).tolist() == [1, 10, 0, 6, 11, 3, 12, 9, 5, 8, 7, 4, 2]
    assert [samples.tolist() for samples in epoch_of(order, 0)] == [[12, 8, 7, 4], [0, 5, 11, 2], [10, 6, 3, 9]]


@given(videos=counts, batch=batches, seed=seeds, epoch=st.integers(0, 3), block=st.integers(0, 40))
def test_every_video_comes_once_an_epoch(videos: int, batch: int, seed: int, epoch: int, block: int) -> None:
    order = make(videos, batch, seed, block=block, last="keep")
    found = epoch_of(order, epoch)
    assert sorted(np.concatenate(found)) == list(range(videos))
    assert [len(samples) for samples in found[:-1]] == [batch] * (len(order) - 1)
    assert len(found[-1]) == order.last == (videos % batch or batch)


@given(videos=counts, batch=batches, accumulate=st.integers(1, 5), epoch=st.integers(0, 2))
def test_epochs_hold_whole_steps(videos: int, batch: int, accumulate: int, epoch: int) -> None:
    order = Order(OrderSettings(), videos, batch, 0, accumulate)
    assert len(order) == videos // (batch * accumulate) * accumulate
    found = [sample for samples in epoch_of(order, epoch) for sample in samples]
    assert found == order.samples(epoch)[: len(order) * batch].tolist()


@given(videos=counts, batch=batches, seed=seeds, block=st.integers(0, 40))
def test_dropping_the_last_batch_changes_no_other(videos: int, batch: int, seed: int, block: int) -> None:
    order, kept = make(videos, batch, seed, block=block), make(videos, batch, seed, block=block, last="keep")
    assert len(order) == videos // batch
    assert order.last == (batch if videos >= batch else 0)
    for one, two in zip(epoch_of(order, 2), epoch_of(kept, 2), strict=False):
        assert len(one) == batch and np.array_equal(one, two)


@given(
    videos=st.integers(8, 200), shares=st.integers(1, 3), seed=seeds, number=st.integers(0, 60), block=st.integers(0, 9)
)
def test_ranks_share_the_one_batch_in_rank_order(videos: int, shares: int, seed: int, number: int, block: int) -> None:
    order = make(videos, 8 * shares if videos >= 8 * shares else 8, seed, block=block)
    epoch, whole = order.share(number)
    assert epoch == number // len(order)
    for ranks in (1, 2, 4, 8):
        parts = [make(videos, order.batch, seed, block=block).share(number, rank, ranks) for rank in range(ranks)]
        assert {found for found, _ in parts} == {epoch}
        assert np.array_equal(np.concatenate([part for _, part in parts]), whole)


@given(videos=counts, seed=seeds, repeat=st.integers(1, 4), limit=counts, block=st.integers(0, 20))
def test_repeated_videos_are_other_samples_each_time(
    videos: int, seed: int, repeat: int, limit: int, block: int
) -> None:
    limit = min(limit, videos)
    order = make(videos, 1, seed, repeat=repeat, limit=limit, block=block)
    samples = order.samples(0)
    assert len(set(samples.tolist())) == len(samples) == order.size == len(order) == repeat * limit
    for turn in range(repeat):  # one time through all of them after the other
        part = samples[turn * limit : (turn + 1) * limit]
        assert set(part // videos) == {turn}
        assert sorted(part % videos) == order.chosen.tolist()
    if repeat > 1 and limit > 20:
        assert not np.array_equal(samples[:limit], samples[limit : 2 * limit] - videos)


@given(videos=st.integers(2, 200), seed=seeds, data=st.data())
def test_a_limited_set_is_part_of_every_larger_one_in_all_epochs(videos: int, seed: int, data: st.DataObject) -> None:
    small, large = sorted(data.draw(st.tuples(*[st.integers(1, videos)] * 2)))
    one, two = make(videos, 1, seed, limit=small), make(videos, 1, seed, limit=large)
    assert set(one.chosen) <= set(two.chosen)
    assert len(set(one.chosen)) == small and len(set(two.chosen)) == large
    assert all(sorted(one.samples(epoch)) == one.chosen.tolist() for epoch in range(3))


def test_limited_sets_of_other_seeds_are_others() -> None:
    assert len({tuple(make(100, 1, seed, limit=5).chosen) for seed in range(20)}) == 20


def test_epochs_and_seeds_have_other_orders() -> None:
    for settings in ({}, {"block": 4}, {"balanced": True}, {"repeat": 2}):
        orders = [make(60, 4, seed, **settings) for seed in (1, 2)]
        assert len({tuple(order.samples(epoch).tolist()) for order in orders for epoch in (0, 1, 2)}) == 6


@given(
    videos=st.integers(1, 400), batch=st.integers(1, 16), block=st.integers(2, 20), seed=seeds, repeat=st.integers(1, 2)
)
def test_consecutive_batches_touch_few_blocks(videos: int, batch: int, block: int, seed: int, repeat: int) -> None:
    """Each window of eight blocks is read to its end before the next is begun."""
    order = make(videos, batch, seed, block=block, repeat=repeat, last="keep")
    blocks = order.samples(0) // block if repeat == 1 else order.samples(0) % videos // block
    assert all(len(set(samples % videos // block)) <= 2 * WINDOW for samples in epoch_of(order, 1) if batch <= block)
    for once in np.split(blocks, repeat):
        # A smaller last block may make its window a shorter one, wherever that window comes.
        begun = [int(np.flatnonzero(once == number)[0]) for number in range(-(-videos // block))]
        ended = [int(np.flatnonzero(once == number)[-1]) for number in range(-(-videos // block))]
        for end in ended:
            at_once = [other for other in range(len(begun)) if begun[other] <= end <= ended[other]]
            assert len(at_once) <= WINDOW


def test_blocks_are_mixed_and_neighbours_are_not_kept_together() -> None:
    order = make(800, 10, block=10)
    for epoch in range(3):
        samples = order.samples(epoch)
        assert (np.abs(np.diff(samples)) == 1).mean() < 0.1
        assert len({tuple(sorted(set(window // 10))) for window in np.split(samples, 10)}) == 10
    first, second = (set(order.samples(epoch)[:80] // 10) for epoch in (0, 1))
    assert len(first) == len(second) == WINDOW and first != second


labels_of_videos = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@given(labels=labels_of_videos, seed=seeds, repeat=st.integers(1, 3), epoch=st.integers(0, 2))
def test_balanced_classes_come_equally_often_in_every_stretch(
    labels: np.ndarray, seed: int, repeat: int, epoch: int
) -> None:
    order = Order(OrderSettings(balanced=True, repeat=repeat), len(labels), 1, seed, labels=labels)
    samples, classes = order.samples(epoch), len(set(labels.tolist()))
    assert len(set(samples.tolist())) == len(samples) == order.size
    assert order.size == repeat * classes * np.bincount(labels).max()
    rounds = labels[samples % len(labels)].reshape(-1, classes)
    assert all(len(set(found)) == classes for found in rounds.tolist())


@given(labels=labels_of_videos, seed=seeds)
def test_balanced_videos_of_a_class_take_turns(labels: np.ndarray, seed: int) -> None:
    samples = Order(OrderSettings(balanced=True), len(labels), 1, seed, labels=labels).samples(0)
    videos = samples % len(labels)
    times = Counter(videos.tolist())
    assert set(times) == set(range(len(labels)))
    for label in set(labels.tolist()):
        found = [times[video] for video in np.flatnonzero(labels == label)]
        assert max(found) - min(found) <= 1
        one_class = videos[labels[videos] == label]
        for start in range(0, len(one_class) - len(found) + 1, len(found)):
            assert len(set(one_class[start : start + len(found)])) == len(found)
    for video, count in times.items():
        assert sorted(samples[videos == video] // len(labels)) == list(range(count))


def test_balanced_sets_may_be_limited() -> None:
    labels = np.arange(90) // 30
    order = Order(OrderSettings(balanced=True, limit=10), len(labels), 1, 0, labels=labels)
    assert set(order.samples(0) % 90) == set(order.chosen) and len(order.chosen) == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": -1}, "-1 is out of range.*block"),
        ({"repeat": 0}, "0 is out of range.*repeat"),
        ({"repeat": 1.5}, "1.5 is not a whole number.*repeat"),
        ({"limit": -5}, "-5 is out of range.*limit"),
        ({"last": "kept"}, 'unknown value "kept".*last.*did you mean "keep"'),
        ({"balanced": True, "block": 8}, "balanced takes each batch from all classes.*one of the two"),
    ],
)
def test_orders_that_cannot_be_meant_fail(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        read(OrderSettings, settings, "order")
