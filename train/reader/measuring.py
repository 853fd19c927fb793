"""Which executor is the faster one on this machine: measured where there is a GPU, told, and kept for the next run.

Pixels of the two differ by what nvJPEG rounds otherwise, so a run that is continued must find the same answer again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from pipeline import environment, storage
from pipeline.store import VideoStore
from train.augment import ClipPlan
from train.augment.plans import Pixels
from train.clips.streams import Stream
from train.console import tell

VIDEOS, FRAMES, BATCHES = 32, 16, 3  # of a batch; the first batch of each executor does not count
SIZE = (112, 112)
WINDOW = (0.1, 0.1, 0.8, 0.8)
SOFTWARE = ("torch", "nvidia-dali-cuda130", "opencv-contrib-python", "costream")


def fastest(store: VideoStore, threads: int) -> str:
    """The name of an executor. Without a GPU OpenCV's, which needs none; without DALI too, which is told."""
    if not torch.cuda.is_available():
        return "opencv"
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        tell("reader: opencv; DALI, which decodes on the GPU, is not installed (pip install nvidia-dali-cuda130)")
        return "opencv"
    where, key = kept_in(), _key(store, threads)
    known = _known(where)
    if key not in known:
        known[key] = measured(store, threads, ("opencv", "dali"))
        storage.make_folder(where.parent)
        storage.write_atomically(where, json.dumps(known, indent=1).encode())
    rates = known[key]
    name = max(rates, key=lambda one: rates[one])
    shown = ", ".join(f"{one} {rate:,.0f}" for one, rate in rates.items())
    tell(f"reader: {name}, by frames a second on this machine: {shown} (kept in {where}; --hardware.reader chooses)")
    return name


def kept_in() -> Path:
    """The file of what was measured."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "costream", "readers.json")


def measured(store: VideoStore, threads: int, names: tuple[str, ...]) -> dict[str, float]:
    """Frames a second of each executor, on a few batches of the store's videos, in turn, with nothing beside them."""
    from train.reader import EXECUTORS  # which is told of this module

    videos = store.videos
    chosen = [videos[int(place)] for place in np.linspace(0, len(videos) - 1, VIDEOS)]
    view = store.views[0]
    executors = {name: EXECUTORS.create(name, store=store, threads=threads) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    try:
        for _ in range(BATCHES):
            for name, executor in executors.items():
                began = time.perf_counter()
                executor.run(view, [_plan(store, view, video) for video in chosen], SIZE)
                seconds[name].append(time.perf_counter() - began)
    finally:
        for executor in executors.values():
            executor.close()
    return {name: VIDEOS * FRAMES / min(spent[1:]) for name, spent in seconds.items()}


def _plan(store: VideoStore, view: str, video: str) -> ClipPlan:
    """The beginning of a video; of one that is too short its first frame again and again."""
    frames = np.arange(FRAMES)
    frames[frames >= store.shape(video, view)[0]] = 0
    pixels = Pixels(WINDOW, flip=False, colour=np.zeros((1, 0, 0), np.float32))
    return ClipPlan(video, frames, Stream(view, view, "", SIZE), pixels)


def _key(store: VideoStore, threads: int) -> str:
    versions = [f"{name} {environment.version(name)}" for name in SOFTWARE]
    shape = store.shape(store.videos[0], store.views[0])[1:]
    return ", ".join([torch.cuda.get_device_name(), f"{threads} threads", f"frames of {shape}", *versions])


def _known(where: Path) -> dict[str, dict[str, float]]:
    """What was measured before; nothing if the file cannot be read as what `fastest` writes."""
    try:
        known = json.loads(storage.read_regular(where))
        return {str(key): {str(name): float(rate) for name, rate in rates.items()} for key, rates in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
