"""Probes and fine-tuning of a run: what is taken from it, what it is told, and the commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests import remedies
from tests.remedies import helps
from tests.train import layouts, runs
from tests.train.runs import HARDWARE, IN_BATCH, INFONCE
from tests.train.test_published import published_state
from train import checkpoints, commands, file_commands, finetune, run_folder, stages
from train.methods.method import Start
from train.recipe import FOLDER, Recipe

SHORT = {"name": "rgb", "method": "classify", "steps": 2, "start": {"network": "<run>"}}
OPTIMISER = {"name": "sgd", "lr": 0.01}


def recipe(folder: Path, *streams: str, start: bool = True, **settings: Any) -> Path:
    """Of a stage for each of the streams."""
    listed = [
        SHORT | {"name": name, "settings": {"stream": name, "optimiser": OPTIMISER} | settings}
        for name in streams or ("rgb",)
    ]
    if not start:
        listed = [{key: value for key, value in stage.items() if key != "start"} for stage in listed]
    return runs.write(folder / "finetune.yaml", runs.settings(*listed))


@pytest.fixture(scope="module")
def pretrained(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on RGB and of one on flow."""
    folder = tmp_path_factory.mktemp("pre-trained")
    centred = IN_BATCH | {"steps": 2, "settings": IN_BATCH["settings"] | {"temporal_centring": True}}
    short = {key: value for key, value in INFONCE.items() if key != "epochs"} | {"steps": 1}
    short["settings"] = {key: value for key, value in INFONCE["settings"].items() if key != "optimiser"}
    runs.run(runs.load(folder / "recipe.yaml", centred, short), store, folder / "run")
    return folder / "run"


def begun(path: Path, run: Path | None, streams: list[str] = []) -> Recipe:  # noqa: B006  (read alone)
    return finetune.begun_with(finetune.recipes.load(path), run, streams)


def test_what_the_recipe_leaves_open_is_the_runs(pretrained: Path, tmp_path: Path) -> None:
    found = begun(recipe(tmp_path, "rgb", "flow"), pretrained)
    rgb, flow = found.stages
    assert rgb.settings.backbone == flow.settings.backbone == "small"
    assert rgb.settings.backbone_settings == {"width": 0.25}
    assert (rgb.settings.temporal_centring, flow.settings.temporal_centring) == (True, False)
    assert rgb.start == {"network": str(run_folder.checkpoint_path(pretrained, "pixels"))}
    assert flow.start == {"network": str(run_folder.checkpoint_path(pretrained, "motion"))}
    said = begun(recipe(tmp_path, temporal_centring=False), pretrained)
    assert said.stages[0].settings.temporal_centring is False


def test_a_network_begins_as_the_run_left_it_with_a_fresh_classifier(
    store: VideoStore, pretrained: Path, tmp_path: Path
) -> None:
    loaded = begun(recipe(tmp_path), pretrained).of_classes(store.classes)
    assert loaded.stages[0].settings.classes == store.classes
    weights = stages.starting_weights(loaded, loaded.stages[0], tmp_path / "new")["network"]
    network = checkpoints.load_method(run_folder.checkpoint_path(pretrained, "pixels")).networks["rgb"]
    assert list(weights) == ["backbone"]
    assert runs.flatten(weights["backbone"]) == runs.flatten(dict(network.backbone.state_dict()))


def test_what_only_pre_training_has_is_left_behind(tmp_path: Path) -> None:
    settings = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}, "head": "none", "queue": 0}
    settings |= {"aggregation": "gru", "aggregation_settings": {"block_length": 2, "hidden": 8}}
    stage = IN_BATCH | {"steps": 1, "settings": settings}
    first = runs.load(tmp_path / "recipe.yaml", stage)
    method = checkpoints.create("infonce", first.stages[0].settings, first.channels, seed=0)
    facts = stages.provenance.described(first, first.stages[0]) | {"step": 0, "finished": True}
    content = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), "costream": facts}
    run_folder.prepare(tmp_path / "run", first)
    checkpoints.write(content, run_folder.checkpoint_path(tmp_path / "run", "pixels"))
    found = begun(recipe(tmp_path), tmp_path / "run")
    assert found.stages[0].settings.aggregation_settings == {"block_length": 2, "hidden": 8, "predicts": False}
    weights = stages.starting_weights(found, found.stages[0], tmp_path)["network"]
    made = checkpoints.create("classify", found.stages[0].settings, found.channels, seed=1)
    checkpoints.start_from(made.starting["network"][0], weights, "here")
    assert torch.equal(
        made.network.aggregation.gru.out_gate.weight, method.networks["rgb"].aggregation.gru.out_gate.weight
    )


