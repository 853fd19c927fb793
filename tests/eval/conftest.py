"""A store of a few small synthetic videos, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.evaluate import evaluate
from pipeline import synthetic
from pipeline.extraction import job
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, annotation, open_store
from pipeline.store.annotation import AnnotationSet
from pipeline.store.catalogue import save as save_catalogue
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from train.commands import pretrain
from train.hardware import Hardware

CLASSES = synthetic.CLASSES[:3]
COUNTS = {"train": 4, "test": 2}
FRAMES = 21


def build_store(
    root: Path, listed: list[Video], pixels: Callable[[Video], tuple], views: dict | None = None
) -> VideoStore:
    """A store of the listed videos; `pixels` gives the arguments of `synthetic.video` for each."""
    views = views or {"rgb": RgbSettings(quality=90), "flow": FlowSettings(estimator="dis")}
    settings = ExtractionSettings(views).resolved()
    create_store(root / "store", settings)
    labels = [name for name in CLASSES if any(video.label == name for video in listed)]
    annotation.save(root / "store", annotation.EXTRACTION, AnnotationSet.of_manifest(Manifest(listed, labels)))
    (root / "videos").mkdir()
    for video in listed:
        synthetic.write_mp4(root / "videos" / video.path, synthetic.video(*pixels(video)))
        outcome = job.extract_video(str(root / "videos"), str(root / "store"), video, settings.as_dict())
        assert outcome.status == "stored", outcome
    save_catalogue(root / "store")
    return open_store(root / "store")


def listing() -> list[Video]:
    return [
        Video(f"{split}-{name}-{i}", f"{split}-{name}-{i}.mp4", label=name, split=split)
        for split, count in COUNTS.items()
        for name in CLASSES
        for i in range(count)
    ]


def pixels(video: Video) -> tuple:
    seed = [ord(letter) for letter in video.video_id]
    return video.label or CLASSES[0], seed, FRAMES, 32, 48


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """18 videos of 21 frames of 32x48: three classes, four training and two test videos each, RGB and DIS flow."""
    return build_store(tmp_path_factory.mktemp("tiny"), listing(), pixels)


@pytest.fixture(scope="session")
def unlabelled_store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """Three training videos without a label, RGB only."""
    listed = [Video(f"v{i}", f"v{i}.mp4", split="train") for i in range(3)]
    return build_store(tmp_path_factory.mktemp("plain"), listed, pixels, views={"rgb": RgbSettings()})


RECIPE = """
title: tiny
clips: {length: 4, stride: 2, size: [16, 16]}
augmentation: {name: small}
batch: 4
log_every: 1
stages:
  - name: flow
    method: infonce
    steps: 4
    settings: {stream: flow, backbone: small, backbone_settings: {width: 0.25}, dim: 8, queue: 0, temperature: 0.1}
  - name: rgb
    method: infonce
    steps: 4
    settings:
      {stream: rgb, backbone: small, backbone_settings: {width: 0.25}, dim: 8, queue: 8, temporal_centring: true}
"""


@pytest.fixture(scope="session")
def finished_run(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of four steps each, trained on the store. Take a copy before writing into it."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = run.with_name("tiny.yaml")
    recipe.write_text(RECIPE)
    hardware = Hardware(reader="opencv", threads=1, accelerator="cpu")
    assert pretrain("infonce", store.root, run, recipe=str(recipe), hardware=hardware) == 0
    return run


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished_run, tmp_path / "tiny")


@pytest.fixture(scope="session")
def finished_evaluation(finished_run: Path, store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, evaluated by both protocols."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("evaluated") / "tiny")
    evaluate(run, store, ("clean", "coclr"), "opencv", 1)
    return run


@pytest.fixture
def evaluated(finished_evaluation: Path, tmp_path: Path) -> Path:
    """A copy of the evaluated run."""
    return shutil.copytree(finished_evaluation, tmp_path / "tiny")
