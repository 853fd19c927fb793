"""What a person sees of a stage, and that looking does not slow it down."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE
from train import run_folder, stages
from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.callbacks import waiting
from train.callbacks.waiting import Clocks, advice
from train.methods.infonce import InfoNCE
from train.reader import affine
from train.reader.opencv import OpenCVExecutor

READING = ("item", "tolist", "numpy", "__float__", "__int__", "__bool__")


@contextmanager
def counted_reads(counts: Counter[int], step: list[int]) -> Iterator[None]:
    """Counts, by step, how often training asks a tensor for its value, for which it would have to wait for a GPU.

    Clips are normalised as on a GPU; the threads of the reader, which have clips on the CPU, are not counted.
    """
    training = threading.get_ident()

    def counting(name: str) -> Any:
        real = getattr(Tensor, name)

        def read(tensor: Tensor, *args: Any) -> Any:
            counts[step[0]] += threading.get_ident() == training
            return real(tensor, *args)

        return read

    reading = mock.patch.multiple(Tensor, **{name: counting(name) for name in READING})
    with reading, mock.patch("train.batches.batch.normalise", affine._on_gpu):
        yield


def test_values_are_read_in_logged_steps_only(store: VideoStore, tmp_path: Path) -> None:
    """Gradient descent, because PyTorch's Adam counts its steps on the CPU and reads them there."""
    recipe = runs.load(
        tmp_path / "recipe.yaml", INFONCE, log_every=4, checkpoint_every=9, clip_gradients=1.0, accumulate=1
    )
    counts: Counter[int] = Counter()
    step = [-1]

    def look(method: InfoNCE, batch: Batch) -> None:
        step[0] = method.global_step  # until the next training step begins, reads belong to this one

    with runs.in_step(look), counted_reads(counts, step):
        runs.run(recipe, store, tmp_path / "run")
    assert [line["step"] for line in runs.lines(tmp_path / "run", "motion")] == [4, 8, 9]
    quiet = {number: counts[number] for number in (0, 1, 4, 5, 6)}
    assert not any(quiet.values()), quiet
    assert counts[3] >= counts[7] > 0, "the counter counts; the queue is read while it fills"


def test_meters_say_what_they_mean(store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2}, INFONCE | {"epochs": 1})
    runs.run(recipe, store, tmp_path / "run")
    told = capsys.readouterr().err
    for name, candidates, guessing in (("pixels", 7, "14.3"), ("motion", 9, "11.1")):
        legend = (
            f'{name}: "own clip first of {candidates}" is the share of clips that rank the other clip of their own'
            f" video first among {candidates} candidates; guessing gives {guessing} %\n"
        )
        assert told.count(legend) == 1
        [line] = [line for line in runs.lines(tmp_path / "run", name) if line["step"] == (2 if name == "pixels" else 3)]
        assert f"own clip first of {candidates}: {100 * line['contrast_top1']:.1f} %, in the first 5: " in told
        assert f" left, loss {line['loss']:.3g}, " in told
    assert " clips/s, data wait " in told


def test_nobody_else_speaks(store: VideoStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2})
    runs.run(recipe, store, tmp_path / "run")
    out, told = capfd.readouterr()
    assert out == ""
    assert all("pixels" in line for line in told.replace("\r", "\n").splitlines() if line.strip()), told


@pytest.mark.parametrize(("too_much", "warnings"), [(-1.0, 1), (1e6, 0)])
def test_waiting_for_data_is_told_once_a_stage(
    store: VideoStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    too_much: float,
    warnings: int,
) -> None:
    monkeypatch.setattr(waiting, "FILLING", 1)
    monkeypatch.setattr(waiting, "WINDOW", 2)
    monkeypatch.setattr(waiting, "TOO_MUCH", too_much)
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, batch=2, accumulate=2)
    runs.run(recipe, store, tmp_path / "run")
    told = capsys.readouterr().err
    assert told.count("the network waits for data") == told.count("to do: ") == warnings
    if warnings:
        assert "reader opencv, 1 threads" in told


def test_short_stages_are_not_judged(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "TOO_MUCH", -1.0)
    runs.run(runs.load(tmp_path / "recipe.yaml", IN_BATCH), store, tmp_path / "run")
    assert "waits for data" not in capsys.readouterr().err


def reading(on_cpu: bool = True, stored: int = 128, needed: int = 112) -> ClipLoader:
    return SimpleNamespace(  # type: ignore[return-value]
        executor=mock.Mock(spec=OpenCVExecutor) if on_cpu else object(),
        planner=SimpleNamespace(
            training_set=SimpleNamespace(
                videos=mock.MagicMock(__len__=lambda _: 3, frame_size=lambda _: (stored, 2 * stored)),
                where="/stores/mine",
            ),
            reading=SimpleNamespace(spec=SimpleNamespace(size=(needed, needed))),
        ),
    )


def passed(busy: float, others: float = 0.0, disk: float = 0.0, memory: float = 0.0, devices: int = 1) -> Clocks:
    """Ten seconds, in which so many cores were at work."""
    return Clocks(10.0, 10 * busy, 10 * (devices * busy + others), 10 * disk, 10 * memory)


