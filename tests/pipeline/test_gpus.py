"""Extraction on GPUs: a process for each, several videos at once in it. Without GPUs, estimators stand in for them."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import flow, importers, synthetic
from pipeline.commands.extract import print_estimate
from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.extraction.estimate import estimate
from pipeline.extraction.run import extract
from pipeline.extraction.workers import admission, dispatch
from pipeline.extraction.workers.cluster import workers_for_extraction
from pipeline.extraction.workers.gpus import MOST_THREADS, visible_gpus
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.flow.gathering import Gathering
from pipeline.manifest import Video
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import add_groups, create_store
from pipeline.video.decode import OpenVideo, decode
from pipeline.views.flow import FLOW, FlowExtractor, FlowSettings
from pipeline.views.rgb import RgbExtractor, RgbSettings
from tests.patience import PATIENCE
from tests.pipeline.fake_gpu import FakeGPU, batches, fake_gpus, plain_store, settings
from tests.pipeline.reference import content, run_here


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [
        (None, 3, ["0", "1", "2"]),
        (None, 0, []),
        ("", 0, []),
        ("-1", 0, []),
        ("2,0", 2, ["2", "0"]),
        ("0, 1,7,2", 2, ["0", "1"]),  # there is no GPU 7: CUDA ignores it and what follows
        ("GPU-8932f937,GPU-1f00", 2, ["GPU-8932f937", "GPU-1f00"]),
        ("MIG-a,MIG-b,MIG-c", 1, ["MIG-a", "MIG-b", "MIG-c"]),  # a process sees one slice
    ],
)
def test_each_visible_gpu_is_named_as_its_process_will_see_it(
    named: str | None, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("videos", "processes", "threads"), [(1, 1, [2]), (200, 1, [MOST_THREADS] * 2), (7, 2, [2, 2, 2, 2])]
)
def test_every_gpu_has_its_processes_and_those_see_no_other(videos: int, processes: int, threads: list[int]) -> None:
    names = sorted((["GPU-one", "GPU-two"] * processes)[: len(threads)])
    with (
        fake_gpus("GPU-one,GPU-two"),
        workers_for_extraction("", videos, SlurmSettings(), "gpus", processes) as client,
    ):
        assert sorted(client.nthreads().values()) == threads
        seen = client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()))
    assert sorted(name for name, _ in seen.values()) == names
    assert len({pid for _, pid in seen.values()}) == len(names)


def test_without_a_gpu_there_are_no_workers_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(Refusal, match="PyTorch finds none"), workers_for_extraction("", 2, SlurmSettings(), "gpus"):
        pass


def test_two_gpus_store_the_bytes_of_one_thread(synthetic_videos: Path, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    noted.mkdir()
    with fake_gpus("3,GPU-two") as patch:
        expected = content(plain_store(synthetic_videos, tmp_path / "plain"))
        patch.setenv("FAKE_GPU", str(noted))
        listed = importers.read("folder", synthetic_videos)
        summary = extract(listed, synthetic_videos, tmp_path / "store", settings(batch_size=40), workers=4)
    assert (summary.stored, summary.quarantined) == (12, {})
    assert content(tmp_path / "store") == expected
    assert {line["gpu"] for line in batches(noted)} == {"3", "GPU-two"}
    assert len(list(noted.iterdir())) == 2  # one process a GPU, and none here
    assert sum(line["pairs"] for line in batches(noted)) == 12 * 19 + 2  # each process has tried it with one pair
    assert {line["most"] for line in batches(noted)} == {40}  # which came to the workers and is no part of the store
    assert open_store(tmp_path / "store").settings["flow"]["parameters"] == {"preset": "medium"}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            "error",
            "fake-gpu computes no flow here, not even of black frames: RuntimeError: Command",
        ),
        pytest.param(
            *("death", "died of its first computation, of black frames"),
            marks=pytest.mark.remedy("says where flow is computed on a GPU; or take another FLOW="),
        ),
        pytest.param(
            *("death by videos", "2 worker processes died one after the other, and no video was stored"),
            marks=pytest.mark.remedy("leave them out of the manifest, and run the same command again"),
        ),
    ],
)
def test_a_gpu_that_computes_nothing_is_no_fault_of_the_videos(
    fault: str, told: str, synthetic_videos: Path, tmp_path: Path
) -> None:
    videos, store = tmp_path / "videos", tmp_path / "store"
    shutil.copytree(synthetic_videos / "test", videos)
    synthetic.write_mp4(videos / "black.mp4", np.zeros((3, 48, 64, 3), np.uint8))
    listed = importers.read("folder", videos)
    others, black = listed.rows[1:], listed.rows[:1]
    with fake_gpus("0") as patch:
        patch.setenv("FAKE_GPU_FAULT", fault)
        patch.setattr(dispatch, "FRUITLESS", -1)  # deaths beside two for each worker: one is enough here
        with pytest.raises(Refusal) as refused:
            extract(replace(listed, rows=others), videos, store, settings(), workers=2)
        assert told in refused.value.what
        assert ("nvidia-smi" if fault != "death by videos" else "`dmesg` says of memory") in refused.value.remedy
        assert open_store(store).quarantine == {} and not list(store.rglob("c"))
        if fault == "death by videos":
            assert extract(replace(listed, rows=black), videos, store, settings(), workers=1).stored == 1
        else:
            assert run_here(listed, videos, store, settings("dis")).stored == 4


def test_the_dry_run_counts_gpus(synthetic_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_gpus("0,1"):
        plan = estimate(importers.read("folder", synthetic_videos), synthetic_videos, tmp_path / "store", settings())
    assert plan.gpus == 2 and plan.seconds and plan.on_gpus
    assert 0 < plan.on_gpus.value < plan.seconds.value
    print_estimate(plan, workers=9)
    assert "with 8 videos at once on 2 GPUs like this machine's" in " ".join(capsys.readouterr().out.split())


def test_workers_of_several_threads_gather_on_a_gpu_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class TwoThreads:
        state = SimpleNamespace(nthreads=2)

    monkeypatch.setattr(admission, "get_worker", TwoThreads)
    admission.require_able.cache_clear()  # a process is asked once; earlier tests may have asked this one
    with fake_gpus("0"):
        admission.require_able(json.dumps(settings().as_dict(running=True)))
        with pytest.raises(Refusal, match=r"(?s)has 2 threads\n.*to do: start workers with --nthreads 1"):
            admission.require_able(json.dumps(settings("dis").as_dict(running=True)))
    admission.require_able.cache_clear()


class Held(FakeGPU):
    """A GPU that is at work until the test lets it go on."""

    name = "held"
    begun, let_go = threading.Event(), threading.Event()

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        self.begun.set()
        assert self.let_go.wait(PATIENCE)
        return super().batch(first, second)


def test_one_video_is_decoded_and_encoded_while_the_gpu_is_at_work_on_another(
    synthetic_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = importers.read("folder", synthetic_videos).rows[:2]
    add, blocks, second_thread = RgbExtractor.add, OpenVideo.blocks, threading.local()
    encoded = threading.Event()

    def watched(video: OpenVideo, *arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        if video.path == synthetic_videos / rows[1].path:
            assert Held.begun.wait(PATIENCE)
            second_thread.here = True
        return blocks(video, *arguments, **options)

    def watched_add(view: RgbExtractor, frames: np.ndarray) -> list[np.ndarray]:
        streams = add(view, frames)
        if hasattr(second_thread, "here"):
            encoded.set()
        return streams

    monkeypatch.setattr(OpenVideo, "blocks", watched)
    monkeypatch.setattr(RgbExtractor, "add", watched_add)
    monkeypatch.setitem(flow.ESTIMATORS, "held", "tests.pipeline.test_gpus:Held")
    chosen = settings("held")
    create_store(tmp_path / "store", chosen)
    add_groups(tmp_path / "store", [row.video_id for row in rows])

    def work(row: Video) -> job.Outcome:
        return job.extract_video(str(synthetic_videos), str(tmp_path / "store"), row, chosen.as_dict(running=True))

    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(work, row) for row in rows]
        assert encoded.wait(PATIENCE)
        assert not any(outcome.done() for outcome in outcomes)
        Held.let_go.set()
        assert [outcome.result(PATIENCE).status for outcome in outcomes] == ["stored"] * 2


def test_all_threads_of_a_process_share_one_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    created, begin = [], threading.Barrier(4)
    create = flow.create

    def watched(name: str, **parameters: Any) -> flow.FlowEstimator:
        created.append(name)
        return create(name, **parameters)

    def view(_: int) -> FlowExtractor:
        begin.wait(PATIENCE)
        return FlowExtractor(chosen)

    with fake_gpus("0"), ThreadPoolExecutor(4) as pool:
        chosen = FlowSettings(estimator="fake-gpu").resolved()
        monkeypatch.setattr(flow, "create", watched)
        views = list(pool.map(view, range(4)))
        assert FLOW.on_gpu(chosen)
    assert created == ["fake-gpu"]
    assert len({id(view.estimator) for view in views}) == 1
    assert isinstance(views[0].estimator, Gathering)


def test_flow_on_a_cpu_is_not_gathered() -> None:
    chosen = FlowSettings(estimator="dis").resolved()
    assert isinstance(FlowExtractor(chosen).estimator, flow.FlowEstimator)
    assert not FLOW.on_gpu(chosen)


def clip(kind: int, count: int, height: int = 64, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    frames = synthetic.video(synthetic.CLASSES[kind], 4, frames=count + 1, height=height, width=width)
    return frames[:-1], frames[1:]


@pytest.mark.gpu
def test_on_a_gpu_gathered_flow_is_that_of_tvl1_cuda_alone() -> None:
    given = [clip(n % 3, 1 + 7 * n % 20, 64, 80 if n % 4 else 96) for n in range(40)]
    gathering = Gathering(flow.create("tvl1-cuda", batch_size=48))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: gathering.estimate(*pair), given))
    alone = flow.create("tvl1-cuda")
    for pair, one in zip(given, found, strict=True):
        assert np.array_equal(one, alone.estimate(*pair))


@pytest.mark.gpu
def test_on_a_gpu_a_batch_behind_another_does_not_disturb_it() -> None:
    estimator = flow.create("tvl1-cuda", batch_size=32)
    given = [clip(n % 3, 32) for n in range(6)]
    expected = [estimator.estimate(*pair) for pair in given]
    collects = [estimator.launch(*pair) for pair in given]
    for collect, one in reversed(list(zip(collects, expected, strict=True))):
        assert np.array_equal(collect(), one)


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu_extraction_stores_the_flow_of_tvl1_cuda_alone(synthetic_videos: Path, tmp_path: Path) -> None:
    views = {"rgb": RgbSettings(), "flow": FlowSettings(estimator="tvl1-cuda", codec="zstd")}
    summary = extract(
        importers.read("folder", synthetic_videos), synthetic_videos, tmp_path / "store", ExtractionSettings(views), 4
    )
    assert (summary.stored, summary.quarantined) == (12, {})
    store, alone = open_store(tmp_path / "store"), flow.create("tvl1-cuda")
    for row in importers.read("folder", synthetic_videos).rows:
        frames = np.concatenate(list(decode(synthetic_videos / row.path)))
        expected = flow.quantise(alone.estimate(frames[:-1], frames[1:]))
        assert np.array_equal(store.read(row.video_id, "flow", slice(None)), expected)
