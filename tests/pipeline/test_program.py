"""Networks of others as files of torch.export, by which a view of people is estimated."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import people
from pipeline.errors import UsageError
from pipeline.extraction import job
from pipeline.importers import folder
from pipeline.people import program
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.rgb import RgbSettings
from pipeline.views.segmentation import SegmentationSettings

FLOW_PAGE = Path(__file__).parents[2] / "docs" / "flow.md"


class Colours(nn.Module):
    """Scores of C classes, each a sum of the three colours; the first of two outputs."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        self.weight = nn.Parameter(torch.randn(classes, 3, generator=generator))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = torch.einsum("cd,bdhw->bchw", self.weight, images)
        return {"out": scores, "aux": images}


def saved(path: Path, classes: int, *shape: int) -> Path:
    network = Colours(classes).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export, about its own parts
        torch.export.save(torch.export.export(network, (torch.zeros(shape or (1, 3, 20, 30)),)), path)
    return path


@pytest.fixture(scope="module")
def of_21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("networks") / "of-21.pt2", 21)


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def by_hand(frame: np.ndarray, classes: int, mean: object = IMAGENET[0], deviation: object = IMAGENET[1]) -> np.ndarray:
    """Scores (C, H, W) of a frame that has the network's size."""
    weight = Colours(classes).weight.detach().numpy()
    scores = np.zeros((classes, *frame.shape[:2]))
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            pixel = (frame[row, column] / 255 - mean) / deviation
            scores[:, row, column] = weight @ pixel
    return scores


def test_masks_are_the_share_of_a_channel(of_21: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3)).astype(np.uint8)
    estimator = people.create("segmentation", "program", path=str(of_21), channel=15)
    found = estimator.maps(frames, np.arange(2), (20, 30))
    for frame, mask in zip(frames, found, strict=True):
        powers = np.exp(by_hand(frame, 21))
        assert np.abs(255 * powers[15] / powers.sum(0) - mask[0]).max() <= 0.51
    assert estimator.maps(frames, np.arange(2), (10, 15)).shape == (2, 1, 10, 15)
    again = people.choose("segmentation", "program", **estimator.settings)
    assert again.settings == estimator.settings and "path" not in again.settings


def test_joints_are_a_network_s_channels_as_they_come(tmp_path: Path) -> None:
    path = saved(tmp_path / "joints.pt2", 17)
    frame = np.random.default_rng(1).integers(0, 256, (1, 20, 30, 3)).astype(np.uint8)
    scores, as_they_are = by_hand(frame[0], 17, 0.5, 0.5), by_hand(frame[0], 17, 0, 1)
    for kind, pixels, expected in (
        ("sigmoid", "-1..1", 1 / (1 + np.exp(-scores))),
        ("shares", "0..1", np.clip(as_they_are, 0, 1)),
    ):
        estimator = people.create("pose", "program", path=str(path), scores=kind, pixels=pixels)
        found = estimator.maps(frame, np.arange(1), (20, 30))
        assert np.abs(255 * expected - found[0]).max() <= 0.51


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channel": True}, "no whole number"),
        ({"channel": -1}, "no whole number"),
        ({"channel": 21}, "1 planes"),
        ({"pixels": "bgr"}, "none of imagenet"),
        ({"scores": "logits"}, "none of softmax"),
        ({"digest": "0" * 64}, "not the network that the settings record"),
    ],
)
def test_other_parameters_are_refused(of_21: Path, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        people.choose("segmentation", "program", path=str(of_21), **parameters)


@pytest.mark.parametrize("gives", [lambda images: {}, lambda images: None, lambda images: images.no_such()])
def test_networks_that_fail_are_refused(
    of_21: Path, gives: Callable[[torch.Tensor], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first frame, and not on that of the first video."""
    monkeypatch.setattr(program, "_loaded", lambda path, digest: (gives, (20, 30)))
    with pytest.raises(UsageError, match=r"(?s)fails on a frame of the size.*of-21\.pt2.*save it so"):
        people.create("segmentation", "program", path=str(of_21), channel=15)


@pytest.mark.remedy("save it so: torch.export.save", told=True)
def test_other_files_are_refused_until_one_is_saved_as_it_says(tmp_path: Path, of_21: Path) -> None:
    path = tmp_path / "network.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="no file of torch.export"):
        people.create("segmentation", "program", path=str(path), channel=15)
    saved(path, 21, 2, 3, 20, 30)
    with pytest.raises(UsageError, match="one frame of a fixed size") as refused:
        people.create("segmentation", "program", path=str(path), channel=15)
    network, said = Colours(21), (refused.value.remedy or "").partition(": ")[2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eval(said, {"torch": torch, "network": network, "path": path})
    people.create("segmentation", "program", path=str(path), channel=15)


@pytest.mark.remedy(
    '"path": "/path/to/network.pt2"', "which channel is the only", "put the recorded file there", told=True
)
def test_a_store_is_made_and_continued_with_the_same_network(videos: Path, tmp_path: Path, of_21: Path) -> None:
    path = shutil.copy(of_21, tmp_path / "mine.pt2")
    with pytest.raises(UsageError, match="its file is not given"):
        ExtractionSettings({"segmentation": SegmentationSettings("program")}).resolved()
    running = json.loads('{"path": "/path/to/network.pt2"}'.replace("/path/to/network.pt2", str(path)))
    with pytest.raises(UsageError, match=r"scores \(21, 20, 30\) of a frame, and the segmentation has 1 planes"):
        ExtractionSettings({"segmentation": SegmentationSettings("program", running=running)}).resolved()
    masks = SegmentationSettings("program", running=running, parameters={"channel": 0})
    settings = ExtractionSettings({"rgb": RgbSettings(), "segmentation": masks}).resolved()
    create_store(tmp_path / "store", settings)
    row = folder.read(videos).rows[-1]
    job.extract_video(str(videos), str(tmp_path / "store"), row, settings.as_dict(running=True))
    store = open_store(tmp_path / "store")
    assert store.shape(row.video_id, "segmentation")[:2] == (store.shape(row.video_id, "rgb")[0], 1)
    recorded = store.settings["segmentation"]["parameters"]
    assert len(recorded["digest"]) == 64 and recorded["channel"] == 0 and "path" not in recorded
    saved(path, 22)
    with pytest.raises(UsageError, match="not the network that the settings record"):
        people.create("segmentation", "program", **recorded, **running)
    shutil.copy(of_21, path)
    assert people.create("segmentation", "program", **recorded, **running).settings == recorded


@pytest.mark.slow
def test_the_network_of_the_documentation_is_saved_and_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import segmentation

    code = FLOW_PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    torch.save(segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict(), tmp_path / "w")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code.replace("weights.pth", "w"), {})
    estimator = people.create("segmentation", "program", path="people.pt2", channel=15)
    assert estimator.maps(np.zeros((1, 60, 80, 3), np.uint8), np.arange(1), (60, 80)).shape == (1, 1, 60, 80)
