"""The other checks: the machine, the project's own tests, RAFT, JPEG decoders, readers, training, extraction."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import flow
from pipeline.store import VideoStore, open_store
from tests.benchmarks import flow_gpu, training
from tests.gpu.clock import DEVICE, bandwidth, busy, new_stream, timed
from tests.gpu.given import Found, Given
from tests.gpu.references import made, unpack_store
from train import recipe as recipes
from train.reader.measuring import measured

PACKAGES = ("torch", "triton", "nvidia-dali-cuda130", "opencv-contrib-python", "ptlflow", "lightning", "faiss-gpu")
TESTS = {
    "": ["tests/pipeline", "tests/train"],
    "dali": ["tests/train/test_reader.py", "tests/train/test_reader_streams.py"],
}
TINY_TESTS = ["tests/train/test_reader_streams.py"]


def machine(given: Given) -> Found:
    """Versions, and whether torch computes on the GPU at all."""
    figures: dict[str, Any] = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    for name in PACKAGES:
        try:
            figures[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            figures[name] = "not installed"
    figures["cuda"] = torch.version.cuda or "none"
    figures["device"] = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    figures["bandwidth_tb_s"] = bandwidth(given.few(1 << 28, 1 << 16))
    product = torch.ones(64, 64, device=DEVICE) @ torch.ones(64, 64, device=DEVICE)
    right = bool((product == 64).all()) and (DEVICE == "cuda" or given.tiny)
    return Found(right, f"{figures['device']}, torch {figures['torch']}, {figures['bandwidth_tb_s']:.2f} TB/s", figures)


def project_tests(given: Given, part: str = "") -> Found:
    """`pytest -m gpu`: every test must pass; one that is skipped has failed."""
    chosen = TINY_TESTS if given.tiny else TESTS[part]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", *chosen]
    environment = {**os.environ, **({} if given.tiny else {"REQUIRE_GPU": "1"})}
    run = subprocess.run(
        [*command, f"--basetemp={given.scratch / 'pytest'}"], env=environment, capture_output=True, text=True
    )
    counts = {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)", run.stdout)}
    right = (
        run.returncode == 0
        and bool(counts.get("passed") or given.tiny)
        and not (counts.get("skipped") and not given.tiny)
    )
    return Found(right, ", ".join(f"{count} {kind}" for kind, count in counts.items()), {"output": run.stdout[-6000:]})


def dali_tests(given: Given) -> Found:
    """Those of the DALI reader alone."""
    return project_tests(given, "dali")


def raft(given: Given) -> Found:
    """Pairs a second of RAFT, by pairs a batch; with random weights, which take as long."""
    from pipeline.flow import networks

    weights = given.scratch / "raft_small.ckpt"
    model = "raft_small" if given.tiny else "raft"
    torch.save({"state_dict": networks.build(model, None).state_dict()}, weights)
    figures: dict[str, float] = {}
    first, second = made((128, 171), given.few(128, 1))
    for precision in ("fp32", "fp16")[: given.few(2, 1)]:
        for batch in (8, 16, 32, 64) if not given.tiny else (1,):
            estimator = flow.create(
                model.replace("_", "-"), weights=str(weights), batch_size=batch, precision=precision,
                iterations=given.few(12, 1),
            )  # fmt: skip
            seconds = timed(lambda one=estimator: one.estimate(first, second), given.few(2, 1))  # type: ignore[misc]
            figures[f"{precision}, batches of {batch}"] = len(first) / seconds
    best = max(figures, key=lambda name: figures[name])
    return Found(None, f"fastest: {best}, {figures[best]:,.0f} pairs/s", figures)


def pictures(given: Given) -> Found:
    """JPEGs a second of each decoder, idle and beside matrix products."""
    import cv2
    from torchvision.io import decode_jpeg

    store = _store(given)
    names = store.videos[: given.few(6, 1)]
    streams = [stream for name in names for stream in store.encoded(name, "rgb", range(given.few(48, 2)))]
    tensors = [torch.from_numpy(np.asarray(stream).copy()) for stream in streams]
    decoders = {
        "OpenCV, one thread": lambda: [cv2.imdecode(np.asarray(stream), cv2.IMREAD_COLOR) for stream in streams]
    }
    if DEVICE == "cuda":
        decoders["torchvision, nvJPEG"] = lambda: decode_jpeg(tensors, device=DEVICE)
    figures: dict[str, float] = {}
    for name, work in decoders.items():
        figures[f"{name}, idle"] = len(streams) / timed(work, given.few(3, 1))
        with busy(given.few(4096, 64)):
            figures[f"{name}, beside products"] = len(streams) / timed(work, given.few(3, 1))
    return Found(None, ", ".join(f"{name}: {rate:,.0f}/s" for name, rate in figures.items()), figures)


def readers(given: Given) -> Found:
    """Frames a second of each executor with 8 and 16 threads, idle and beside matrix products."""
    store = _store(given)
    names = ("opencv", "dali")
    figures: dict[str, dict[str, float]] = {}
    for threads in (8, 16) if not given.tiny else (1,):
        figures[f"{threads} threads, idle"] = measured(store, threads, names)
        with busy(given.few(4096, 64)), new_stream():
            figures[f"{threads} threads, beside products"] = measured(store, threads, names)
    words = "; ".join(
        f"{name}: " + ", ".join(f"{executor} {rate:,.0f}" for executor, rate in row.items())
        for name, row in figures.items()
    )
    return Found(None, words, figures)


def steps(given: Given) -> Found:
    """Steps of InfoNCE on S3D, 32 videos of 2 clips, in fp32 and bf16: time, share of waiting, memory."""
    return _steps(given, ("32-true", "bf16-mixed"), compiled=False)


def compiled(given: Given) -> Found:
    """The same with torch.compile, whose first step takes minutes."""
    return _steps(given, ("bf16-mixed",), compiled=True)


def extraction(given: Given) -> Found:
    """Pairs a second of decoding, flow and encoding together, with one process a GPU and several, as it is and with all
    that waits for a verdict switched on; and the share of the time that the GPU waits."""
    estimator = "tvl1-cuda" if DEVICE == "cuda" else "dis"
    switched = {"fused": True, "streams": 2, "bytes_back": True} if DEVICE == "cuda" else {}
    arguments = argparse.Namespace(videos=given.few(160, 1), pairs=given.few(512, 4), rounds=given.few(3, 1))
    figures: dict[str, Any] = {}
    for processes, running in ((1, {}), (2, {}), (2, switched), (4, switched))[: given.few(4, 2)]:
        name = f"{processes} a GPU{', fused' if running else ''}"
        figures[name] = flow_gpu.extraction(estimator, arguments, processes, running)
    rates = {name: (row["pairs_per_second_and_gpu"], row["waiting"]) for name, row in figures.items()}
    words = ", ".join(f"{name}: {rate:,.0f} pairs/s, waits {waiting:.0%}" for name, (rate, waiting) in rates.items())
    return Found(None, words, figures)


def _steps(given: Given, precisions: tuple[str, ...], compiled: bool) -> Found:
    store = _store(given)
    recipe = recipes.load(recipes.find("small" if given.tiny else "ucf101", "infonce"))
    recipe = recipe.changed(batch=given.few(32, 2), stages=[recipe.stages[0].changed(batch=0)])
    figures: dict[str, Any] = {}
    for precision in precisions[: given.few(2, 1)]:
        for reader in ("opencv", "dali")[: given.few(2, 1)]:
            arguments = argparse.Namespace(
                reader=reader, threads=given.few(8, 1), steps=given.few(10, 1), rounds=given.few(2, 1)
            )
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = training.measure(
                    recipe.changed(precision=precision), recipe.stages[0], store, arguments, compiled
                )
            row["gib"] = torch.cuda.max_memory_allocated() / (1 << 30) if DEVICE == "cuda" else 0.0
            figures[f"{precision}, {reader}"] = row
    words = ", ".join(f"{name}: {1000 * row['step_time']:.0f} ms" for name, row in figures.items())
    return Found(None, words, figures)


def _store(given: Given) -> VideoStore:
    folder = given.scratch / "references"
    return open_store(unpack_store(given.references, folder) if not folder.exists() else Path(folder, "store"))