@pytest.mark.remedy("give a file that has it, such as the pre-trained one that this was made from")
def test_a_checkpoint_says_what_it_began_with(store: VideoStore, pretrained: Path, tmp_path: Path) -> None:
    loaded = begun(recipe(tmp_path), pretrained).of_classes(store.classes)
    runs.run(loaded, store, tmp_path / "run")
    facts = checkpoints.metadata(run_folder.checkpoint_path(tmp_path / "run", "rgb"))
    assert facts["begun"] == {"network": {"method": "infonce", "pretraining": store.root.name}}
    assert facts["data"] == store.root.name and facts["after"] == ["infonce"]
    own, before = (run_folder.checkpoint_path(*of) for of in ((tmp_path / "run", "rgb"), (pretrained, "pixels")))
    start = Start("rgb", checkpoints.networks_of(before)["rgb"], optional=())
    helps(
        lambda _: checkpoints.starting_weights(own, start), lambda _: checkpoints.starting_weights(before, start), own
    )
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    assert checkpoints.lineage(tmp_path / "other.pth") == {"method": "", "pretraining": ""}


def test_streams_that_the_run_does_not_have_are_left_out_and_told(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = shutil.copytree(pretrained, tmp_path / "run")
    shutil.rmtree(run / "motion")
    found = begun(recipe(tmp_path, "rgb", "flow"), run)
    assert [stage.name for stage in found.stages] == ["rgb"]
    assert f"{run} has no network of flow, which is left out" in capsys.readouterr().err
    assert [stage.name for stage in begun(recipe(tmp_path, "rgb", "flow"), pretrained, ["flow"]).stages] == ["flow"]
    with pytest.raises(Refusal, match=r"(?s)no network of flow.*networks of rgb"):
        begun(recipe(tmp_path, "flow"), run)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "RUN=runs/mine",
            lambda folder: begun(recipe(folder), None),
            lambda folder: begun(recipe(folder), Path("runs/mine")),
        ),
        remedies.case(
            "leave RUN= out",
            lambda folder: begun(recipe(folder, start=False, backbone="small"), Path("runs/mine")),
            lambda folder: begun(recipe(folder, start=False, backbone="small"), None),
        ),
        remedies.case(
            "leave it out of the recipe, and it is the run's",
            lambda folder: begun(recipe(folder, backbone_settings={"width": 0.5}), Path("runs/mine")),
            lambda folder: begun(recipe(folder), Path("runs/mine")),
        ),
        remedies.case(
            "; give a recipe of one of them",
            lambda folder: begun(recipe(folder, "pose"), Path("runs/mine")),
            lambda folder: [begun(recipe(folder, stream), Path("runs/mine")) for stream in ("rgb", "flow")],
        ),
        remedies.case(
            "give the RUN= that `make pretrain` wrote",
            lambda folder: begun(recipe(folder), Path("runs")),
            lambda folder: begun(recipe(folder), Path("runs/mine")),
        ),
    ],
)
def test_what_is_told_to_do_about_a_run_helps(
    pretrained: Path, tmp_path: Path, wrong: Callable, right: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pretrained, "runs/mine")
    helps(wrong, right, tmp_path)


def test_what_cannot_be_meant_fails(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='unknown stream "flou"'):
        begun(recipe(tmp_path, "rgb", "flow"), pretrained, ["flou"])
    with pytest.raises(UsageError, match='unknown method in recipe finetune "cocrl"'):
        finetune.find("finetune", "cocrl")


