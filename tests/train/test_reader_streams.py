"""Clips on their way from a reader's stream to a network's; without a GPU stand-ins note what is done, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH
from train import reader, stage_data
from train.reader import dali
from train.reader.planes import Planes
from train.reader.streams import CopyStream, used_here
from train.stage_data import training_set_of


class Noted:
    """In torch.cuda's place."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def Stream(self, device: int) -> str:
        return f"stream of {device}"

    def Event(self, blocking: bool) -> SimpleNamespace:
        assert blocking
        record = lambda stream: self.said.append(f"event on {stream}")  # noqa: E731
        return SimpleNamespace(record=record, synchronize=lambda: self.said.append("waited"))

    @contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self.said.append(f"on {stream}")
        yield
        self.said.append("off")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted()
    for name in ("Stream", "Event", "stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(noted, name))
    return noted


def test_clips_are_copied_on_a_stream_of_their_own_and_waited_for_alone(noted: Noted) -> None:
    stream, items = CopyStream(1), torch.arange(6.0).view(3, 2)
    expected = items.clone()
    with stream.entered():
        copied = stream.copied(items)
        items.zero_()  # as DALI does with its memory
        stream.wait()
    assert torch.equal(copied, expected)
    assert noted.said == ["on stream of 1", "event on stream of 1", "waited", "off"]


def test_without_a_gpu_nothing_is_copied() -> None:
    stream, items = CopyStream(None), torch.arange(6.0).view(3, 2)
    with stream.entered():
        assert stream.copied(items) is items
        stream.wait()


def test_every_batch_is_told_to_be_used_by_the_stream_of_the_network(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Tensor] = []
    monkeypatch.setattr("train.batches.loader.used_here", lambda tensor: used.append(tensor) or tensor)
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH)
    [stage] = recipe.stages
    loader = stage_data.make_loader(recipe, stage, store, training_set_of(recipe, stage, store), runs.HARDWARE)
    clips = [part.clips for batch in loader for parts in batch.parts["rgb"].values() for part in parts]
    loader.close()
    assert clips and all(any(one is tensor for tensor in used) for one in clips)


def test_what_is_on_no_gpu_is_used_as_it_is() -> None:
    tensor = torch.zeros(2)
    assert used_here(tensor) is tensor


def test_what_a_gpus_decoder_is_told_are_settings_of_dali(
    store: VideoStore, monkeypatch: pytest.MonkeyPatch, on_cpu: None
) -> None:
    """DALI itself refuses names that its decoder does not have, also where there is no GPU."""
    executor, given = reader.create("dali", store, 1, decoder_load=0.9, preallocate=[64, 80]), {}
    executor.close()
    image = dali.fn.decoders.image
    monkeypatch.setattr(dali.fn.decoders, "image", lambda streams, **settings: image(streams, **given | settings))
    with dali.Pipeline(1, 1, 0) as made:
        dali._define_decoding(made, Planes(1, 3, []), executor.decoding)
        given["hw_loads"] = 0.9
        with pytest.raises(KeyError, match="hw_loads"):
            dali._define_decoding(made, Planes(1, 3, []), executor.decoding)
    assert executor.decoding == {
        "hw_decoder_load": 0.9,
        "preallocate_height_hint": 64,
        "preallocate_width_hint": 80,
    }


@pytest.mark.gpu
def test_on_a_gpu_two_users_of_one_reader_get_the_clips_of_one(store: VideoStore) -> None:
    """Behind work that keeps the network's stream busy: nothing waits for it, and no memory is given away twice."""
    from concurrent.futures import ThreadPoolExecutor

    from tests.train.oracle import SIZE, clip_plan

    executor = reader.create("dali", store, threads=2)
    plans = [clip_plan(video, range(4)) for video in store.videos]
    expected = executor.run("rgb", plans, SIZE).clone()
    busy = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            for _ in range(20):
                busy = busy @ busy / 64
            torch.cuda.set_sync_debug_mode("error")
            try:
                made = list(pool.map(lambda _: executor.run("rgb", plans, SIZE), range(4)))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            sums = [(used_here(clips) != expected).sum() for clips in made]
            del made
            assert sum(sums).item() == 0
    executor.close()
