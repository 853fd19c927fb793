"""Writes the synthetic data set as H.264 files; safe to repeat."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline import storage
from pipeline.errors import Refusal, UsageError
from pipeline.synthetic.scene import CLASSES, truth, video
from pipeline.video import mp4

# Part of what a file says about itself: raise it whenever the same seed gives other pixels.
_GENERATOR_VERSION = 2
_SPLITS = ("train", "test")
# Encoding one video of 48 frames of 84x112 takes 14 ms with ultrafast and 33 ms with veryfast, and the faster one also
# stays closer to the frames (4.5 against 4.8 grey levels), for files 2.5 times as large (104 against 41 kB).
# Colour at full size: halved chroma takes away what a small network learns from RGB frames of this size.
_PIXELS = "yuv444p"
_ENCODER = {"preset": "ultrafast", "crf": "18", "threads": "1"}


@dataclass(frozen=True)
class _Task:
    """One video to make."""

    path: Path
    class_name: str
    seed: tuple[int, ...]
    frames: int
    height: int
    width: int
    truth: Path | None

    @property
    def comment(self) -> str:
        """What the file says about itself; equal for equal pixels only."""
        seed = ".".join(str(number) for number in self.seed)
        shape = f"{self.frames} frames of {self.height}x{self.width}"
        return f"costream synthetic video, version {_GENERATOR_VERSION}: {self.class_name}, seed {seed}, {shape}"


def generate(
    folder: Path,
    train_per_class: int = 80,
    test_per_class: int = 15,
    seed: int = 1,
    workers: int = 2,
    frames: int = 48,
    height: int = 84,
    width: int = 112,
    progress: Callable[[int, int], None] | None = None,
    truth: Path | None = None,
) -> int:
    """Writes `folder/train/<class>/<class>_0001.mp4` ... and `folder/test/...` and returns how many files it wrote.

    Pixels are a function of seed, split, class, number and frame size alone, whatever the number of workers
    (processes). Finished files that are there already are kept, and unreadable ones are made again, so a stopped run is
    completed by repeating the call. `truth`: folder for the sprites' masks and key points, as `<split>/<class>/...npz`,
    which the views segmentation and pose take (`scene.truth`; `pipeline.people.files`). `progress(done, total)` is
    called first with the number of files kept, then after every file.

    Raises UsageError for settings that cannot be meant, and Refusal if the folder holds videos of another data set or
    of other settings, or if writing fails; what is finished by then stays.
    """
    folder = Path(folder)
    _check_settings(train_per_class, test_per_class, seed, workers, frames, height, width)
    tasks = [
        _Task(
            folder / split / name / f"{name}_{number:04d}.mp4",
            name,
            (seed, split_index, class_index, number),
            frames,
            height,
            width,
            truth and truth / split / name / f"{name}_{number:04d}.npz",
        )
        for split_index, (split, count) in enumerate(zip(_SPLITS, (train_per_class, test_per_class), strict=True))
        for class_index, name in enumerate(CLASSES)
        for number in range(1, count + 1)
    ]
    _refuse_foreign_videos(folder, tasks)
    missing = [task for task in tasks if not _is_finished(task)]
    kept = len(tasks) - len(missing)

    def report(made: int) -> None:
        if progress:
            progress(kept + made, len(tasks))

    report(0)
    if missing:
        _make_all(missing, workers, report)
    return len(missing)


def write_mp4(path: Path, frames: np.ndarray, fps: int = 25, comment: str = "") -> None:
    """Writes frames (F, H, W, 3) uint8 RGB as H.264 in an MP4 file, whole or not at all; folders above it are made.

    `comment` goes into the container's metadata. Raises ValueError for frames of another kind, and OSError.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
    encoded = io.BytesIO()
    mp4.encode(encoded, [frames], fps, _PIXELS, _ENCODER, comment)
    storage.write_atomically(Path(path), encoded.getvalue())


