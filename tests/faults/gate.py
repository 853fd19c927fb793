"""Loaded into extraction's worker processes by Dask's preload: stops or kills them in the middle of chosen videos.

Environment: GATE is a folder and GATE_VIDEO a video's name; a worker that has put 320 frames of it through writes
`held.<pid>` there, then waits for a file called `open`; with GATE_START it does so before it is a worker. DEADLY_VIDEOS
are the names of videos that kill their process, HANGING_VIDEOS of those whose next frame never comes; with DEAF no
watchdog inside the process does anything about it. HANGING_WRITES is a video's name and how many of its writes hang.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.extraction import job
from pipeline.video.decode import DecodeSettings, OpenVideo
from pipeline.video.watchdog import watching

HELD_AFTER = 320  # frames: a full shard is on the disk by then


def dask_setup(_: object) -> None:
    """Called by Dask in every worker process."""
    blocks = OpenVideo.blocks
    folder, held = Path(os.environ["GATE"]), os.environ.get("GATE_VIDEO")
    hanging = os.environ.get("HANGING_VIDEOS", "").split()
    deadly = os.environ.get("DEADLY_VIDEOS", "").split()

    def hold() -> None:
        (folder / f"held.{os.getpid()}").touch()
        while not (folder / "open").exists():
            time.sleep(0.01)

    if os.environ.get("GATE_START"):
        hold()
    if os.environ.get("DEAF"):
        job.watching = lambda seconds, _, *what: watching(seconds, lambda: None, *what)

    def watched(
        video: OpenVideo, settings: DecodeSettings, max_block: int, guard: AbstractContextManager[None]
    ) -> Iterator[np.ndarray]:
        frames, name = 0, video.path.stem
        for block in blocks(video, settings, max_block, guard):
            yield block
            frames += len(block)
            if name in hanging:
                with guard:
                    threading.Event().wait()
            if name in deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if name == held and frames >= HELD_AFTER:
                hold()

    OpenVideo.blocks = watched
    if hanging_writes := os.environ.get("HANGING_WRITES", "").split():
        name, times = hanging_writes[0], int(hanging_writes[1])
        write = storage.write

        def hang(path: Path, data: bytes) -> None:
            begun = [place for place in (folder / f"write.{number}" for number in range(times)) if not place.exists()]
            if name in path.parts and begun:
                os.mkfifo(begun[0])
                begun[0].write_bytes(data)  # nobody reads
            write(path, data)

        storage.write = hang
