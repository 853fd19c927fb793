"""What comes back out of a checkpoint, and what does not go in."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline import environment
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE
from tests.train.stores import write_store
from train import backbones, checkpoints, exports, run_folder
from train.batches.planning import PLANS
from train.methods.infonce import InfoNCE

KEY = "pair.query.head.0.weight"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("checkpoints") / "store", runs.VIDEOS)


@pytest.fixture(scope="module")
def trained(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a run of two stages, by stage; and, by "first ...", their weights before the first step."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = runs.load(folder / "recipe.yaml", IN_BATCH | {"steps": 2}, INFONCE | {"epochs": 1})
    found: dict[str, Path] = {}

    def keep(method: InfoNCE, batch: Any) -> None:
        if method.global_step == 0:
            name = f"first {recipe.stages[len(found)].name}"
            found[name] = folder / f"{name}.pt"
            torch.save(method.state_dict(), found[name])

    with runs.in_step(keep):
        runs.run(recipe, store, folder / "run")
    return found | {stage.name: run_folder.checkpoint_path(folder / "run", stage.name) for stage in recipe.stages}


@pytest.mark.parametrize("name", ["pixels", "motion"])
def test_trained_and_untrained_networks_come_back(trained: dict[str, Path], name: str) -> None:
    """The trained one with every bit of its weights; the untrained one as the run had it at its first step."""
    before = torch.random.get_rng_state()
    method, fresh = checkpoints.load_method(trained[name]), checkpoints.untrained(trained[name])
    assert not method.training and not fresh.training
    last = torch.load(trained[name], weights_only=True)["state_dict"]
    first = torch.load(trained[f"first {name}"], weights_only=True)
    assert runs.flatten(dict(method.state_dict())) == runs.flatten(last)
    assert runs.flatten(dict(fresh.state_dict())) == runs.flatten(first)
    assert not torch.equal(last[KEY], first[KEY])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert dict(method.hparams) == dict(fresh.hparams)


def test_metadata_says_where_a_checkpoint_comes_from(trained: dict[str, Path], store: VideoStore) -> None:
    facts = {name: checkpoints.metadata(trained[name]) for name in ("pixels", "motion")}
    assert set(facts["pixels"]) == {
        *(
            "method",
            "after",
            "stage",
            "streams",
            "backbones",
            "tf32",
            "seed",
            "plans",
            "clips",
            "sampling",
            "layer",
            "step",
            "finished",
            "versions",
            "optimised",
            "data",
            "begun",
            "hardware",
        ),
        *("recipe_hash", "store_settings", "store_settings_hash", "store_videos_hash", "start", "annotations"),
    }
    one, two = facts["pixels"], facts["motion"]
    assert (one["method"], one["stage"], one["streams"], one["seed"]) == ("infonce", "pixels", ["rgb"], 3)
    assert (two["method"], two["stage"], two["streams"], two["seed"]) == ("infonce", "motion", ["flow"], 3)
    assert (one["step"], one["finished"], two["step"]) == (2, True, 3)
    cut = {"length": 4, "stride": 1, "size": [16, 16], "crop": "whole"}
    assert one["clips"] == cut | {"streams": {}, "statistics": "imagenet", "pixels": "ours"}
    assert (one["plans"], one["sampling"]) == (PLANS, {"name": "random", "short": "pad"})
    assert one["store_settings_hash"] == store.settings_hash
    assert one["recipe_hash"] == two["recipe_hash"] and len(one["recipe_hash"]) == 16
    assert one["versions"] == environment.versions()
    assert {"python", "torch", "lightning", "numpy"} <= set(one["versions"])
    json.dumps(facts)


def test_hashes_follow_what_they_stand_for(store: VideoStore, tmp_path: Path) -> None:
    def facts(**changes: Any) -> dict[str, Any]:
        recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 1}, **changes)
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        runs.run(recipe, store, run)
        return checkpoints.metadata(run_folder.checkpoint_path(run, "pixels"))

    one, again, other = facts(), facts(), facts(seed=4)
    assert one == again
    assert {key for key in one if one[key] != other[key]} == {"seed", "recipe_hash"}


def test_digest_is_of_the_bytes(trained: dict[str, Path]) -> None:
    assert checkpoints.digest(trained["pixels"]) == hashlib.sha256(trained["pixels"].read_bytes()).hexdigest()
    assert checkpoints.digest(trained["pixels"]) != checkpoints.digest(trained["motion"])


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(source, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


def test_networks_load_strictly(trained: dict[str, Path], tmp_path: Path) -> None:
    def refusal(change: Callable[[dict[str, Any]], object]) -> str:
        path = changed(trained["pixels"], tmp_path / "changed.ckpt", change)
        with pytest.raises(Refusal, match="another network") as refused:
            checkpoints.load_method(path)
        assert str(path) in str(refused.value)
        return refused.value.what

    assert f"missing {KEY}" in refusal(lambda content: content["state_dict"].pop(KEY))
    assert "unexpected more" in refusal(lambda content: content["state_dict"].update(more=torch.zeros(1)))
    text = refusal(lambda content: content["state_dict"].update({KEY: torch.zeros(1, 2)}))
    assert f"{KEY} is (1, 2), the network's is (32, 32)" in text
    text = refusal(lambda content: content["hyper_parameters"]["settings"].update(backbone_settings={"width": 0.5}))
    assert "and" in text and "more" in text and text.count("\n") == 9
    text = refusal(lambda content: content["hyper_parameters"]["settings"].update(queue=8))
    assert "missing pair.key.backbone.layers.0.weight" in text
    path = changed(
        trained["pixels"], tmp_path / "changed.ckpt", lambda it: it["hyper_parameters"]["settings"].update(widht=1)
    )
    with pytest.raises(UsageError, match='unknown key "widht"'):
        checkpoints.load_method(path)


@pytest.mark.remedy("give another RUN= to train anew")
def test_checkpoints_of_older_versions_are_refused_by_name(trained: dict[str, Path], tmp_path: Path) -> None:
    def older(content: dict[str, Any]) -> None:
        content["hyper_parameters"] = content["hyper_parameters"]["settings"]

    path = changed(trained["pixels"], tmp_path / "older.ckpt", older)
    for function in (checkpoints.load_method, checkpoints.untrained):
        with pytest.raises(Refusal, match="(?s)written by an older version.*train anew") as refused:
            function(path)
        assert refused.value.where == str(path)
        function(trained["pixels"])


def test_refused_weights_leave_the_network_as_it_was(trained: dict[str, Path]) -> None:
    method = checkpoints.untrained(trained["pixels"])
    before = runs.flatten({name: tensor.clone() for name, tensor in method.state_dict().items()})
    state = dict(checkpoints.load_method(trained["pixels"]).state_dict())
    with pytest.raises(Refusal, match="unexpected more"):
        checkpoints.load_strictly(method, state | {"more": torch.zeros(1)}, "here")
    assert runs.flatten(dict(method.state_dict())) == before


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"streams": ["flow"]}, "streams: flow, of rgb"),
        ({"layer": "nosuch"}, "layer"),
        ({"sampling": None}, "sampling"),
        ({"clips": [1]}, "clips"),
        ({"backbones": {"rgb": 7}}, "backbones"),
    ],
)
def test_facts_that_cannot_be_are_refused_by_their_key(
    trained: dict[str, Path], tmp_path: Path, changed: dict, key: str
) -> None:
    content = torch.load(trained["pixels"], weights_only=True)
    content[checkpoints.METADATA] |= changed
    torch.save(content, tmp_path / "last.ckpt")
    for function in (checkpoints.read, checkpoints.metadata, checkpoints.load_method):
        with pytest.raises(Refusal, match=f"says what cannot be: {key}"):
            function(tmp_path / "last.ckpt")


def test_files_that_are_no_checkpoints_fail(trained: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"

    def refused(message: str) -> None:
        for function in (checkpoints.read, checkpoints.metadata, checkpoints.load_method, checkpoints.untrained):
            with pytest.raises(Refusal, match=message) as refusal:
                function(path)
            assert str(path) in refusal.value.where and refusal.value.remedy

    refused("there is no checkpoint")
    whole = trained["pixels"].read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("cannot be read|is no checkpoint")
    path.write_text("weights\n")
    refused("cannot be read|is no checkpoint")
    for content in ({"state_dict": {}, "epoch": 3}, [1, 2], torch.zeros(3)):
        torch.save(content, path)
        refused("not a checkpoint of costream")
    torch.save({checkpoints.METADATA: Hostile(tmp_path / "made")}, path)
    refused("might run code")
    assert not (tmp_path / "made").exists()
    path.unlink()
    path.mkdir()
    refused("cannot be read")


@pytest.mark.parametrize(("name", "stream", "channels"), [("pixels", "rgb", 3), ("motion", "flow", 2)])
def test_exported_backbone_loads_into_a_bare_one(
    trained: dict[str, Path], tmp_path: Path, name: str, stream: str, channels: int
) -> None:
    out = tmp_path / "made" / "backbone.pt"
    exports.export(trained[name], stream, out)
    facts = json.loads((tmp_path / "made" / "backbone.json").read_text())
    assert facts == {
        **checkpoints.metadata(trained[name]),
        "stream": stream,
        "checkpoint": checkpoints.digest(trained[name]),
        "settings": facts["settings"],
        "channels": {stream: channels},
    }
    settings = facts["settings"]
    assert settings["stream"] == stream and settings["optimiser"]["name"] in ("adamw", "sgd")
    bare = backbones.create(settings["backbone"], in_channels=channels, **settings["backbone_settings"]).eval()
    bare.load_state_dict(torch.load(out, weights_only=True), strict=True)
    clips = torch.rand(2, channels, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    network = checkpoints.load_method(trained[name]).networks[stream]
    bare.to(memory_format=torch.channels_last_3d)  # sums are taken in another order otherwise
    found = bare(clips.contiguous(memory_format=torch.channels_last_3d)).mean(dim=(2, 3, 4))
    assert torch.equal(found, network.embed(clips, "backbone"))
    assert sorted(item.name for item in out.parent.iterdir()) == ["backbone.json", "backbone.md", "backbone.pt"]


def test_weights_as_safetensors_are_the_same_and_have_a_card(trained: dict[str, Path], tmp_path: Path) -> None:
    exports.export(trained["motion"], "flow", tmp_path / "backbone.safetensors")
    network = checkpoints.load_method(trained["motion"]).networks["flow"]
    found = load_file(tmp_path / "backbone.safetensors")
    assert found.keys() == network.backbone.state_dict().keys()
    assert all(torch.equal(found[name], weight) for name, weight in network.backbone.state_dict().items())
    card = (tmp_path / "backbone.md").read_text()
    assert "clips float32 (B, 2, 4, 16, 16)" in card
    assert "the rows of (M, m) are 0.0627451, 0, -8; 0, 0.0627451, -8" in card  # bound 20 px / 2.5, of 255 steps
    assert "Apache-2.0" in card and "layer `backbone`" in card


def test_a_network_as_a_program_gives_the_same_rows(trained: dict[str, Path], tmp_path: Path) -> None:
    exports.export(trained["pixels"], "rgb", tmp_path / "network.pt2")
    clips = torch.rand(3, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    network = checkpoints.load_method(trained["pixels"]).networks["rgb"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["network.json", "network.md", "network.pt2"]
    rows = torch.export.load(tmp_path / "network.pt2").module()(clips)
    assert torch.equal(rows, network.embed(clips, "backbone"))


def test_exports_that_cannot_be_meant_fail(trained: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="(?s)no flow network.*it has rgb"):
        exports.export(trained["pixels"], "flow", tmp_path / "backbone.pt")
    with pytest.raises(UsageError, match="no name for a file of weights"):
        exports.export(trained["pixels"], "rgb", tmp_path / "backbone.json")
    with pytest.raises(UsageError, match="no name for a file of weights"):
        exports.export(trained["pixels"], "rgb", tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refusal, match="(?s)cannot be written.*where.*file"):
        exports.export(trained["pixels"], "rgb", tmp_path / "file" / "backbone.pt")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A stand-in for a full disk: this process cannot write files beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.ckpt"
    checkpoints.write({"weights": torch.zeros(3)}, path)
    before = path.read_bytes()
    with largest_file(4000), pytest.raises(Refusal, match="(?s)cannot be written: .*last.ckpt.*make room"):
        checkpoints.write({"weights": torch.zeros(5000)}, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.ckpt"]
    checkpoints.write({"weights": torch.zeros(5000)}, path)
    assert len(torch.load(path, weights_only=True)["weights"]) == 5000
