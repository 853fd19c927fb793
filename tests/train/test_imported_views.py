"""Runs that are made of published files of several views, and files that are made of such runs."""

from __future__ import annotations

from pathlib import Path

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch

from pipeline.errors import Refusal, UsageError
from tests.train import layouts, runs
from tests.train.test_imported import filled_with, saved
from train import checkpoints, file_commands, provenance, run_folder
from train import recipe as recipes
from train.checkpoints import METADATA
from train.published import import_published


@pytest.mark.slow
def test_four_views_of_cocon_come_and_go(tmp_path: Path) -> None:
    """Of two backbones and three sizes, in one run; and back, byte for byte."""
    networks = {"rgb": ("34", 3), "flow": ("18", 2), "segmentation": ("18", 1), "pose": ("18", 17)}
    files = {
        stream: saved(tmp_path, stream, layouts.predictive(size, channels=channels, statistics=True))
        for stream, (size, channels) in networks.items()
    }
    file_commands.import_files(tmp_path / "run", **files)
    recipe = runs.recipe.load(tmp_path / "run" / "recipe.yaml")
    sizes = {stream: recipe.clips.stream(stream).size for stream in files}
    assert sizes == {"rgb": (224, 224), "flow": (128, 128), "segmentation": (64, 64), "pose": (64, 64)}
    crops = {stream: recipe.clips.stream(stream).crop for stream in files}  # of evaluation; none: that of all clips
    assert crops == {"rgb": None, "flow": None, "segmentation": 1.0, "pose": 1.0}
    for stream, file in files.items():
        path = run_folder.checkpoint_path(tmp_path / "run", stream)
        assert filled_with(checkpoints.load_method(path).networks[stream], "backbone.")
        file_commands.export(path, tmp_path / "back.pth.tar", layout="cocon")
        back, given = (torch.load(one)["state_dict"] for one in (tmp_path / "back.pth.tar", file))
        back = {name.removeprefix("module."): tensor for name, tensor in back.items()}
        given = {name.removeprefix("module."): tensor for name, tensor in given.items()}
        assert back.keys() == given.keys() and all(torch.equal(back[name], given[name]) for name in back)
    with pytest.raises(Refusal, match="(?s)dpc is of a resnet2d3d-18.*between: relu.*leave out --layout"):
        file_commands.export(path, tmp_path / "no.pth.tar", layout="dpc")
    with pytest.raises(UsageError, match='unknown stream "flow"'):
        file_commands.export(path, tmp_path / "no.pth.tar", layout="cocon", stream="flow")


@pytest.mark.slow
@pytest.mark.remedy("--stream {}", told=True)
def test_a_checkpoint_of_several_views_is_written_view_by_view(tmp_path: Path) -> None:
    recipe = recipes.load(recipes.find("ucf101", "cocon"))
    [stage] = recipe.stages
    method = checkpoints.create(stage.method, stage.settings, recipe.channels, seed=0)
    facts = provenance.described(recipe, stage) | {"step": 7, "finished": True}
    content = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}
    checkpoints.write(content, tmp_path / "last.ckpt")
    with pytest.raises(UsageError, match="(?s)cocon has a file for each stream.*--stream rgb or flow or seg"):
        file_commands.export(tmp_path / "last.ckpt", tmp_path / "pose.pth.tar", layout="cocon")
    file_commands.export(tmp_path / "last.ckpt", tmp_path / "pose.pth.tar", layout="cocon", stream="pose")
    found, network = import_published(tmp_path / "pose.pth.tar"), method.networks["pose"].state_dict()
    assert found.layout == "cocon" and found.channels("query") == 17
    assert found.state("query").keys() == network.keys()
    assert all(torch.equal(tensor, network[name]) for name, tensor in found.state("query").items())
