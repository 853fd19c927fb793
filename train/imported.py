"""Published checkpoints as a run of ours, which evaluation reads like any other; and a checkpoint of ours as they publish."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.errors import Refusal, UsageError, refuse_unknown
from train import checkpoints, provenance, stages
from train import recipe as recipes
from train.checkpoints import FRESH_HEAD, METADATA
from train.console import tell
from train.methods.coclr import CoCLR
from train.methods.infonce import InfoNCE
from train.methods.ubernce import UberNCE
from train.published import LAYOUTS, Published, import_published, published_state
from train.recipe import Recipe, StageSettings

# What the layout keeps of a queue's slots.
QUEUED: dict[type, tuple[str, ...]] = {
    InfoNCE: ("features", "pointer"),
    UberNCE: ("features", "pointer", "labels"),
    CoCLR: ("features", "pointer", "sources", "filled"),
}
RECIPE = ("ucf101", "infonce")  # whose clips and input the published networks were trained with


def import_run(files: dict[str, Path], run: Path, layout: str) -> None:
    """Write RUN with a finished stage for each stream -> file. The file itself does not say of which stream it is.

    Of a file of CoCLR the query network is taken, with its key network and queue. Of a linear probe or a fine-tuned network
    the backbone is taken; its classifier is left out and a projection head made from the seed, which is told. Raises Refusal
    for a run that is there and a file that is none, and UsageError without a file.
    """
    if not files:
        raise UsageError("no file is given", where="import", remedy="--rgb FILE, --flow FILE, or both")
    if run.exists():
        raise Refusal("there is something already", where=str(run), remedy="give a new folder as --run")
    found = {stream: import_published(path, layout) for stream, path in files.items()}
    base = recipes.load(recipes.find(*RECIPE))
    listed = [
        StageSettings(stream, "infonce", _settings(stream, published), epochs=1) for stream, published in found.items()
    ]
    recipe = dataclasses.replace(
        base, title=f"published networks: {', '.join(map(str, files.values()))}", stages=listed
    )
    written = {stage.name: _checkpoint(recipe, stage, found[stage.name], files[stage.name]) for stage in listed}
    for stream, published in found.items():
        if published.classifier:
            tell(
                f"{files[stream]}: a classifier in place of a projection head. The backbone is taken;"
                f" {', '.join(published.classifier)} are left out, and the head is a fresh one, from the seed {recipe.seed}"
            )
    stages.prepare(run, recipe)
    for name, content in written.items():
        checkpoints.write(content, stages.checkpoint_path(run, name))


def _settings(stream: str, published: Published) -> dict[str, Any]:
    queue = len(published.queue["features"]) if published.queue and "key" in published.backbones else 0
    head = {} if published.classifier else {"dim": len(published.heads["query"]["head.2.weight"])}
    return {"stream": stream, "backbone": published.backbone, "queue": queue, **head}


def _checkpoint(recipe: Recipe, stage: StageSettings, published: Published, path: Path) -> dict[str, Any]:
    method = checkpoints.create(stage.method, recipe.method_settings(stage), recipe.seed)
    roles = {"query": "query_encoder", "key": "key_encoder"}
    state = {
        f"{roles[role]}.{part}": tensor
        for role in roles
        if role in published.backbones and (role == "query" or stage.settings["queue"])
        for part, tensor in published.encoder(role).items()
    }
    if published.classifier:
        head = method.get_submodule("query_encoder.head").state_dict()
        state |= {f"query_encoder.head.{name}": tensor for name, tensor in head.items()}
    if stage.settings["queue"]:
        empty = {f"queue.{name}": tensor for name, tensor in method.get_submodule("queue").state_dict().items()}
        known = {f"queue.{name}": tensor for name, tensor in published.queue.items()}
        state |= {name: known.get(name, tensor) for name, tensor in empty.items()}
    checkpoints.load_strictly(method, state, str(path))
    facts = provenance.described(recipe, stage, method)
    facts |= {"imported": checkpoints.digest(path), "step": 0, "finished": True}
    facts[FRESH_HEAD] = bool(published.classifier)
    return {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}


def export_published(path: Path, layout: str, out: Path) -> None:
    """Write a checkpoint of ours in a published layout, so that its authors' scripts read it.

    Raises Refusal for a checkpoint of a method or backbone that the layout does not know, UsageError for an unknown layout.
    """
    if layout not in LAYOUTS:
        refuse_unknown("layout", layout, LAYOUTS)
    method, facts = checkpoints.load_method(path), checkpoints.metadata(path)
    on_s3d = method.hparams["backbone"] in ("s3d", "s3dg")
    if not isinstance(method, InfoNCE) or not on_s3d or method.queue is None or method.key_encoder is None:
        raise Refusal(
            f"the layout {layout} is of InfoNCE, UberNCE and CoCLR with a queue, on S3D",
            where=f"{path}: {facts['method']} on {method.hparams.get('backbone')}",
            remedy="export the bare backbone: leave out --layout",
        )
    encoders = {"query": method.query_encoder, "key": method.key_encoder}
    queue = {name: tensor for name, tensor in method.queue.state_dict().items() if name in QUEUED[type(method)]}
    if isinstance(method, CoCLR):
        encoders["sampler"] = method.sampler
        queue["other"] = method.sampled.features
    published = Published(
        layout,
        method.hparams["backbone"],
        {role: encoder.backbone.state_dict() for role, encoder in encoders.items()},
        {
            role: {f"head.{name}": t for name, t in encoder.head.state_dict().items()}
            for role, encoder in encoders.items()
        },
        queue=queue,
    )
    content = {"state_dict": published_state(published), "epoch": 0, "iteration": facts["step"]}
    checkpoints.write(content, out)
