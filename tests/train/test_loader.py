"""Batches as functions of (seed, epoch, sample): any ranks, any threads, any interruption."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.batches import CLIPS, assert_same, epochs, joined, leaves, make, part, threads
from tests.train.stores import write_store
from train.augment import ClipPlan, Draws, policy
from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.clips.spec import ClipSpec
from train.clips.streams import StoreStreams
from train.hardware import AHEAD
from train.methods.coclr import CoCLRSettings
from train.order import OrderSettings
from train.reader.affine import network_input, normalise
from train.reader.shard import ShardReader
from train.sampling import Sample


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("loader") / "store", runs.VIDEOS)


def test_batch_is_what_the_plans_say(store: VideoStore) -> None:
    loader = make(store)
    batch = next(iter(loader))
    order = loader.order.samples(0)[:4]
    assert batch.index.tolist() == order.tolist()
    assert batch.labels.tolist() == [int(store.info(store.videos[index]).label[-1]) for index in order]
    assert batch.sources.tolist() == order.tolist()  # in this store each video is a recording
    assert {stream: tuple(part(batch, stream, 0).clips.shape) for stream in batch.parts} == {
        "rgb": (4, 3, 4, 16, 16),
        "flow": (4, 2, 4, 16, 16),
    }
    for row, index in enumerate(order):
        video = store.videos[index]
        info = store.info(video)
        draws, reading = Draws(5, 0, index), loader.planner.reading
        frames = np.array([info.length - 1])  # the frames that flow has, for rgb as well
        clips = reading.sampling.draw(CLIPS, Sample(0, frames, 2), draws.shared)
        streams = StoreStreams(reading.streams.values(), store.settings)
        drawn = reading.policy.sample(clips, streams, lambda _, info=info: (info.height, info.width), draws)
        for number, (clip, pixels) in enumerate(drawn):
            for stream in ("rgb", "flow"):
                plan, made = (
                    ClipPlan(video, clip.frames, reading.streams[stream], pixels[stream]),
                    part(batch, stream, number),
                )
                [read] = loader.executor.run(stream, [plan], (16, 16))
                assert torch.equal(made.clips[row], read)
                assert np.array_equal(made.affine[row].numpy(), plan.pixels.colour)
    for stream in ("rgb", "flow"):
        first, second = batch.views(stream)
        assert torch.equal(first, normalise(part(batch, stream, 0).clips, part(batch, stream, 0).affine))
        assert first.dtype == torch.float32 and not torch.equal(first, second)
    loader.close()


def test_what_ranks_send_each_other_is_bytes(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the same network input, bit for bit, also where other ranks have a colour for every frame."""
    loader = make(store)
    batch = loader.load(0)
    loader.close()
    [alone] = batch.to_send("rgb", 1)
    monkeypatch.setattr("train.batches.batch.world_size", lambda: 2)
    for stream, channels in (("rgb", 3), ("flow", 2)):
        assert part(batch, stream, 1).affine.shape == (4, 1, channels, channels + 1)
        clips, affine = batch.to_send(stream, 1)
        assert (
            clips.dtype == torch.uint8
            and clips.shape == (4, 4, 16, 16, channels)
            and affine.shape == (4, 4, channels, channels + 1)
        )
        assert torch.equal(network_input(clips, affine), batch.view(stream, 1))
    assert torch.equal(network_input(alone), batch.view("rgb", 1))


def test_every_epoch_uses_each_video_once_in_another_order(store: VideoStore) -> None:
    loader = make(store)
    assert len(loader) == 3
    used = [[batch.index.tolist() for batch in loader] for _ in range(3)]
    flat = [sum(batches, []) for batches in used]
    assert [len(batches) for batches in used] == [3, 3, 3]
    assert all(len(set(videos)) == len(videos) == 12 and set(videos) < set(range(13)) for videos in flat)
    assert len({tuple(videos) for videos in flat}) == 3
    assert all(sorted(loader.order.samples(epoch)) == list(range(13)) for epoch in range(5))
    # The video that is left over is another one in other epochs, so that none is never seen.
    assert len({int(loader.order.samples(epoch)[-1]) for epoch in range(20)}) > 5
    loader.close()


