"""Stages that start from earlier ones: CoCLR's alternation as a recipe says it, stopped and continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import runs
from train import checkpoints, run_folder, stages
from train.checkpoints import METADATA
from train.methods.method import Start
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.recipe import Recipe

NETWORK = {"backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 8}
SGD = {"name": "sgd", "lr": 0.05}


def infonce(stream: str, **changes: Any) -> dict[str, Any]:
    settings = {"stream": stream, **NETWORK, "queue": 0, "optimiser": SGD} | changes
    return {"name": f"infonce-{stream}", "method": "infonce", "steps": 2, "settings": settings}


def coclr(stream: str, name: str, query: str, sampler: str, steps: int = 5, **changes: Any) -> dict[str, Any]:
    settings = {"stream": stream, "sampler": {"stream": {"rgb": "flow", "flow": "rgb"}[stream]}, **NETWORK}
    settings |= {"queue": 8, "momentum": 0.9, "top_k": 2, "optimiser": SGD} | changes
    return {
        "name": name,
        "method": "coclr",
        "steps": steps,
        "settings": settings,
        "start": {"query": query, "sampler": sampler},
    }


CYCLE = [
    infonce("rgb"),
    infonce("flow"),
    coclr("rgb", "rgb-1", "infonce-rgb", "infonce-flow"),
    coclr("flow", "flow-1", "infonce-flow", "rgb-1"),
]


def load(folder: Path, *listed: dict[str, Any]) -> Recipe:
    return runs.load(folder / "recipe.yaml", *listed)


def encoder_of(run: Path, stage: str, part: str) -> dict[str, torch.Tensor]:
    state = runs.content(run, stage)["state_dict"]
    return {key.removeprefix(f"{part}."): tensor for key, tensor in state.items() if key.startswith(f"{part}.")}


@pytest.fixture(scope="module")
def whole(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cycle from start to end."""
    folder = tmp_path_factory.mktemp("cycle")
    runs.run(load(folder, *CYCLE), store, folder / "run")
    return folder / "run"


def test_a_stage_starts_where_the_stages_it_names_ended(store: VideoStore, tmp_path: Path, whole: Path) -> None:
    """Query and key network from the same stream, the sampler from the other, which stays as it was."""
    sampler = encoder_of(whole, "rgb-1", "sampler")
    assert runs.flatten(sampler) == runs.flatten(encoder_of(whole, "infonce-flow", "pair.query"))
    latest = encoder_of(whole, "flow-1", "sampler")
    assert runs.flatten(latest) == runs.flatten(encoder_of(whole, "rgb-1", "pair.query"))
    loaded = load(tmp_path, *CYCLE)
    stage = loaded.stages[2]
    start = stages.starting_weights(loaded, stage, whole)
    assert runs.flatten(checkpoints.flat(start["query"])) == runs.flatten(
        encoder_of(whole, "infonce-rgb", "pair.query")
    )
    module = checkpoints.create(stage.method, stage.settings, loaded.channels, loaded.seed)
    assert module.starting["query"] == [module.pair.query.parts, module.pair.key.parts]


@pytest.mark.parametrize("stops", [("rgb-1", 1), ("rgb-1", 2), ("rgb-1", 4), ("flow-1", 3)], ids=str)
def test_a_cycle_continues_at_the_exact_step(
    store: VideoStore, tmp_path: Path, whole: Path, stops: tuple[str, int]
) -> None:
    """While the queue fills (two steps), when it is full, and in a later stage."""
    stage, done = stops
    loaded = load(tmp_path, *CYCLE)
    run = tmp_path / "run"
    run_folder.prepare(run, loaded)
    for listed in loaded.stages:
        if listed.name == stage:
            with runs.signalled(done - 1), pytest.raises(stages.Stopped):
                stages.run_stage(loaded, listed, store, run, runs.HARDWARE)
            break
        stages.run_stage(loaded, listed, store, run, runs.HARDWARE)
    runs.run(loaded, store, run)
    for name in ("rgb-1", "flow-1"):
        runs.assert_same_runs(whole, run, name)