def test_other_clips_than_the_runs_are_told(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    begun(recipe(tmp_path), pretrained)
    assert "other clips" not in capsys.readouterr().err
    settings = runs.settings(
        SHORT | {"settings": {"stream": "rgb"}}, clips={"length": 4, "stride": 1, "size": [20, 20]}
    )
    begun(runs.write(tmp_path / "larger.yaml", settings), pretrained)
    assert "stage rgb: other clips than the run was trained on: size [20, 20] (the run's [" in capsys.readouterr().err


@pytest.mark.remedy("make pretrain with the same RUN= goes on to it", "OUT=runs/scratch")
def test_the_commands_train_and_go_on(
    store: VideoStore,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run, path = tmp_path / "mine", str(recipe(tmp_path))
    shutil.copytree(pretrained, run, ignore=shutil.ignore_patterns("*.ckpt"))
    same = str(pretrained.with_name("recipe.yaml"))
    helps(
        lambda _: commands.finetune(str(store.root), run, path, hardware=HARDWARE),
        lambda _: commands.pretrain("infonce", str(store.root), run, same, hardware=HARDWARE),
        tmp_path,
    )
    assert commands.finetune(str(store.root), run, path, hardware=HARDWARE) == 0
    assert "training on labels 'a tiny run' (stages: rgb) on 13 videos" in capsys.readouterr().err
    facts = checkpoints.metadata(tmp_path / "mine-finetune" / "rgb" / "checkpoints" / "last.ckpt")
    assert facts["finished"] and facts["after"] == ["infonce"]  # by whose protocol it is tested
    assert commands.finetune(str(store.root), run, path, hardware=HARDWARE) == 0
    assert "finished already" in capsys.readouterr().err
    frozen = str(recipe(tmp_path, frozen=True))
    assert commands.probe(str(store.root), run, frozen, hardware=HARDWARE) == 0
    assert checkpoints.metadata(tmp_path / "mine-probe" / "rgb" / "checkpoints" / "last.ckpt")["finished"]
    small = {"backbone": "small", "backbone_settings": {"width": 0.25}}
    scratch = str(recipe(tmp_path, start=False, **small))
    helps(
        lambda _: commands.finetune(str(store.root), recipe=scratch, hardware=HARDWARE),
        lambda _: commands.finetune(str(store.root), recipe=scratch, out=Path("runs/scratch"), hardware=HARDWARE),
        tmp_path,
    )
    with pytest.raises(UsageError, match="begins with a run, and none is given"):  # nothing is trained from nowhere
        commands.pretrain("classify", str(store.root), tmp_path / "new", str(recipe(tmp_path)), hardware=HARDWARE)
    assert not (tmp_path / "new").exists()


PUBLISHED: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "coclr": lambda: published_state("infonce"),
    "vicc": lambda: layouts.of_list("vicc_single_r21d"),
    "goca": lambda: layouts.of_list("goca_r2plus1d_18_custom_sharedhead"),
    "slic": layouts.slic,
    "dpc": lambda: layouts.predictive("18"),
    "cocon": lambda: layouts.predictive("18", statistics=True),
}


LARGE = ("coclr", "goca", "slic")  # many weights


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in PUBLISHED]
)
def test_published_networks_are_fine_tuned_by_the_recipe_of_their_paper(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": PUBLISHED[name](), "epoch": 1}, tmp_path / "rgb.pth.tar")
    file_commands.import_files(tmp_path / "run", rgb=tmp_path / "rgb.pth.tar")
    listed = ("finetune", "probe") if (FOLDER / "probe" / f"{name}.yaml").is_file() else ("finetune",)
    for folder in listed:
        found = begun(finetune.find(folder, name), tmp_path / "run", ["rgb"]).of_classes(["a", "b", "c"])
        [stage] = found.stages
        weights = stages.starting_weights(found, stage, tmp_path)["network"]
        made = checkpoints.create("classify", stage.settings, found.channels, seed=0)
        checkpoints.start_from(made.starting["network"][0], weights, "here")
        trunk = checkpoints.load_method(run_folder.checkpoint_path(tmp_path / "run", "rgb")).networks["rgb"]
        assert runs.flatten(dict(made.network.backbone.state_dict())) == runs.flatten(dict(trunk.backbone.state_dict()))
        assert made.network.pool.cells == trunk.pool.cells and made.network.head.linear.weight.shape[0] == 3
        assert ("aggregation" in weights) == (name in ("dpc", "cocon"))
