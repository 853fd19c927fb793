"""Published checkpoints as a run of ours, which evaluation reads like any other; and a checkpoint of ours as they publish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Refusal, UsageError, refuse_unknown
from train import checkpoints, provenance, stages
from train import recipe as recipes
from train.checkpoints import FRESH_HEAD, METADATA
from train.console import tell
from train.methods.coclr import CoCLR
from train.methods.contrastive import OneStream, OneStreamSettings
from train.methods.infonce import InfoNCE, InfoNCESettings
from train.methods.ubernce import UberNCE
from train.published import Published, import_published, published_state
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
    """Write RUN with a finished stage for each stream -> file. Only GOCA's files say of which stream their networks are.

    Of a file of CoCLR the query network is taken, with its key network and queue; of ViCC the query network. Of a linear
    probe, a fine-tuned network and those whose projection head is another than ours (GOCA, SLIC, DPC, CoCon) the backbone is
    taken; a projection head is made from the seed, which is told. Raises Refusal for a run that is there, a file that is
    none and files whose networks saw other clips, and UsageError without a file.
    """
    if not files:
        raise UsageError("no file is given", where="import", remedy="--rgb FILE, --flow FILE, or both")
    if run.exists():
        raise Refusal("there is something already", where=str(run), remedy="give a new folder as --run")
    found = {stream: import_published(path, layout) for stream, path in files.items()}
    recipe = _recipe(found, files)
    written = {stage.name: _checkpoint(recipe, stage, found[stage.name], files[stage.name]) for stage in recipe.stages}
    for stream, published in found.items():
        _tell_what_is_left_out(published, stream, files[stream], recipe.seed)
    stages.prepare(run, recipe)
    for name, content in written.items():
        checkpoints.write(content, stages.checkpoint_path(run, name))


def _recipe(found: dict[str, Published], files: dict[str, Path]) -> Recipe:
    """A stage for each stream, on the clips that its network was trained on, which must be the same for all."""
    clips = [published.clips for published in found.values()]
    if any(other != clips[0] for other in clips):
        listed = ", ".join(f"{files[stream]} ({published.layout})" for stream, published in found.items())
        raise Refusal(
            "the networks were trained on clips of other kinds",
            where=listed,
            remedy="import each into a run of its own",
        )
    return recipes.load(recipes.find(*RECIPE)).changed(
        title=f"published networks: {', '.join(map(str, files.values()))}",
        clips=clips[0],
        stages=[
            StageSettings(name=stream, method="infonce", settings=_settings(stream, published), epochs=1)
            for stream, published in found.items()
        ],
    )


def _settings(stream: str, published: Published) -> InfoNCESettings:
    role = published.role(stream)
    queue = len(published.queue["features"]) if published.queue and "key" in published.backbones else 0
    settings = InfoNCESettings(
        stream=stream, backbone=published.backbone, backbone_settings=published.backbone_settings, queue=queue
    )
    if not published.has_our_head(role):
        return settings
    return settings.changed(dim=len(published.heads[role]["head.2.weight"]))


def _checkpoint(recipe: Recipe, stage: StageSettings, published: Published, path: Path) -> dict[str, Any]:
    method = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
    assert isinstance(method, InfoNCE)
    pair, role = method.pair, published.role(stage.name)
    parts = {"query": published.encoder(role)}
    if "key" in pair.networks:
        parts["key"] = published.encoder("key")
        parts["queue"] = pair.queue.state_dict()
        parts["queue"] |= {name: tensor for name, tensor in published.queue.items() if name in parts["queue"]}
    if not published.has_our_head(role):
        parts["query"] |= {f"head.{name}": tensor for name, tensor in pair.query.head.state_dict().items()}
    checkpoints.load_strictly(pair, checkpoints.flat(parts), str(path))
    facts = provenance.described(recipe, stage)
    facts |= {"imported": checkpoints.digest(path), "step": 0, "finished": True}
    facts[FRESH_HEAD] = not published.has_our_head(role)
    return {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}


def _tell_what_is_left_out(published: Published, stream: str, path: Path, seed: int) -> None:
    role = published.role(stream)
    if not published.has_our_head(role):
        head = list(published.heads[role])
        found = "a head of another form than ours" if head else "no head"
        left_out = f"{_listed(head)} are left out, and " if head else ""
        tell(f"{path}: {found}. The backbone is taken; {left_out}the head is a fresh one, from the seed {seed}")
    if published.prototypes is not None:
        tell(f"{path}: {len(published.prototypes)} prototypes are left out, for which such a run has no place")
    if published.extra:
        tell(f"{path}: {_listed(published.extra)} are left out: no part of the layout {published.layout}")
    if not published.backbone_settings.get("running_statistics", True):
        tell(
            f"{path}: batch norm has no running statistics. It uses those of the clips that are computed together, on"
            " which every feature depends, as in the released code"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def export_published(path: Path, layout: str, out: Path) -> None:
    """Write a checkpoint of ours in a published layout, so that its authors' scripts read it.

    Raises Refusal for a checkpoint of a method or backbone that the layout does not know, UsageError for a layout that is
    unknown, or that no checkpoint of ours fits into.
    """
    if layout not in WRITTEN:
        refuse_unknown("layout", layout, WRITTEN, where="export")
    method, facts = checkpoints.load_method(path), checkpoints.metadata(path)
    settings = method.settings
    if (
        not isinstance(method, OneStream)
        or not isinstance(settings, OneStreamSettings)
        or not settings.queue
        or settings.backbone not in ("s3d", "s3dg")
    ):
        raise Refusal(
            f"the layout {layout} is of InfoNCE, UberNCE and CoCLR with a queue, on S3D",
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
        settings.backbone,
        {role: network.backbone.state_dict() for role, network in networks.items()},
        {
            role: {f"head.{name}": t for name, t in network.head.state_dict().items()}
            for role, network in networks.items()
        },
        queue=queue,
    )
    content = {"state_dict": published_state(published), "epoch": 0, "iteration": facts["step"]}
    checkpoints.write(content, out)