@pytest.mark.remedy(
    "--hardware.threads ",
    "smaller stored frames: their short side is ",
    "--hardware.reader dali decodes on the GPU",
    told=True,
)
@pytest.mark.parametrize(
    ("loader", "threads", "devices", "busy", "gpu", "said", "unsaid"),
    [
        (reading(), 2, 1, 1.9, False, ["--hardware.threads 8"], ["disk", "dali decodes", "smaller stored"]),
        (reading(), 2, 4, 1.9, False, ["more cores: all of them"], ["--hardware.threads"]),
        (reading(), 8, 1, 0.4, False, ["a faster disk for /stores/mine: only 0.4 cores"], ["--hardware.threads"]),
        (
            reading(stored=256),
            8,
            1,
            8.0,
            False,
            ["short side is 256, the clips' 112", "--rgb.short_side 168"],
            ["disk"],
        ),
        (reading(), 8, 1, 8.0, True, ["--hardware.reader dali decodes on the GPU"], ["more cores"]),
        (reading(on_cpu=False), 8, 1, 8.0, True, ["reader dali", "more cores"], ["--hardware.reader"]),
    ],
    ids=["threads", "shared", "disk", "size", "gpu", "dali"],
)
def test_warning_says_what_to_change(
    loader: ClipLoader,
    threads: int,
    devices: int,
    busy: float,
    gpu: bool,
    said: list[str],
    unsaid: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    text = advice(loader, threads, devices, 4.31, passed(busy, disk=0.3, devices=devices))
    assert text.startswith("the network waits for data 43 % of the time")
    assert f"{threads} threads, {8 // devices} cores a device" in text
    assert all(part in text for part in said), text
    assert not any(part in text for part in unsaid), text
    if asked := re.search(r"--hardware.threads (\d+)", text):
        threads = int(asked[1])
    if asked := re.search(r"--rgb.short_side (\d+)", text):
        loader = reading(stored=int(asked[1]))
    if "--hardware.reader dali" in text:
        loader = reading(on_cpu=False)
    again = advice(loader, threads, devices, 4.31, passed(busy, disk=0.3, devices=devices))
    assert not any(option in again for option in ("--hardware.threads", "--rgb.short_side", "--hardware.reader"))


def test_warning_names_other_programs_and_says_nothing_of_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting.os, "sched_getaffinity", lambda _: set(range(8)))
    text = advice(reading(), 8, 1, 4.0, passed(0.4, others=6.5, disk=0.9, memory=0.9))
    assert "fewer other programs: they take 6.5 of the cores" in text and "disk" not in text and "memory" not in text
    text = advice(reading(), 8, 1, 4.0, passed(0.4, others=1.5, disk=0.9, memory=0.25))
    assert "more memory" in text and "25 % of the time" in text and "disk" not in text
    assert "disk" in advice(reading(), 8, 1, 4.0, passed(0.4, others=1.5, disk=0.9))
    assert advice(reading(), 8, 1, 4.0, passed(0.4)) == ""  # too little is done, and no disk is why
    assert advice(reading(), 8, 1, 4.0, passed(5.0, disk=0.9)) == ""


def test_what_programs_waited_for_is_read_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PRESSURE", tmp_path)
    assert Clocks.read().disk == 0.0
    for kind, total in (("io", 2_500_000), ("memory", 500_000)):
        text = f"some avg10=1.01 avg60=0.62 avg300=0.45 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.03 total=7\n"
        (tmp_path / kind).write_text(text)
    found = Clocks.read()
    assert (found.disk, found.memory) == (2.5, 0.5)
    assert found.since(found) == Clocks(0, 0, 0, 0, 0)


def test_profile_names_the_parts_of_a_step(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", INFONCE, batch=2, accumulate=2)
    run_folder.prepare(tmp_path / "run", recipe)
    stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE, profile=2)
    folder = tmp_path / "run" / "motion" / "profile"
    told = capsys.readouterr().err
    assert (
        f"profile of the steps 4 to 5: {folder / 'trace.json'} (for ui.perfetto.dev), {folder / 'operators.txt'}"
        in told
    )
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    ranges = [event for event in events if event.get("cat") == "user_annotation"]
    passes, steps = 4, 2
    per_name = Counter(event["name"] for event in ranges)
    expected = {"data wait": passes, "transfer": passes, "training step": passes, "backward": passes}
    expected |= {"forward": 2 * passes, "loss": 2 * passes, "optimiser": steps}  # a query's and a key's network
    assert {name: per_name[name] for name in expected} == expected

    def inside(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
        return outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]

    whole = [event for event in ranges if event["name"] == "training step"]
    parts = [event for event in ranges if event["name"] in ("forward", "loss")]
    assert all(any(inside(part, step) for step in whole) for part in parts)
    table = (folder / "operators.txt").read_text()
    assert "convolution" in table and "Self CPU" in table


def test_profile_of_a_short_stage_is_as_long_as_the_stage(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 1})
    run_folder.prepare(tmp_path / "run", recipe)
    stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE, profile=5)
    events = json.loads((tmp_path / "run" / "pixels" / "profile" / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "optimiser" for event in events if event.get("cat") == "user_annotation") == 1


def test_failure_ends_the_profile(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH)

    def fail(method: InfoNCE, batch: Batch) -> None:
        assert torch.autograd._profiler_enabled() == (method.global_step >= 3)
        if method.global_step == 4:
            raise ZeroDivisionError

    run_folder.prepare(tmp_path / "run", recipe)
    with runs.in_step(fail), pytest.raises(ZeroDivisionError):
        stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE, profile=5)
    assert not torch.autograd._profiler_enabled()
    assert not (tmp_path / "run" / "pixels" / "profile").exists()


def test_profiled_run_is_the_same_run(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH)
    runs.run(recipe, store, tmp_path / "plain")
    run_folder.prepare(tmp_path / "run", recipe)
    stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE, profile=2)
    runs.assert_same_runs(tmp_path / "plain", tmp_path / "run", "pixels")
