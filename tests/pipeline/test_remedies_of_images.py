"""What refusals of images, flow and workers say is to be done helps: each is done here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import flow, synthetic
from pipeline.bench import pairs
from pipeline.commands import flow as flow_commands
from pipeline.extraction.workers import cluster
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.show import flow_files
from pipeline.views.size import checked_short_side
from tests import remedies
from tests.remedies import helps


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def image(path: Path, height: int = 16, width: int = 24, seed: int = 0) -> Path:
    pixels = synthetic.video(synthetic.CLASSES[0], seed, 1, height, width)[0]
    cv2.imwrite(str(path), pixels)
    return path


def pair(folder: Path, second: str) -> pairs.Pair:
    image(folder / "a.png")
    image(folder / "b.png")
    image(folder / "other.png", 18, 24)
    written(folder / "text.png", "no image")
    return pairs.read_pair(folder / "a.png", folder / second)


class Broken(flow.FlowEstimator):
    name = "broken"

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.full((len(first), 2, *first.shape[1:3]), np.nan, np.float32)

    batch = estimate


def estimated(estimator: flow.FlowEstimator) -> np.ndarray:
    frames = synthetic.video(synthetic.CLASSES[0], 0, 2, 24, 32)
    return pairs.estimate(estimator, frames[:1], frames[1:], "a.mp4")


def video(path: Path, frames: int) -> Path:
    synthetic.write_mp4(path, synthetic.video(synthetic.CLASSES[0], 0, frames, 16, 24))
    return path


def spoilt(path: Path) -> Path:
    """A video whose second half makes no sense."""
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    half = start + int.from_bytes(data[start - 8 : start - 4], "big") // 2
    path.write_bytes(data[:half] + bytes(200) + data[half + 200 :])
    return path


def flow_of(folder: Path, *images: Path) -> None:
    flow_commands.flow(*images, out=folder / "out.npy", estimator="dis")


def measured(**given: Path) -> None:
    flow_commands.bench_flow(**given, estimators="dis", size="16x24", count=1)


def announcing(path: Path) -> Path:
    """A JPEG that announces more pixels than are taken."""
    encoded = image(path).read_bytes()
    at = encoded.index(b"\xff\xc0") + 5  # of its height and width
    path.write_bytes(encoded[:at] + b"\x75\x30" * 2 + encoded[at + 4 :])
    return path


def flow_written(folder: Path, name: str) -> None:
    flow_files.write(folder / name, np.full((2, 4, 4), 600.0, np.float32))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give two frames of one video",
            lambda folder: pair(folder, "other.png"),
            lambda folder: pair(folder, "b.png"),
        ),
        remedies.case(
            "give two images, or one video",
            lambda folder: pair(folder, "text.png"),
            lambda folder: pair(folder, "b.png"),
        ),
        remedies.case(
            "give two images, or one video",
            lambda folder: flow_of(folder, written(folder / "text.mp4", "no video")),
            lambda folder: flow_of(folder, video(folder / "video.mp4", 2)),
        ),
        remedies.case(
            "give two images, or one video",
            lambda folder: flow_of(folder, video(folder / "still.mp4", 1)),
            lambda folder: (pair(folder, "b.png"), flow_of(folder, folder / "a.png", folder / "b.png")),
        ),
        remedies.case(
            "give a smaller image",
            lambda folder: (announcing(folder / "c.jpg"), pair(folder, "c.jpg")),
            lambda folder: (image(folder / "c.jpg"), pairs.read_pair(folder / "a.png", folder / "c.jpg")),
        ),
        remedies.case(
            "give --videos or --pairs, not both",
            lambda folder: measured(videos=folder, pairs=folder),
            lambda folder: (
                video(folder / "videos" / "video.mp4", 2),
                measured(videos=folder / "videos"),
                image(folder / "a.png"),
                image(folder / "b.png"),
                flow_files.write(folder / "flow.flo", np.zeros((2, 16, 24), np.float32)),
                measured(pairs=folder),
            ),
        ),
        remedies.case(
            "give a folder of whole videos",
            lambda folder: (written(folder / "text.mp4", "no video"), measured(videos=folder)),
            lambda folder: (video(folder / "whole" / "video.mp4", 2), measured(videos=folder / "whole")),
        ),
        remedies.case(
            "repair or replace the file",
            lambda folder: flow_of(folder, spoilt(video(folder / "video.mp4", 9))),
            lambda folder: flow_of(folder, video(folder / "video.mp4", 9)),
        ),
        remedies.case(
            "give another file", lambda folder: pair(folder, "none.png"), lambda folder: pair(folder, "b.png")
        ),
        remedies.case(
            "take another estimator",
            lambda folder: estimated(Broken()),
            lambda folder: estimated(flow.create("dis")),
        ),
        remedies.case(
            "give a folder of images and their flow",
            lambda folder: pairs.true_pairs(folder / "none"),
            lambda folder: (
                pair(folder, "b.png"),
                flow_files.write(folder / "flow.flo", np.zeros((2, 16, 24), np.float32)),
                (folder / "other.png").unlink(),
                (folder / "text.png").unlink(),
                pairs.true_pairs(folder),
            ),
        ),
        remedies.case(
            "replace the file",
            lambda folder: flow_files.read(written(folder / "a.flo", "no flow")),
            lambda folder: (
                flow_files.write(folder / "a.flo", np.zeros((2, 4, 4), np.float32)),
                flow_files.read(folder / "a.flo"),
            ),
        ),
        remedies.case(
            "write a .flo or .npy file instead",
            lambda folder: flow_written(folder, "a.png"),
            lambda folder: [flow_written(folder, name) for name in ("a.flo", "a.npy")],
        ),
        remedies.case(
            "give one of them: size does not keep the shape of frames, short_side does",
            lambda folder: checked_short_side("rgb", 100, (64, 64)),
            lambda folder: [checked_short_side("rgb", 100, None), checked_short_side("rgb", 0, (64, 64))],
        ),
        remedies.case(
            "write it as 12:00:00",
            lambda folder: SlurmSettings(walltime="noon").for_workers(1),
            lambda folder: SlurmSettings(walltime="12:00:00").for_workers(1),
        ),
        remedies.case(
            "write it as 4GB",
            lambda folder: SlurmSettings(memory="much").for_workers(1),
            lambda folder: SlurmSettings(memory="4GB").for_workers(1),
        ),
        remedies.case(
            "start one with `dask scheduler --scheduler-file FILE`, or leave it out",
            lambda folder: cluster.check_scheduler("slrum", 0),
            lambda folder: cluster.check_scheduler("", 0),
        ),
        remedies.case(
            "leave WORKERS= out, or start as many",
            lambda folder: cluster.check_scheduler("tcp://host:8786", 3),
            lambda folder: cluster.check_scheduler("tcp://host:8786", 0),
        ),
        remedies.case(
            "name another device, such as cpu",
            lambda folder: flow.create("tvl1-torch", device="nosuch").open(),
            lambda folder: flow.create("tvl1-torch", device="cpu").open(),
        ),
    ],
)
def test_of_images_flow_and_workers(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)
