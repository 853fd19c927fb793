"""Fixtures shared by all tests."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# Spinning OpenMP threads make small torch loops ten times slower on a busy machine; must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest

import train  # noqa: F401  (mends torchvision before any test imports lightning)

# isort: split
from pipeline import synthetic
from pipeline.commands import console
from pipeline.errors import Refusal
from pipeline.extraction import run
from pipeline.extraction.workers.cluster import Kind
from pipeline.store import VideoStore
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.faults import small
from tests.pipeline.reference import extract_here

# The same examples every time, and no timing: a busy machine is no failure.
hypothesis.settings.register_profile("costream", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("costream")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and reference pairs beside the checkout; tests that need it skip without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the folder of real data beside the checkout (../shared/data), which is not here")
    return SHARED


@pytest.fixture(scope="session")
def synthetic_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 videos, 20 frames of 48x64: three training and one test video of each of three classes."""
    folder = tmp_path_factory.mktemp("synthetic") / "videos"
    for split, count in (("train", 3), ("test", 1)):
        for index, name in enumerate(synthetic.CLASSES[:3]):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                frames = synthetic.video(name, (len(split), index, number), frames=20, height=48, width=64)
                synthetic.write_mp4(folder / split / name / f"{name}_{number}.mp4", frames)
    return folder


@pytest.fixture(scope="session")
def extraction_settings() -> ExtractionSettings:
    """RGB and the fastest flow, at the videos' own size."""
    return ExtractionSettings({"rgb": RgbSettings(quality=90), "flow": FlowSettings(estimator="dis")}).resolved()


@pytest.fixture(scope="session")
def synthetic_store(synthetic_videos: Path, extraction_settings: ExtractionSettings) -> VideoStore:
    """`synthetic_videos` as extraction stores them: splits train and test, labels, rgb and flow. For reading only."""
    return extract_here(synthetic_videos, synthetic_videos.parent / "store", extraction_settings)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction on this machine works in a thread of this process: one of its own takes seconds to start."""
    prepared = run._prepared

    def kind(settings: ExtractionSettings, store: Path) -> Kind:
        chosen = prepared(settings, store)
        return "here" if chosen == "processes" else chosen

    monkeypatch.setattr(run, "_prepared", kind)


@pytest.fixture
def parsers_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command whose lines are many, and not its parser, the point: that is most of the time of reading one."""
    monkeypatch.setattr(console, "_described", functools.cache(console._described))


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few small videos, see `small.make`, and the store of them. For copying."""
    made = tmp_path_factory.mktemp("few")
    small.store(small.make(made / "videos"), made / "store")
    return made


@pytest.fixture
def videos(few: Path, tmp_path: Path) -> Path:
    """These videos; many tests change them."""
    return shutil.copytree(few / "videos", tmp_path / "videos")


@pytest.fixture
def store(few: Path, videos: Path, tmp_path: Path) -> Path:
    """The store of these videos, as a run that read them here has made it."""
    return small.copied(few, tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` without a CUDA device; where REQUIRE_GPU=1 promises one they run, and so fail."""
    import torch

    if torch.cuda.is_available() or os.environ.get("REQUIRE_GPU") == "1":
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; set REQUIRE_GPU=1 where there must be one"))


@pytest.fixture(autouse=True)
def met_remedies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that is marked with a remedy must have met it, in an error of this process; `told=True` where the message
    comes another way, and the test itself looks at it."""
    marks = [mark for mark in request.node.iter_markers("remedy") if not mark.kwargs.get("told")]
    if not marks:
        yield
        return
    met: list[str] = []
    made = Refusal.__init__

    def noted(self: Refusal, what: str, **words: str) -> None:
        made(self, what, **words)
        met.append(f"{what}\n{self.remedy}")

    monkeypatch.setattr(Refusal, "__init__", noted)
    yield
    for part in [part for mark in marks for part in mark.args]:
        told = re.compile(".*".join(map(re.escape, part.split("{}"))))
        assert any(told.search(text) for text in met), f"no message told {part!r}"
