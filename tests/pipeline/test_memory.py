"""A video goes through extraction in as much memory as its frames' size asks for, however long it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import synthetic
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.video import mp4
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings

MEBIBYTE = 2**20
# In a process of its own, whose largest resident size the system keeps.
EXTRACT = """
import json, sys
from pathlib import Path
from pipeline.extraction.job import extract_video
from pipeline.manifest import Video

name, store, settings = sys.argv[1:]
path = Path(name)
outcome = extract_video(str(path.parent), store, Video(path.stem, path.name, "", "", ""), json.loads(settings))
assert outcome.status == "stored", outcome
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(outcome.frames, int(status["VmHWM"].split()[0]) * 1024)
"""


@pytest.fixture
def settings() -> ExtractionSettings:
    """RGB at the videos' own size, and the cheapest flow, small."""
    return ExtractionSettings(
        {"rgb": RgbSettings(short_side=0), "flow": FlowSettings(estimator="dis", short_side=64)}
    ).resolved()


def video(path: Path, count: int, height: int, width: int) -> Path:
    """So many frames of a moving scene, the same few over and over, written a few at a time."""
    scene = synthetic.video(synthetic.CLASSES[0], 0, frames=10, height=height // 8, width=width // 8)
    block = scene.repeat(8, axis=1).repeat(8, axis=2)
    with open(path, "wb") as file:
        fast = {"preset": "ultrafast", "crf": "30"}
        mp4.encode(file, (block for _ in range(count // len(block))), 25, "yuv420p", fast)
    return path


def largest_size(path: Path, settings: ExtractionSettings) -> int:
    """Bytes of memory that extraction of one video takes at most, the interpreter and its libraries included."""
    store = path.with_suffix(".store")
    create_store(store, settings)
    command = [sys.executable, "-c", EXTRACT, str(path), str(store), json.dumps(settings.as_dict())]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return int(done.stdout.split()[1])


@pytest.mark.slow
def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path, settings: ExtractionSettings) -> None:
    # More frames than two shards hold, so that both have all there is to hold at once.
    short = largest_size(video(tmp_path / "short.mp4", 600, 96, 128), settings)
    long = largest_size(video(tmp_path / "long.mp4", 6000, 96, 128), settings)
    assert long < short + 32 * MEBIBYTE


@pytest.mark.slow
def test_large_frames_stay_below_a_limit(tmp_path: Path, settings: ExtractionSettings) -> None:
    # More frames than a shard holds, so that one is written while the video goes on.
    assert largest_size(video(tmp_path / "v.mp4", 270, 1080, 1920), settings) < 1500 * MEBIBYTE