def test_epochs_and_seeds_differ_in_frames_and_pixels_of_the_same_video(store: VideoStore) -> None:
    def sample(seed: int, epoch: int) -> dict[str, torch.Tensor]:
        loader = make(store, seed=seed, batch=13)
        [place] = np.flatnonzero(loader.order.samples(epoch) == 7)
        batch = loader.load(epoch)
        loader.close()
        return {name: tensor[place] for name, tensor in leaves(batch).items()}

    one, again, other_epoch, other_seed = sample(0, 0), sample(0, 0), sample(0, 1), sample(1, 0)
    assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (other_epoch, other_seed):
        assert one["index"] == other["index"]
        for name in ("clips.rgb.0", "clips.flow.1", "affine.rgb.0", "affine.flow.1"):
            assert not torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_same_batches(store: VideoStore, ranks: int) -> None:
    alone = epochs(make(store), 2)
    slices = [epochs(make(store, rank=rank, world_size=ranks), 2) for rank in range(ranks)]
    assert all(len(batch.index) == 4 // ranks for batches in slices for batch in batches)
    assert_same(alone, [joined(list(parts)) for parts in zip(*slices, strict=True)])


def test_threads_do_not_change_batches(store: VideoStore) -> None:
    assert_same(epochs(make(store), 2), epochs(make(store, threads=2), 2))


def test_one_stream_has_the_clips_of_both(store: VideoStore) -> None:
    """RGB alone shows the frames and windows that it shows beside flow, so that networks of either see the same."""
    both, alone = epochs(make(store), 1), epochs(make(store, reads={"rgb": (0, 1)}), 1)
    for one, two in zip(both, alone, strict=True):
        assert set(two.parts) == {"rgb"}
        for name, tensor in leaves(two).items():
            assert torch.equal(leaves(one)[name], tensor)


def test_clips_that_a_method_does_not_look_at_are_not_read(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CoCLR reads: the other stream's second clip, with the frames, windows and colours that it has beside the
    first. No frame of a sample is read twice."""
    whole = epochs(make(store, policy=policy("coclr")), 1)
    read: list[tuple[str, str, int]] = []
    each = ShardReader.each

    def counting(reader: ShardReader, video_id: str, view: str, frames: Any) -> Any:
        read.extend((video_id, view, number) for number in frames)
        return each(reader, video_id, view, frames)

    monkeypatch.setattr(ShardReader, "each", counting)
    reads = CoCLRSettings(stream="rgb", sampler={"stream": "flow"}).reads
    loader = make(store, policy=policy("coclr"), reads=reads)
    part = epochs(loader, 1)
    plans = [loader.planner.plans(int(sample), 0) for sample in loader.order.samples(0)[: 4 * len(loader)]]
    shown = [sample[number][view] for sample in plans for view, numbers in reads.items() for number in numbers]
    wanted = {(plan.video_id, plan.stream.view, int(frame)) for plan in shown for frame in plan.frames}
    assert sorted(read) == sorted(wanted) and len(read) < sum(len(plan.frames) for plan in shown)
    for one, two in zip(whole, part, strict=True):
        missing = {"clips.flow.0", "affine.flow.0"}
        assert leaves(two).keys() == leaves(one).keys() - missing
        assert all(torch.equal(leaves(one)[name], tensor) for name, tensor in leaves(two).items())
        [flow] = two.views("flow")
        assert torch.equal(flow, one.view("flow", 1)) and torch.equal(flow, two.view("flow", 1))


@pytest.mark.parametrize("done", [1, 2, 3, 4, 6])
def test_position_is_kept_in_mid_epoch(store: VideoStore, done: int) -> None:
    whole = epochs(make(store), 3)
    first = make(store)
    seen: list[Batch] = []
    while len(seen) < done:
        for batch in first:
            seen.append(batch)
            if len(seen) == done:
                break
    state = first.state_dict()
    first.close()
    assert state == {"delivered": done}
    second = make(store)
    second.load_state_dict(state)
    rest = [batch for _ in range(3 - done // 3) for batch in second]
    second.close()
    assert_same(whole, seen + rest)


ORDERS = {
    "last kept": OrderSettings(last="keep"),
    "repeated blocks": OrderSettings(block=2, repeat=2, last="keep"),
    "balanced": OrderSettings(balanced=True),
    "limited": OrderSettings(limit=6, repeat=3, last="keep"),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
def test_position_is_kept_on_another_number_of_ranks(store: VideoStore, order: OrderSettings) -> None:
    """One process stops in the second epoch, two go on, with the clips that it would have come to."""
    given: dict[str, Any] = {"order": order, "batch": 4, "videos": store.videos[:10]}
    whole = epochs(make(store, **given), 2)
    first = make(store, **given)
    done = len(list(first)) + 1
    seen = [next(iter(first))]
    state = first.state_dict()
    first.close()
    assert state == {"delivered": done}
    parts: list[list[Batch]] = []
    for rank in range(2):
        loader = make(store, rank=rank, world_size=2, **given)
        loader.load_state_dict(state)
        parts.append(epochs(loader, 1))
    assert_same(whole[done - 1 :], seen + [joined(list(both)) for both in zip(*parts, strict=True)])


def test_the_last_batch_is_given_when_asked_for(store: VideoStore) -> None:
    loader = make(store, order=OrderSettings(last="keep"))
    assert len(loader) == 4
    batches = epochs(loader, 2)
    assert [len(batch.index) for batch in batches] == [4, 4, 4, 1] * 2
    for epoch in (batches[:4], batches[4:]):
        assert sorted(torch.cat([batch.index for batch in epoch]).tolist()) == list(range(13))


def test_repeated_videos_show_other_frames_and_pixels(store: VideoStore) -> None:
    loader = make(store, batch=13, order=OrderSettings(repeat=2))
    first, second = epochs(loader, 1)
    assert sorted(first.index.tolist()) == sorted(second.index.tolist()) == list(range(13))
    again = {int(index): row for row, index in enumerate(second.index)}
    for row, index in enumerate(first.index.tolist()):
        assert first.sources[row] == second.sources[again[index]]
        for stream in ("rgb", "flow"):
            assert not torch.equal(part(first, stream, 0).clips[row], part(second, stream, 0).clips[again[index]])
    # The first time is that of an epoch without repetitions.
    assert_same([first], epochs(make(store, batch=13), 1))


def test_batches_in_preparation_are_not_counted_nor_lost(store: VideoStore) -> None:
    """An iteration that is given up delivers what it delivered; the next one goes on behind it, to the epoch's end."""
    whole = epochs(make(store), 1)
    loader = make(store)
    first = next(iter(loader))
    assert loader.state_dict() == {"delivered": 1}
    assert_same(whole, [first, *loader])
    loader.close()


def test_reading_ahead_ends_with_the_epoch(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    load = ClipLoader.load

    def counted(self: ClipLoader, number: int) -> Batch:
        asked.append(number)
        return load(self, number)

    monkeypatch.setattr(ClipLoader, "load", counted)
    loader = make(store)
    for batch in loader:
        assert max(asked) <= loader.delivered + AHEAD
        assert len(batch.index) == 4
    assert sorted(asked) == [0, 1, 2]  # several are made at once
    assert loader.waited > 0
    assert sum(1 for _ in loader) == 3
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]
    loader.close()


@pytest.mark.parametrize(("streams", "ahead"), [(("rgb",), 1), (("rgb", "flow"), AHEAD)])
def test_memory_is_that_of_those_ahead_and_one_more(
    store: VideoStore, monkeypatch: pytest.MonkeyPatch, streams: tuple[str, ...], ahead: int
) -> None:
    """Counted whenever the making of another one begins; those that are being made are counted too."""
    made: list[weakref.ref[Batch]] = []
    alive: list[int] = []
    begun = 0
    load, lock = ClipLoader.load, threading.Lock()

    def counted(self: ClipLoader, number: int) -> Batch:
        nonlocal begun
        with lock:
            begun += 1
            alive.append(sum(batch() is not None for batch in made) + begun - len(made))
        batch = load(self, number)
        with lock:
            made.append(weakref.ref(batch))
        return batch

    monkeypatch.setattr(ClipLoader, "load", counted)
    loader = make(store, batch=2, reads=dict.fromkeys(streams, (0, 1)))
    loader.ahead = ahead
    iterator, delivered = iter(loader), 0
    while (batch := next(iterator, None)) is not None:
        channels = sum({"rgb": 3, "flow": 2}[stream] for stream in streams)
        taken = sum(part(batch, stream, number).clips.nbytes for stream in streams for number in (0, 1))
        assert taken == 2 * 2 * 4 * 16 * 16 * channels
        delivered += 1
        del batch
    loader.close()
    assert delivered == len(made) == 6
    assert max(alive) <= ahead + 1


def test_iterations_that_end_early_leave_no_threads(store: VideoStore) -> None:
    before = threads()
    loader = make(store, threads=2)
    for _ in range(3):
        iterator = iter(loader)
        next(iterator)
        iterator.close()  # type: ignore[attr-defined]
    assert not {thread for thread in threads() - before if thread.name.startswith("clips")}
    loader.close()
    assert threads() == before


def test_clips_of_extracted_videos(synthetic_store: VideoStore) -> None:
    """What the pipeline wrote, with labels, recordings and both views, without a hand in between."""
    videos = [video for video, info in synthetic_store.infos.items() if info.split == "train"]
    loader = make(synthetic_store, videos=videos, batch=3, clips=ClipSpec(length=4, stride=4, size=(24, 32)))
    seen = list(loader)
    loader.close()
    assert len(seen) == 3
    labels = [synthetic_store.classes[label] for batch in seen for label in batch.labels.tolist()]
    assert labels == [synthetic_store.info(videos[index]).label for batch in seen for index in batch.index.tolist()]
    for batch in seen:
        flow = batch.views("flow")[0]
        assert flow.shape == (3, 2, 4, 24, 32) and torch.isfinite(flow).all() and flow.std() > 0
