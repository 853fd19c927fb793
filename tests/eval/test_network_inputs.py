"""Networks are evaluated on what they were trained on: flow as an image, and the statistics of normalisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eval import evaluate
from eval.bank import FeatureBank
from eval.runs import bank_path
from pipeline.store import VideoStore
from tests.eval.conftest import RECIPE
from tests.train.oracle import clip_plan
from train import checkpoints, exports, reader
from train.clips import sliding_windows
from train.commands import pretrain
from train.hardware import Hardware
from train.run_folder import checkpoint_path

MEAN, STD = np.array([0.4345, 0.4051, 0.3775]), np.array([0.2768, 0.2713, 0.2737])  # of Kinetics


@pytest.fixture(scope="module")
def evaluated_run(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both streams trained under SLIC's policy and sampling as published on Kinetics: flow is its u, three times."""
    run = tmp_path_factory.mktemp("inputs") / "run"
    recipe = run.with_name("recipe.yaml")
    clips = "streams: {flow: {input: u, mirror: plain}}, statistics: kinetics, length:"
    sampling = "sampling: {name: cluster, replacements: {rgb: [{view: flow, input: u, mirror: plain}]}}"
    recipe.write_text(RECIPE.replace("{name: small}", "{name: slic}").replace("length:", clips) + sampling)
    hardware = Hardware(reader="opencv", threads=1, accelerator="cpu")
    assert pretrain("infonce", store.root, run, recipe=str(recipe), hardware=hardware) == 0
    evaluate.evaluate(run, store, ("clean",), "opencv", 1)
    return run


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_features_are_of_the_input_that_the_network_was_trained_on(
    evaluated_run: Path, store: VideoStore, stream: str
) -> None:
    bank = FeatureBank.load(bank_path(evaluated_run, store, stream, "trained", "clean", stream))
    assert (bank.attributes["clip.streams.flow.input"], bank.attributes["clip.statistics"]) == ("u", "kinetics")
    method = checkpoints.load_method(checkpoint_path(evaluated_run, stream))
    network = method.networks[stream]  # type: ignore[operator, index]
    assert network.in_channels == 3
    executor = reader.create("opencv", store, threads=1)
    for video in store.videos[:3]:
        units = []
        for frames in sliding_windows(store.info(video).shapes[stream][0], 4, 2):
            plan = clip_plan(video, frames)
            stored = executor.run(stream, [plan], (16, 16)).numpy()[0]
            shown = stored if stream == "rgb" else stored[[0, 0, 0]]
            clip = (shown / 255 - MEAN[:, None, None, None]) / STD[:, None, None, None]
            with torch.no_grad():
                [feature] = network.embed(torch.from_numpy(clip[None]).float(), "backbone").numpy()
            units.append(feature / np.linalg.norm(feature))
        np.testing.assert_allclose(bank.features[bank.video_ids.index(video)], np.mean(units, axis=0), atol=1e-5)
    executor.close()


def test_an_exported_backbone_says_its_channels(evaluated_run: Path, tmp_path: Path) -> None:
    exports.export(checkpoint_path(evaluated_run, "flow"), "flow", tmp_path / "flow.pt")
    assert '"channels": {' in (tmp_path / "flow.json").read_text()
    assert '"input": "u"' in (tmp_path / "flow.json").read_text()
    weights = torch.load(tmp_path / "flow.pt", weights_only=True)
    assert next(iter(weights.values())).shape[1] == 3
