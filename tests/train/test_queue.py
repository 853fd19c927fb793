"""The queue of keys."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pipeline.errors import Refusal
from train.networks.queue import Queue, check_length


def keys(count: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_starts_as_random_unit_rows_that_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = Queue(8, 4)
    torch.manual_seed(3)
    second = Queue(8, 4)
    torch.testing.assert_close(first.features.norm(dim=1), torch.ones(8))
    assert torch.equal(first.features, second.features)
    assert first.pointer == 0


def test_oldest_keys_are_overwritten_in_turn() -> None:
    queue = Queue(6, 4)
    expected = queue.features.clone()
    for step in range(7):
        queue.enqueue(keys(2, step))
        slot = 2 * (step % 3)
        expected[slot : slot + 2] = keys(2, step)
        assert torch.equal(queue.features, expected)
        assert queue.pointer == (slot + 2) % 6


def test_a_copy_restores_exactly() -> None:
    queue, copy = Queue(6, 4), Queue(6, 4)
    queue.enqueue(keys(2, 0))
    copy.load_state_dict(queue.state_dict())
    for both in (queue, copy):
        both.enqueue(keys(2, 1))
    assert all(torch.equal(copy.state_dict()[name], tensor) for name, tensor in queue.state_dict().items())
    assert set(queue.state_dict()) == {"features", "labels", "sources", "filled", "pointer"}


def test_each_slot_knows_its_label_its_source_and_whether_it_is_filled() -> None:
    queue = Queue(6, 4)
    assert not queue.full and (queue.labels == -1).all() and (queue.sources == -1).all()
    queue.enqueue(keys(2, 0), labels=torch.tensor([7, 8]), sources=torch.tensor([1, 2]))
    queue.enqueue(keys(2, 1), sources=torch.tensor([3, 3]))
    assert queue.labels.tolist() == [7, 8, -1, -1, -1, -1]
    assert queue.sources.tolist() == [1, 2, 3, 3, -1, -1]
    assert queue.filled.tolist() == [True] * 4 + [False] * 2 and not queue.full
    queue.enqueue(keys(2, 2))
    assert queue.full
    queue.enqueue(keys(2, 3))
    assert queue.full and queue.labels.tolist() == [-1] * 6 and queue.sources.tolist() == [-1, -1, 3, 3, -1, -1]


def test_a_queue_is_as_full_as_the_one_it_was_loaded_from() -> None:
    empty, full = Queue(2, 4), Queue(2, 4)
    full.enqueue(keys(2, 0))
    assert full.full
    full.load_state_dict(empty.state_dict())
    assert not full.full


def test_keys_carry_no_gradient_and_take_the_queue_s_type() -> None:
    queue = Queue(4, 4)
    queue.enqueue(keys(2, 0).double().requires_grad_())
    assert queue.features.dtype == torch.float32
    assert not queue.features.requires_grad


@pytest.mark.parametrize("batch", [4, 12])
def test_a_batch_that_does_not_divide_the_queue_fails(batch: int) -> None:
    queue = Queue(6, 4)
    before = queue.features.clone()
    with pytest.raises(Refusal, match=rf"queue of 6 keys.*batch of {batch}"):
        check_length(6, batch)
    with pytest.raises(Refusal, match=rf"queue of 6 keys.*batch of {batch}"):
        queue.enqueue(keys(batch, 0))
    assert torch.equal(queue.features, before)
    assert queue.pointer == 0