def _check_settings(
    train_per_class: int, test_per_class: int, seed: int, workers: int, frames: int, height: int, width: int
) -> None:
    least = {
        "train_per_class": (train_per_class, 0),
        "test_per_class": (test_per_class, 0),
        "seed": (seed, 0),
        "workers": (workers, 1),
        "frames": (frames, 1),
        "height": (height, 16),
        "width": (width, 16),
    }
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise UsageError(f"{name} is {value}", where="synthetic data set", remedy=f"at least {smallest}")
    if train_per_class + test_per_class == 0:
        raise UsageError("no videos are asked for", remedy="give train_per_class or test_per_class above 0")


def _refuse_foreign_videos(folder: Path, tasks: list[_Task]) -> None:
    """Only the data set that is asked for may come out, so other videos may not lie where its readers look."""
    if folder.exists() and not folder.is_dir():
        raise Refusal(
            "the synthetic data set needs a folder, and this is a file", where=str(folder), remedy="give another path"
        )
    wanted = {task.path for task in tasks}
    foreign = sorted(path for split in _SPLITS for path in (folder / split).rglob("*.mp4") if path not in wanted)
    if foreign:
        raise Refusal(
            f"the folder holds {len(foreign)} videos that do not belong to the synthetic data set asked for",
            where=str(foreign[0]),
            remedy="give an empty folder, or the number of videos that this one was made with",
        )


def _is_finished(task: _Task) -> bool:
    """Whether the files are there and of these settings; Refusal for a video of other settings or origin."""
    if not task.path.is_file():
        return False
    try:
        with av.open(str(task.path)) as container:
            comment = container.metadata.get("comment")
    except av.FFmpegError:  # cut short or no video: made again
        return False
    # The comment is the last thing in the file: one that still opens without its last bytes has none.
    if comment == task.comment:
        return not task.truth or task.truth.is_file()
    raise Refusal(
        f"the folder holds a video made otherwise ({comment or 'not by costream, or cut short'});"
        f" wanted: {task.comment}",
        where=str(task.path),
        remedy="give an empty folder, or the settings that this one was made with, or delete it",
    )


def _make_all(tasks: list[_Task], workers: int, report: Callable[[int], None]) -> None:
    """Makes the videos in worker processes and reports their number after each; leaves no process behind."""
    # Forking a process that runs threads (torch's, OpenCV's) can deadlock the child, so workers are spawned.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=spawn, initializer=_start_worker) as pool:
        # Not pool.map: it cancels what is left when a worker dies, while the pool's own thread marks the same videos as
        # failed; that thread then dies of an InvalidStateError, and the other workers live on and block the exit.
        made = [pool.submit(_make, task) for task in tasks]
        try:
            for count, future in enumerate(as_completed(made), start=1):
                future.result()
                report(count)
        except BrokenProcessPool as error:
            raise Refusal(
                "a process that makes synthetic videos died",
                where=str(tasks[0].path.parents[2]),
                remedy="see whether memory ran out; repeat the command, with fewer workers: finished videos are kept",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group: the parent alone deals with it, and lets workers finish their files.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A pool's workers wait for ever for work from a parent that was killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # runs in workers only
    parent.join()
    os._exit(1)


def _make(task: _Task) -> None:
    frames = video(task.class_name, task.seed, task.frames, task.height, task.width)
    with storage.writing("a synthetic video", task.path, f"{storage.MAKE_ROOM}: finished videos are kept"):
        if task.truth:  # first: a video that is there is finished
            _write_truth(task.truth, task)
        write_mp4(task.path, frames, comment=task.comment)


def _write_truth(path: Path, task: _Task) -> None:
    masks, points = truth(task.class_name, task.seed, task.frames, task.height, task.width)
    content = io.BytesIO()
    np.savez_compressed(content, maps=masks, keypoints=points)
    storage.write_atomically(path, content.getvalue())
