"""Shipped recipes: all load; those of published settings chain as published, and say of themselves what is so."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.synthetic import generate
from train import methods, recipe
from train.networks.settings import Differing, NetworkSettings
from train.optim import cosine
from train.order import Order
from train.recipe import FOLDER, Recipe, StageSettings

# For training: of split 1, and of the authors'.
VIDEOS = {"ucf101": 9537, "kinetics400": 232_422, "hmdb51": 3570}
# Forward passes of a clip that a step costs for each of its videos; of GOCA's clips four have half the length.
PASSES = {
    "infonce": 4,
    "ubernce": 4,
    "coclr": 5,
    "cmc": 8,
    "vicc": 4,
    "vicc across": 6,
    "goca": 24,
    "slic": 9,
    "dpc": 3,
    "cocon": 3,  # of each of its networks
}
ON_LABELS = {"finetune", "probe"}  # folders
ASSUMED = 40e12  # operations a second
SHIPPED = sorted(FOLDER.rglob("*.yaml"))
load = functools.cache(recipe.load)


def data_of(path: Path) -> str:
    """The data set of a recipe: of the folder "ucf101-r2plus1d-10" it is "ucf101"."""
    return path.parent.name.partition("-")[0]


PUBLISHED = [path for path in SHIPPED if data_of(path) in VIDEOS]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", SHIPPED, ids=named)
def test_shipped_recipe_loads(path: Path) -> None:
    loaded = load(path)
    method = "classify" if path.parent.name in ON_LABELS else path.stem
    assert loaded.title and loaded.stages[-1].method == method
    assert recipe.find(path.parent.name, path.stem) == path
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), "a recipe says at its top what it is for"


def test_there_are_recipes_of_every_method() -> None:
    for folder in ("small", "ucf101", "kinetics400"):
        assert {path.stem for path in SHIPPED if path.parent.name == folder} == set(methods.METHODS.names) - {
            "classify"
        }


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if path.parent.name in ("small", "small-four-views")], ids=named
)
def test_small_recipes_suit_the_synthetic_set(path: Path) -> None:
    loaded, flows = load(path), inspect.signature(generate).parameters["frames"].default - 1
    assert all(loaded.sampling_of(stage).least(loaded.clips) <= flows for stage in loaded.stages)


def steps_an_epoch(loaded: Recipe, stage: StageSettings, data: str) -> int:
    """As training counts them."""
    return len(Order(loaded.order, VIDEOS[data], loaded.batch_of(stage), loaded.seed))


@functools.cache
def forward(network: str, length: int, size: tuple[int, int], channels: int = 3) -> int:
    """Operations of a forward pass of one clip, through a network that is given as JSON."""
    made = NetworkSettings.model_validate_json(network).build(in_channels=channels).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        made(torch.empty(1, channels, length, *size, device="meta"))
    return counter.get_total_flops()


def pass_of(loaded: Recipe, stage: StageSettings) -> int:
    """Operations of a forward pass of a sample: of a clip by the network of RGB, as in the comment; of CoCon, whose
    views may differ in size, by all of its networks."""
    clips = loaded.clips
    if stage.method != "cocon":
        network = next(iter(loaded.stages[-1].settings.networks.values()))
        return forward(Differing().of(network).model_dump_json(), clips.length, clips.size)
    return sum(
        forward(
            Differing().of(network).model_dump_json(),
            clips.length,
            clips.stream(name).size,
            clips.stream(name).channels,
        )
        for name, network in stage.settings.networks.items()
    )


@pytest.mark.parametrize("path", PUBLISHED, ids=named)
def test_comments_say_what_the_stages_come_to(path: Path) -> None:
    loaded, text, data = load(path), path.read_text(encoding="utf-8"), data_of(path)
    clips = loaded.clips
    assert f"clips of {clips.length} frames" in text and f"{clips.size[0]}x{clips.size[1]}" in text
    each = [(steps_an_epoch(loaded, stage, data), loaded.batch_of(stage)) for stage in loaded.stages]
    said = {(int(steps), int(videos)) for steps, videos in re.findall(r"(\d+) steps of (\d+) videos", text)}
    assert said == set(each)
    network = next(iter(loaded.stages[-1].settings.networks.values()))
    once = forward(Differing().of(network).model_dump_json(), clips.length, clips.size)
    total = sum(
        pass_of(loaded, stage)
        * PASSES[stage.method + " across" * bool(getattr(stage.settings, "other", None))]
        * steps
        * batch
        * stage.epochs
        for stage, (steps, batch) in zip(loaded.stages, each, strict=True)
    )
    assert f"{once / 1e9:.1f} GFLOP" in text
    assert f"= {total / 1e15:,.0f} PFLOP, {total / ASSUMED / 3600:.1f} GPU-hours" in text


@pytest.mark.parametrize("path", PUBLISHED, ids=named)
def test_comments_give_the_commands_of_the_recipe(path: Path) -> None:
    name, data, method = path.parent.name, data_of(path), path.stem
    text = re.sub(r" \\\n# +", " ", path.read_text(encoding="utf-8"))
    assert f"make extract-flow DATASET={data} " in text
    run = f"runs/{name}-{method}"
    assert (
        f"make pretrain METHOD={method} RECIPE={name} STORE=stores/{data} RUN={run} ARGS='--hardware.devices " in text
    )
    tested_on = "hmdb51" if name == "hmdb51" else "ucf101"
    assert f"make evaluate RUN={run} STORE=stores/{tested_on}\n" in text


def test_reading_recipes_makes_no_network_and_no_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def module(self: torch.nn.Module, *arguments: Any, **settings: Any) -> None:
        made.append(type(self).__name__)

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
            made.append(str(function))
            return function(*arguments, **(settings or {}))

    for path in SHIPPED:
        recipe.load(path)  # so that what is imported on the way is imported
    monkeypatch.setattr(torch.nn.Module, "__init__", module)
    with Watched():
        for path in SHIPPED:
            recipe.load(path)
        assert not made
        torch.zeros(1)  # what would be seen
        torch.nn.Identity()
    assert made == ["aten.zeros.default", "Identity"]


# (batch, epochs, milestones, queue) of every stage of InfoNCE and of CoCLR, and how many of CoCLR there are
SETTINGS = {
    "ucf101": ((64, 300, [250, 280], 2048), (64, 100, [80], 2048), 4),
    "kinetics400": ((128, 300, [250, 280], 16384), (64, 50, [40], 16384), 2),
}


@pytest.mark.parametrize("folder", SETTINGS)
def test_coclr_alternates_as_published(folder: str) -> None:
    """RGB first; each stage goes on from its own stream's last network; the other stream's last one is the sampler."""
    infonce, coclr, count = SETTINGS[folder]
    loaded = load(FOLDER / folder / "coclr.yaml")
    assert [stage.method for stage in loaded.stages] == ["infonce"] * 2 + ["coclr"] * count
    latest: dict[str, str] = {}
    for place, stage in enumerate(loaded.stages):
        stream, other = ("rgb", "flow") if place % 2 == 0 else ("flow", "rgb")
        assert stage.settings.stream == stream
        assert stage.start == ({"query": latest[stream], "sampler": latest[other]} if place > 1 else {})
        optimiser = stage.settings.optimiser
        found = (loaded.batch_of(stage), stage.epochs, list(optimiser.milestones), stage.settings.queue)
        assert found == (infonce if place < 2 else coclr)
        assert (optimiser.name, optimiser.lr, optimiser.weight_decay) == ("adam", 1e-3, 1e-5)
        latest[stream] = stage.name
    assert load(FOLDER / folder / "infonce.yaml").stages == loaded.stages[:2]


@pytest.mark.parametrize("folder", ["ucf101", "kinetics400"])
def test_goca_is_trained_as_its_paper_says_where_its_script_does_not(folder: str) -> None:
    """Both streams, guided towards each other, prototypes placed apart; its program's learning rate and clips."""
    loaded = load(FOLDER / folder / "goca.yaml")
    [stage] = loaded.stages
    settings, optimiser = stage.settings, stage.settings.optimiser
    assert (settings.streams, settings.coupling, settings.prior_sign) == (("rgb", "flow"), "prior", 1)
    assert (settings.prototype_kind, settings.prototypes, settings.dim) == ("fixed", 1000, 128)
    assert loaded.batch + settings.queue >= settings.prototypes and loaded.sync_batchnorm
    assert optimiser.lr == pytest.approx(0.15 * loaded.batch**0.5, rel=1e-3) and optimiser.name == "larc"
    assert loaded.sampling.clips == settings.clips == 6 and loaded.sampling.shorter_length == loaded.clips.length // 2