@pytest.mark.parametrize("method", ["ubernce", "cmc"])
def test_other_methods_continue_at_the_exact_step(store: VideoStore, tmp_path: Path, method: str) -> None:
    """Stopped twice, in mid-epoch and at an epoch's end."""
    settings = {**NETWORK, "queue": 8, "momentum": 0.9, "optimiser": SGD}
    settings |= (
        {"stream": "flow"}
        if method == "ubernce"
        else {
            "streams": ["flow", "rgb"],
            "differing": {"rgb": {"temporal_centring": True}},
        }
    )
    loaded = load(tmp_path, {"name": "only", "method": method, "steps": 5, "settings": settings})
    runs.run(loaded, store, tmp_path / "whole")
    for done in (2, 3):
        runs.stop(loaded, store, tmp_path / "parts", done)
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "only")


def test_a_start_that_has_changed_is_refused(store: VideoStore, tmp_path: Path) -> None:
    loaded = load(tmp_path, *CYCLE[:3])
    run = tmp_path / "run"
    run_folder.prepare(run, loaded)
    for listed in loaded.stages[:2]:
        stages.run_stage(loaded, listed, store, run, runs.HARDWARE)
    with runs.signalled(1), pytest.raises(stages.Stopped):
        stages.run_stage(loaded, loaded.stages[2], store, run, runs.HARDWARE)
    path = run_folder.checkpoint_path(run, "infonce-flow")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["pair.query.head.0.bias"] += 1
    torch.save(content, path)
    with pytest.raises(Refusal, match="other networks to start from"):
        stages.run_stage(loaded, loaded.stages[2], store, run, runs.HARDWARE)


def test_published_files_and_our_checkpoints_are_starts(store: VideoStore, tmp_path: Path, whole: Path) -> None:
    torch.manual_seed(4)
    published = Network("s3d", 3)
    state = {f"encoder_q.0.{name}": tensor for name, tensor in published.backbone.state_dict().items()}
    for ours, place in (("0", "2"), ("2", "4")):
        state[f"encoder_q.{place}.weight"] = published.head.state_dict()[f"{ours}.weight"][:, :, None, None, None]
        state[f"encoder_q.{place}.bias"] = published.head.state_dict()[f"{ours}.bias"]
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "rgb.pth.tar")
    rgb, flow = (Start(stream, NetworkSettings()) for stream in ("rgb", "flow"))
    found = checkpoints.flat(checkpoints.starting_weights(tmp_path / "rgb.pth.tar", rgb))
    assert runs.flatten({name: found[name] for name in published.state_dict()}) == runs.flatten(published.state_dict())
    ours = run_folder.checkpoint_path(whole, "flow-1")
    found = checkpoints.flat(checkpoints.starting_weights(ours, flow))
    assert runs.flatten(found) == runs.flatten(encoder_of(whole, "flow-1", "pair.query"))
    with pytest.raises(Refusal, match="no rgb network"):
        checkpoints.starting_weights(ours, rgb)
    stage = CYCLE[2] | {"name": "other", "start": {"sampler": str(tmp_path / "rgb.pth.tar")}}
    with pytest.raises(Refusal, match="of another network"):
        runs.run(load(tmp_path, stage), store, tmp_path / "run")
    assert checkpoints.metadata(ours)["start"].keys() == {"query", "sampler"}
    assert runs.content(whole, "infonce-rgb")[METADATA]["start"] == {}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"start": {"query": "infonce-rgb"}}, r"coclr needs a trained network as sampler.*stages\[2\].start"),
        ({"start": {"sampler": "infonce-flwo"}}, r'"infonce-flwo".*stages\[2\].start: sampler.*"infonce-flow"'),
        ({"start": {"sampler": "infonce-rgb"}}, "'infonce-rgb' has no flow network.*it has rgb"),
        ({"start": {"sampler": "infonce-flow", "qeury": "infonce-rgb"}}, 'unknown role "qeury".*"query"'),
        ({"start": {"sampler": "rgb-1"}}, "earlier stage"),
        (
            {"settings": CYCLE[2]["settings"] | {"dim": 4}},
            "network of 'infonce-rgb' is another one: dim is 8 there, 4 here",
        ),
    ],
)
def test_starts_that_cannot_be_meant_are_refused_before_anything_runs(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        load(tmp_path, *CYCLE[:2], CYCLE[2] | changed)
