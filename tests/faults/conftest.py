"""Fixtures of the tests that break things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import synthetic
from tests.faults.clusters import RunningScheduler
from tests.faults.disk import Disk, the_disk
from tests.faults.processes import SETTINGS, Extraction
from tests.pipeline.reference import content, extract_here


@pytest.fixture
def extract_apart(tmp_path: Path) -> Iterator[Callable[..., Extraction]]:
    """Starts an Extraction; whatever of it still runs when the test ends is killed."""
    started: list[Extraction] = []
    gate = tmp_path / "gate"
    gate.mkdir()

    def start(videos: Path, store: Path, *options: str, **settings: object) -> Extraction:
        started.append(Extraction(videos, store, gate, *options, **settings))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for extraction in started:
        if extraction.process.poll() is None:
            extraction.process.kill()
            extraction.process.communicate()


@pytest.fixture
def running_scheduler(tmp_path: Path) -> Iterator[RunningScheduler]:
    started = RunningScheduler(tmp_path)
    yield started
    started.close()


@pytest.fixture(scope="session")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of two classes: seven short ones, and `long`, which fills more than one shard."""
    folder = tmp_path_factory.mktemp("faults") / "videos"
    for index, name in enumerate(["walk/a", "walk/b", "walk/c", "walk/d", "jump/e", "jump/f", "jump/g", "jump/long"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        frames = 400 if name.endswith("long") else 12
        pixels = synthetic.video(synthetic.CLASSES[index % 3], index, frames=frames, height=32, width=48)
        synthetic.write_mp4(folder / f"{name}.mp4", pixels)
    return folder


@pytest.fixture(scope="session")
def undisturbed(eight: Path) -> dict[str, bytes]:
    """The content of a store of these videos that nothing happened to."""
    return content(extract_here(eight, eight.parent / "undisturbed", SETTINGS).root)


@pytest.fixture
def disk() -> Iterator[Disk]:
    yield the_disk()
    the_disk().folder = None