@pytest.mark.parametrize("path", [path for path in PUBLISHED if path.stem == "vicc"], ids=named)
def test_vicc_alternates_as_published(path: Path) -> None:
    """A single stage in each stream, and two cycles across: each goes on from its stream's last network and prototypes,
    beside the other stream's last network; a fresh schedule and queue each time."""
    loaded = load(path)
    latest: dict[str, str] = {}
    for place, stage in enumerate(loaded.stages):
        stream, other = ("rgb", "flow") if place % 2 == 0 else ("flow", "rgb")
        settings, optimiser, single = stage.settings, stage.settings.optimiser, place < 2
        assert settings.stream == stream and (settings.other and settings.other.stream) == (None if single else other)
        assert stage.start == ({} if single else {"query": latest[stream], "other": latest[other]})
        found = (loaded.batch_of(stage), stage.epochs, settings.freeze_epochs, settings.queue_epoch, optimiser.horizon)
        assert found == ((192, 300, 100, 200, 500) if single else (96, 100, 0, 25, 0))
        assert loaded.precision_of(stage) == ("32-true" if single else "16-mixed")
        assert (settings.prototypes, settings.queue, settings.gradient_views) == (300, 1920, "first")
        assert (settings.epsilon, settings.iterations, settings.temperature) == (0.05, 3, 0.1)
        assert (optimiser.name, optimiser.lr, optimiser.final_lr, optimiser.weight_decay) == ("larc", 0.6, 6e-4, 1e-6)
        assert optimiser.schedule == "cosine" and not optimiser.warm_up
        latest[stream] = stage.name
    assert len(loaded.stages) == 6 and loaded.seed == 31


