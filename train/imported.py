"""Published checkpoints as a run of ours, which evaluation reads like any other; and a checkpoint of ours as they
publish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Refusal, UsageError, refuse_unknown
from train import checkpoints, provenance, stages
from train import recipe as recipes
from train.checkpoints import METADATA
from train.console import tell
from train.methods.coclr import CoCLR
from train.methods.contrastive import OneStream, OneStreamSettings
from train.methods.infonce import InfoNCE, InfoNCESettings
from train.methods.ubernce import UberNCE
from train.networks.settings import NetworkSettings
from train.published import Published, coclr, import_published, published_state
from train.recipe import Recipe, StageSettings

# What the layout keeps of a queue's slots.
QUEUED: dict[type, tuple[str, ...]] = {
    InfoNCE: ("features", "pointer"),
    UberNCE: ("features", "pointer", "labels"),
    CoCLR: ("features", "pointer", "sources", "filled"),
}
WRITTEN = ("coclr",)  # the layouts that checkpoints of ours fit into
RECIPE = ("ucf101", "infonce")  # of which the run takes what the files do not say
SHOWN = 4  # names of tensors that are told one by one


def import_run(files: dict[str, Path], run: Path, layout: str) -> None:
    """Write RUN with a finished stage for each stream -> file. Only GOCA's files say of which stream their networks
    are.

    Of a file of CoCLR the query network is taken, with its key network and queue; of others the stream's or the query
    network, whole: projection head, aggregation or classifier included. Videos are compared by the layer that the paper
    compares them by. What a run has no place for is told. Raises Refusal for a run that is there, a file that is none
    and files whose networks saw other clips, and UsageError without a file.
    """
    if not files:
        raise UsageError("no file is given", where="import", remedy="--rgb FILE, --flow FILE, or both")
    if run.exists():
        raise Refusal("there is something already", where=str(run), remedy="give a new folder as --run")
    found = {stream: import_published(path, layout) for stream, path in files.items()}
    recipe = _recipe(found, files)
    written = {stage.name: _checkpoint(recipe, stage, found[stage.name], files[stage.name]) for stage in recipe.stages}
    for stream, published in found.items():
        _tell_what_is_left_out(published, files[stream])
    stages.prepare(run, recipe)
    for name, content in written.items():
        checkpoints.write(content, stages.checkpoint_path(run, name))


def _recipe(found: dict[str, Published], files: dict[str, Path]) -> Recipe:
    """A stage for each stream, on the clips that its network was trained on, which must be the same for all."""
    seen = [(published.clips, published.layer) for published in found.values()]
    if any(other != seen[0] for other in seen):
        listed = ", ".join(f"{files[stream]} ({published.layout})" for stream, published in found.items())
        raise Refusal(
            "the networks were trained on clips of other kinds, or videos are compared by other layers of them",
            where=listed,
            remedy="import each into a run of its own",
        )
    clips, layer = seen[0]
    return recipes.load(recipes.find(*RECIPE)).changed(
        title=f"published networks: {', '.join(map(str, files.values()))}",
        clips=clips,
        layer=layer,
        stages=[
            StageSettings(name=stream, method="infonce", settings=_settings(stream, published), epochs=1)
            for stream, published in found.items()
        ],
    )


def _settings(stream: str, published: Published) -> InfoNCESettings:
    queue = len(published.queue["features"]) if published.queue and "key" in published.backbones else 0
    network = NetworkSettings.of_published(published.network)
    return InfoNCESettings(stream=stream, queue=queue, **dict(network))


def _checkpoint(recipe: Recipe, stage: StageSettings, published: Published, path: Path) -> dict[str, Any]:
    method = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
    assert isinstance(method, InfoNCE)
    pair = method.pair
    parts = {"query": published.state(published.role(stage.name))}
    if "key" in pair.networks:
        parts["key"] = published.state("key")
        parts["queue"] = pair.queue.state_dict()
        parts["queue"] |= {name: tensor for name, tensor in published.queue.items() if name in parts["queue"]}
    checkpoints.load_strictly(pair, checkpoints.flat(parts), str(path))
    facts = provenance.described(recipe, stage)
    facts |= {"imported": checkpoints.digest(path), "step": 0, "finished": True}
    return {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}


def _tell_what_is_left_out(published: Published, path: Path) -> None:
    if published.prototypes is not None:
        tell(f"{path}: {len(published.prototypes)} prototypes are left out, for which such a run has no place")
    if published.extra:
        tell(f"{path}: {_listed(published.extra)} are left out: no part of the layout {published.layout}")
    if not published.network.get("backbone_settings", {}).get("running_statistics", True):
        tell(
            f"{path}: batch norm has no running statistics. It uses those of the clips that are computed together, on"
            " which every feature depends, as in the released code"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def export_published(path: Path, layout: str, out: Path) -> None:
    """Write a checkpoint of ours in a published layout, so that its authors' scripts read it.

    Raises Refusal for a checkpoint of a method or backbone that the layout does not know, UsageError for a layout that
    is unknown, or that no checkpoint of ours fits into.
    """
    if layout not in WRITTEN:
        refuse_unknown("layout", layout, WRITTEN, where="export")
    method, facts = checkpoints.load_method(path), checkpoints.metadata(path)
    settings = method.settings
    if (
        not isinstance(method, OneStream)
        or not isinstance(settings, OneStreamSettings)
        or not settings.queue
        or settings.backbone not in coclr.WRITTEN
        or settings.head != "coclr"
    ):
        raise Refusal(
            f"the layout {layout} is of InfoNCE, UberNCE and CoCLR with a queue, on {', '.join(coclr.WRITTEN)}",
            where=f"{path}: {facts['method']}",
            remedy="export the bare backbone: leave out --layout",
        )
    networks = {"query": method.pair.query, "key": method.pair.key}
    queue = {name: tensor for name, tensor in method.pair.queue.state_dict().items() if name in QUEUED[type(method)]}
    if isinstance(method, CoCLR):
        networks["sampler"] = method.sampler
        queue["other"] = method.sampled.features
    published = Published(
        layout,
        {"backbone": settings.backbone, "head": settings.head},
        {role: network.backbone.state_dict() for role, network in networks.items()},
        {
            role: {f"head.{name}": t for name, t in network.head.state_dict().items()}
            for role, network in networks.items()
        },
        queue=queue,
    )
    content = {"state_dict": published_state(published), "epoch": 0, "iteration": facts["step"]}
    checkpoints.write(content, out)
