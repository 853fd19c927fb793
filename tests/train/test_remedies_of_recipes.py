"""What refusals of recipes and of changes of them say is to be done helps: each is done here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import pytest

from pipeline.commands.annotate import annotate
from pipeline.errors import Refusal
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, annotation, open_store
from pipeline.store.annotation import AnnotationSet, Said
from tests import remedies
from tests.remedies import helps
from tests.train import runs
from tests.train.batches import make, training_set
from tests.train.drawing import draw
from tests.train.runs import HARDWARE, IN_BATCH, INFONCE
from tests.train.stores import write_store
from train import commands, methods, overrides, pseudo_labels, recipe, stages, starts
from train.clips.spec import ClipSpec
from train.hardware import Hardware, device
from train.methods.method import MethodSettings
from train.networks.heads import HEADS
from train.networks.settings import NetworkSettings
from train.optim import OptimiserSettings
from train.order import OrderSettings
from train.sampling.blocks import Blocks
from train.sampling.random import Random
from train.settings import check_number, read
from train.training_set import of_splits

CLIPS = ClipSpec(length=4, stride=1, size=(16, 16))
NETWORK = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 8}
COCLR = NETWORK | {"stream": "flow", "sampler": {"stream": "rgb"}, "queue": 4}
KEPT = OrderSettings(last="keep")


def optimiser(**given: Any) -> OptimiserSettings:
    return read(OptimiserSettings, given, "optimiser")


def network(**given: Any) -> NetworkSettings:
    return read(NetworkSettings, given, "network")


def loaded(folder: Path, *listed: dict[str, Any], **changes: Any) -> recipe.Recipe:
    return runs.load(folder / "recipe.yaml", *(listed or (IN_BATCH,)), **changes)


def stage(method: str, start: dict[str, str] | None = None, /, **settings: Any) -> dict[str, Any]:
    begun = {"start": start} if start else {}
    return {"name": method, "method": method, "steps": 1, "settings": settings} | begun


def classify(**given: Any) -> dict[str, Any]:
    return stage("classify", **NETWORK | given)


def goca(*streams: str, **given: Any) -> dict[str, Any]:
    own = {key: value for key, value in NETWORK.items() if key not in ("stream", "dim")}
    return stage("goca", **own, streams=list(streams), **given)


def vicc(**given: Any) -> MethodSettings:
    return read(methods.settings_of("vicc"), NETWORK | {"queue": 0, "prototypes": 4} | given, "vicc")


def coclr_from(folder: Path, sampler: object = None) -> recipe.Recipe:
    """After stages of both streams, from one of which its sampler starts, or from a file."""
    start = {"sampler": str(sampler)} if sampler else {}
    return loaded(folder, IN_BATCH, INFONCE, stage("coclr", start, **COCLR))


def vicc_from(earlier: MethodSettings) -> None:
    """Its second stage, from a first one of RGB."""
    other = vicc(stream="flow")
    given = {"query": "first", "other": "second"}
    starts.check("vicc", vicc(other={"stream": "flow"}), given, {"first": earlier, "second": other})


def changed(*changes: str) -> dict[str, Any]:
    return overrides.changed(runs.settings(IN_BATCH), changes)[0]


def trained_by(method: str, recipe: object) -> None:
    commands._loaded(str(recipe), method, None, [])


def told_of(folder: str, method: str) -> str:
    """The recipe that is named in place of one."""
    with pytest.raises(Refusal) as refused:
        recipe.find(folder, method)
    return refused.value.remedy.removeprefix("another RECIPE=: ").split(" or ")[0].removesuffix(" has a file of it")


def on_devices(devices: int, hardware: int) -> int:
    return commands._Work(Hardware(devices=hardware), devices, None, 0, False, 0, "tensorboard").hardware.devices


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give warm_up, in epochs",
            lambda folder: optimiser(schedule="cosine", warm_up_from=1e-4),
            lambda folder: optimiser(schedule="cosine", warm_up_from=1e-4, warm_up=1),
        ),
        remedies.case(
            "give one of the two",
            lambda folder: read(OrderSettings, {"balanced": True, "block": 4}, "order"),
            lambda folder: [read(OrderSettings, one, "order") for one in ({"balanced": True}, {"block": 4})],
        ),
        remedies.case(
            "name it",
            lambda folder: network(aggregation_settings={"block_length": 2}),
            lambda folder: network(aggregation="gru", aggregation_settings={"block_length": 2}),
        ),
        remedies.case(
            ", or another backbone",
            lambda folder: network(backbone="s3d").check_clips(1, (16, 16)),
            lambda folder: [
                network(backbone="s3d").check_clips(32, (128, 128)),
                network(backbone="small").check_clips(4, (16, 16)),
            ],
        ),
        remedies.case(
            "YAML reads 1e-3 as text: write 1.0e-3",
            lambda folder: check_number("lr", "1e-3"),
            lambda folder: check_number("lr", 1.0e-3),
        ),
        remedies.case(
            "add it", lambda folder: HEADS.create("coclr"), lambda folder: HEADS.create("coclr", in_features=8)
        ),
        remedies.case(
            "give both, or none",
            lambda folder: loaded(folder, keep_best={"metric": "loss"}),
            lambda folder: [loaded(folder, keep_best={"metric": "loss", "mode": "min"}), loaded(folder)],
        ),
        remedies.case(
            "another sampling in the recipe, or another method",
            lambda folder: Blocks(blocks=2).check(CLIPS, 9),
            lambda folder: [Random().check(CLIPS, 9), Blocks(blocks=2).check(CLIPS, 1)],
        ),
        remedies.case(
            "a sampling's name and settings",
            lambda folder: loaded(folder, sampling=[1]),
            lambda folder: loaded(folder, sampling={"name": "random"}),
        ),
        remedies.case(
            "settings with which it draws any number (train/augment), or another augmentation",
            lambda folder: draw("coclr", count=3),
            lambda folder: [draw("coclr", count=3, one_clip=0), draw("small", count=3)],
        ),
        remedies.case(
            "name each class once",
            lambda folder: loaded(folder, classify(classes=["a", "a"])),
            lambda folder: loaded(folder, classify(classes=["a", "b"])),
        ),
        remedies.case(
            "leave one of the two out",
            lambda folder: loaded(folder, classify(frozen=True, rates={"backbone": 0.1})),
            lambda folder: [
                loaded(folder, classify(**one)) for one in ({"frozen": True}, {"rates": {"backbone": 0.1}})
            ],
        ),
        remedies.case(
            "none, or another stream",
            lambda folder: loaded(folder, goca("rgb")),
            lambda folder: [loaded(folder, goca("rgb", coupling="none")), loaded(folder, goca("rgb", "flow"))],
        ),
        remedies.case(
            "true, or name the other stream (other)",
            lambda folder: vicc(own_stream=False),
            lambda folder: [vicc(own_stream=True), vicc(own_stream=False, other={"stream": "flow"})],
        ),
        remedies.case(
            "another stream",
            lambda folder: vicc(other={"stream": "rgb"}),
            lambda folder: vicc(other={"stream": "flow"}),
        ),
        remedies.case(
            ": <an earlier stage, or a file>}",
            lambda folder: coclr_from(folder),
            lambda folder: [coclr_from(folder, "pixels"), coclr_from(folder, folder / "recipe.yaml")],
        ),
        remedies.case(
            "; give a stage that trains ",
            lambda folder: coclr_from(folder, "motion"),
            lambda folder: coclr_from(folder, "pixels"),
        ),
        remedies.case(
            "; give another stage",
            lambda folder: vicc_from(read(methods.settings_of("infonce"), NETWORK, "infonce")),
            lambda folder: vicc_from(vicc()),
        ),
    ],
)
def test_of_recipes(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give a YAML file, or the name of a folder",
            lambda folder: recipe.find(str(folder / "none.yaml"), "infonce"),
            lambda folder: [recipe.find(str(runs.write(folder / "a.yaml", {})), ""), recipe.find("small", "infonce")],
        ),
        remedies.case(
            " has a file of it",
            lambda folder: recipe.find("hmdb51", "goca"),
            lambda folder: recipe.find(told_of("hmdb51", "goca"), "goca"),
        ),
        remedies.case(
            ", or another recipe",
            lambda folder: trained_by("vicc", runs.write(folder / "recipe.yaml", runs.settings(IN_BATCH))),
            lambda folder: [trained_by("infonce", folder / "recipe.yaml"), trained_by("vicc", "small")],
        ),
        remedies.case(
            " is no KEY=VALUE",
            lambda folder: changed("batch"),
            lambda folder: [changed("stages.0.steps=200"), changed("batch=16")],
        ),
        remedies.case(
            "for example --set stages.0.steps=200, or --set batch=16",
            lambda folder: changed("=16"),
            lambda folder: [changed("stages.0.steps=200"), changed("batch=16")],
        ),
        remedies.case(
            "quote it within, as '\"...\"'",
            lambda folder: changed("title=[a"),
            lambda folder: changed('title="[a"'),
        ),
        remedies.case(
            " and --hardware.devices ",
            lambda folder: on_devices(2, 3),
            lambda folder: [on_devices(2, 1), on_devices(0, 3)],
        ),
        remedies.case(
            "other --hardware options, or none",
            lambda folder: device(Hardware(accelerator="gpu", devices=99), "32-true", False),
            lambda folder: [device(one, "32-true", False) for one in (Hardware(accelerator="cpu"), Hardware())],
        ),
    ],
)
def test_of_commands(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


def clips(length: int = 4, stride: int = 1) -> ClipSpec:
    return ClipSpec(length=length, stride=stride, size=(16, 16))


@pytest.mark.parametrize("short", ["drop", "pad"])
def test_of_short_videos(store: VideoStore, tmp_path: Path, short: str) -> None:
    def opened(length: int, stride: int) -> None:
        make(store, clips=clips(length, stride), sampling=Random(short=short)).close()

    with pytest.raises(Refusal, match="shorter clips or a smaller stride in the recipe$"):
        opened(4, 3)
    opened(2, 3)
    opened(4, 1)


@pytest.mark.remedy("order.last: drop in the recipe, or another batch")
def test_of_last_batches(store: VideoStore, tmp_path: Path) -> None:
    """13 videos: on two devices, and of a method that contrasts those of a batch."""
    helps(
        lambda folder: make(store, order=KEPT, world_size=2),
        lambda folder: [make(store, world_size=2).close(), make(store, order=KEPT, batch=2, world_size=1).close()],
        tmp_path,
    )

    def checked(last: str, batch: int) -> None:
        stages.check(loaded(tmp_path, IN_BATCH, order={"last": last}, batch=batch), store, HARDWARE)

    helps(lambda _: checked("keep", 4), lambda _: [checked("drop", 4), checked("keep", 5)], tmp_path)


@pytest.mark.remedy("; see `splits` in the recipe")
def test_of_splits(store: VideoStore, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        of_splits(store, loaded(tmp_path, splits=["val"]).splits)
    named = refused.value.remedy.split("splits ")[1].split(";")[0]
    assert len(of_splits(store, loaded(tmp_path, splits=named.split(", ")).splits)) == len(store.videos)


@pytest.mark.remedy("write labels of a manifest beside the videos: make annotate STORE= MANIFEST=")
def test_of_labels(tmp_path: Path) -> None:
    opened = write_store(tmp_path / "store", {f"v{number}": (5, 20, 24) for number in range(4)})
    manifest = Manifest([Video(name, f"{name}.mp4", "c", split="train") for name in opened.videos], ["c"])
    manifest.save(tmp_path / "manifest.csv")
    annotation.save(opened.root, "extraction", AnnotationSet([], dict.fromkeys(opened.videos, Said(split="train"))))

    def balanced(balanced: bool = True) -> None:
        training_set(open_store(opened.root)).order(OrderSettings(balanced=balanced), 2, seed=0)

    def labelled(folder: Path) -> None:
        training_set(open_store(opened.root), needs_labels=True)

    def of_labels(folder: Path) -> None:
        of = open_store(opened.root)
        pseudo_labels._classes(np.asarray(of.annotated.labels), str(of.root))

    helps(lambda _: balanced(), lambda _: balanced(False), tmp_path)
    for wrong in (labelled, of_labels):
        helps(wrong, lambda _: None, tmp_path)
    annotate(str(opened.root), tmp_path / "manifest.csv")
    for right in (lambda _: balanced(), labelled, of_labels):
        right(tmp_path)