def test_the_learning_rate_that_vicc_s_cross_stage_starts_after() -> None:
    """What the recipe says of epoch 300."""
    stage = load(FOLDER / "ucf101" / "vicc.yaml").stages[0]
    assert f"{cosine(stage.settings.optimiser, 300 * 49, 500 * 49, 0):.3f}" == "0.208"


# Of probes and fine-tuning: optimiser, learning rate, weight decay, epochs, milestones, batch, share of the features
# that is dropped, and what the backbone's rate is multiplied by (None: it is frozen).
CLASSIFIERS: dict[str, tuple[str, float, float, int, list[int], int, float, float | None]] = {
    "finetune/coclr": ("adam", 1e-3, 1e-3, 500, [400, 450], 64, 0.9, 0.1),
    "finetune/scratch": ("adam", 1e-3, 1e-3, 500, [300, 400], 64, 0.9, 1.0),
    "finetune/vicc": ("sgd", 0.1, 1e-3, 500, [200, 300, 400, 450], 128, 0.9, 1.0),
    "finetune/goca": ("sgd", 0.1, 1e-3, 100, [60, 80], 128, 0.0, 0.1),
    "finetune/slic": ("adam", 1e-3, 1e-3, 150, [60, 100], 32, 0.9, 0.1),
    "finetune/cocon": ("adam", 1e-3, 1e-5, 100, [50], 16, 0.5, 1.0),
    "finetune/dpc": ("adam", 1e-3, 1e-3, 100, [50], 16, 0.5, 1.0),
    "probe/coclr": ("sgd", 0.1, 1e-3, 100, [60, 80], 64, 0.0, None),
    "probe/vicc": ("sgd", 0.1, 1e-3, 100, [60, 80], 128, 0.0, None),
    "probe/goca": ("sgd", 0.3, 1e-6, 100, [60, 80], 128, 0.0, None),
    "probe/slic": ("adam", 1e-3, 1e-3, 150, [60, 100], 32, 0.0, None),
}
CLASSIFYING = [path for path in SHIPPED if path.parent.name in ON_LABELS and "small" not in path.stem]


@pytest.mark.parametrize("path", CLASSIFYING, ids=named)
def test_classifiers_learn_as_published(path: Path) -> None:
    loaded, name = load(path), named(path)
    for stage in loaded.stages:
        settings, optimiser = stage.settings, stage.settings.optimiser
        rate = None if settings.frozen else settings.rates.get("backbone", 1.0)
        found = (optimiser.name, optimiser.lr, optimiser.weight_decay, stage.epochs, list(optimiser.milestones))
        assert (*found, loaded.batch, settings.head_settings.get("dropout", 0.0), rate) == CLASSIFIERS[name]
        assert stage.start == ({} if path.stem == "scratch" else {"network": "<run>"})
    assert loaded.keep_best.metric == "held_out_top1" and loaded.held_out_share == 0.1
    unit = {"probe/coclr", "probe/vicc"}
    assert {stage.settings.head_settings.get("unit_input", False) for stage in loaded.stages} == {name in unit}


def test_every_published_classifier_is_held_against_its_settings() -> None:
    assert {named(path) for path in CLASSIFYING} == set(CLASSIFIERS)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.parent.name in ON_LABELS], ids=named)
def test_recipes_of_classifiers_give_their_commands(path: Path) -> None:
    text, command = path.read_text(encoding="utf-8"), path.parent.name
    asked = "" if path.stem == "small" else f" RECIPE={path.stem}"
    given = " STORE=" if "scratch" in path.stem else " RUN=runs/"
    assert f"# Run        make {command}{asked}{given}" in text
