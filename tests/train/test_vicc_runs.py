"""ViCC as a recipe trains it: resume at every step, prototypes from stage to stage, a collapse that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import runs
from train import run_folder, stages
from train.callbacks.collapse import SIGNS
from train.clustering import watching

SETTINGS: dict[str, Any] = {
    "backbone": "small",
    "backbone_settings": {"width": 0.25},
    "dim": 8,
    "prototypes": 6,
    "queue": 8,
    "optimiser": {"name": "larc", "lr": 0.6, "schedule": "cosine", "horizon": 5, "weight_decay": 1e-6},
}


def single(stream: str, name: str = "", **changes: Any) -> dict[str, Any]:
    settings = SETTINGS | {"stream": stream} | changes
    return {"name": name or stream, "method": "vicc", "epochs": 1, "settings": settings}


def across(stream: str, other: str, start: dict[str, str], name: str = "across", **changes: Any) -> dict[str, Any]:
    stage = single(stream, name, other={"stream": other}, **changes)
    return stage | {"start": start}


LATER = {"queue_epoch": 1, "freeze_epochs": 2}


@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode")
def test_a_run_that_is_stopped_after_every_step_is_the_same(store: VideoStore, tmp_path: Path) -> None:
    """Three epochs of three steps in both stages: rows are queued from the second, prototypes move from the third."""
    listed = [single("flow"), single("rgb", **LATER) | {"epochs": 3}]
    listed += [across("rgb", "flow", {"query": "rgb", "other": "flow"}, **LATER) | {"epochs": 3}]
    recipe = runs.load(tmp_path / "recipe.yaml", *listed)
    runs.run(recipe, store, tmp_path / "whole")
    run_folder.prepare(tmp_path / "run", recipe)
    stages.run_stage(recipe, recipe.stages[0], store, tmp_path / "run", runs.HARDWARE)
    for stage in recipe.stages[1:]:
        for done in range(1, 9):
            with runs.signalled(done - 1), pytest.raises(stages.Stopped):
                stages.run_stage(recipe, stage, store, tmp_path / "run", runs.HARDWARE)
        stages.run_stage(recipe, stage, store, tmp_path / "run", runs.HARDWARE)
        runs.assert_same_runs(tmp_path / "whole", tmp_path / "run", stage.name)
        state = runs.content(tmp_path / "run", stage.name)["state_dict"]
        assert state["queues.1.filled"].all() and state["watch.slot"] == 9 * runs.BATCH


@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode")
def test_prototypes_and_networks_go_from_stage_to_stage(store: VideoStore, tmp_path: Path) -> None:
    """What each stage begins with, in two alternations."""
    recipe = runs.load(
        tmp_path / "recipe.yaml",
        single("flow"),
        single("rgb"),
        across("rgb", "flow", {"query": "rgb", "other": "flow"}, "rgb-1"),
        across("flow", "rgb", {"query": "flow", "other": "rgb-1"}, "flow-1"),
    )
    first: dict[str, dict[str, Tensor]] = {}

    def keep(method: Any, batch: Any) -> None:
        if method.global_step == 0:
            first[recipe.stages[len(first)].name] = {name: t.clone() for name, t in method.state_dict().items()}

    with runs.in_step(keep):
        runs.run(recipe, store, tmp_path / "run")
    ended = {stage.name: runs.content(tmp_path / "run", stage.name)["state_dict"] for stage in recipe.stages}

    def same(begun: str, part: str, before: str, of: str) -> bool:
        pairs = [
            (tensor, ended[before][of + name.removeprefix(part)])
            for name, tensor in first[begun].items()
            if name.startswith(part)
        ]
        return bool(pairs) and all(torch.equal(*pair) for pair in pairs)

    for begun, own, other in (("rgb-1", "rgb", "flow"), ("flow-1", "flow", "rgb-1")):
        assert same(begun, "network.", own, "network.") and same(begun, "prototypes.", own, "prototypes.")
        assert same(begun, "other.", other, "network.")
        assert not first[begun]["queues.0.filled"].any() and first[begun]["watch.slot"] == 0
    assert not torch.equal(ended["rgb"]["prototypes.weight"], first["rgb"]["prototypes.weight"])


INFONCE = {**runs.INFONCE, "name": "contrast", "epochs": 1}
INFONCE["settings"] = {**INFONCE["settings"], "stream": "rgb"}


def test_a_stage_across_streams_needs_both_networks(tmp_path: Path) -> None:
    listed = [single("flow"), single("rgb")]
    for start, lacks in (({"query": "rgb"}, "other"), ({"other": "flow"}, "query"), ({}, "query")):
        with pytest.raises(UsageError, match=f"vicc needs a trained network as {lacks}"):
            runs.load(tmp_path / "recipe.yaml", *listed, across("rgb", "flow", start))


def test_a_stage_across_streams_does_not_start_without_prototypes(store: VideoStore, tmp_path: Path) -> None:
    """Neither from a stage nor from a file."""
    last = across("rgb", "flow", {"query": "contrast", "other": "flow"})
    with pytest.raises(UsageError, match=r"(?s)'contrast' has no prototypes.*query is to start from.*query"):
        runs.load(tmp_path / "recipe.yaml", single("flow"), INFONCE, last)
    runs.run(runs.load(tmp_path / "one.yaml", INFONCE), store, tmp_path / "one")
    last["start"]["query"] = str(run_folder.checkpoint_path(tmp_path / "one", "contrast"))
    with pytest.raises(Refusal, match="no prototypes.*would stay random"):
        runs.run(runs.load(tmp_path / "two.yaml", single("flow"), last), store, tmp_path / "two")


def test_a_stage_of_one_stream_tells_that_its_prototypes_are_fresh(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = single("rgb") | {"start": {"query": "contrast"}}
    runs.run(runs.load(tmp_path / "recipe.yaml", INFONCE, begun), store, tmp_path / "run")
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "stage rgb: contrast has no prototypes like this network's: query starts with a fresh one, from the seed 3"
        in told
    )


def test_another_number_of_prototypes_is_refused(store: VideoStore, tmp_path: Path) -> None:
    """Of an earlier stage before anything runs, of a file when it is read."""
    again = single("rgb", "again", prototypes=7) | {"start": {"query": "rgb"}}
    with pytest.raises(UsageError, match="the prototypes of 'rgb' are 6 of length 8, and query has 7 of length 8"):
        runs.load(tmp_path / "recipe.yaml", single("rgb"), again)
    runs.run(runs.load(tmp_path / "one.yaml", single("rgb")), store, tmp_path / "one")
    again["start"] = {"query": str(run_folder.checkpoint_path(tmp_path / "one", "rgb"))}
    with pytest.raises(Refusal, match=r"prototypes.weight is \(6, 8\), the network's is \(7, 8\)"):
        runs.run(runs.load(tmp_path / "recipe.yaml", again), store, tmp_path / "run")
    again["settings"]["prototypes"] = 6
    runs.run(runs.load(tmp_path / "recipe.yaml", again), store, tmp_path / "same")


MADE: dict[str, Any] = {"queue": 0, "prototypes": 4, "optimiser": {"name": "larc", "lr": 0.6}}
STILL = {"optimiser": {"name": "larc", "lr": 1e-9}}
# Name of the sign, settings that make it, and settings that the message says to change.
COLLAPSES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lr": ("assignment_entropy", {"optimiser": {"name": "larc", "lr": 20.0}}, {"optimiser": MADE["optimiser"]}),
    "epsilon": ("assignment_entropy", {"epsilon": 5.0}, {"epsilon": 0.05}),
    "too low a rate": ("largest_prototype", STILL, {"optimiser": MADE["optimiser"]}),
    "too many": ("empty_prototypes", STILL | {"prototypes": 50, "queue": 48}, {"prototypes": 4}),
    "no room": ("prototype_cosine", {"prototypes": 16, "queue": 16, "dim": 2}, {"dim": 8}),
    "no room for so many": ("prototype_cosine", {"prototypes": 16, "queue": 16, "dim": 2}, {"prototypes": 3}),
}


@pytest.mark.parametrize("case", COLLAPSES)
@pytest.mark.remedy("; and another RUN=", told=True)
def test_a_recipe_made_to_collapse_is_told_and_the_remedy_helps(
    store: VideoStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    """In the first line that is judged, of the second epoch or the first after as many clips as are remembered."""
    remembered = 10 if case == "too low a rate" else 1
    monkeypatch.setattr(watching, "REMEMBERED", remembered)
    sign, settings, remedy = COLLAPSES[case]

    def told(name: str, **changed: Any) -> list[str]:
        stage = single("rgb", **(MADE | settings | changed)) | {"epochs": 5}
        capsys.readouterr()
        runs.run(runs.load(tmp_path / f"{name}.yaml", stage), store, tmp_path / name)
        return [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line and sign in line]

    lines = told("made")
    judged = max(4, -(-remembered * (MADE | settings)["prototypes"] // runs.BATCH))
    written = [line for line in runs.lines(tmp_path / "made", "rgb") if line["step"] >= judged]
    first = next(line for line in written if line[sign] > SIGNS[sign][0])
    wanted = f"rgb: the prototypes have collapsed in epoch {first['epoch']}, step {first['step']}: "
    assert lines[0] == f"{wanted}{SIGNS[sign][1]} ({sign} {first[sign]:.3f})"
    assert not told("mended", **remedy)
