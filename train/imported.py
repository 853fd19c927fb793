"""Published checkpoints as a run of ours, which evaluation reads like any other; and a checkpoint of ours as they
publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Refusal, UsageError, refuse_unknown
from train import checkpoints, provenance, stages
from train import recipe as recipes
from train.checkpoints import METADATA
from train.console import tell
from train.methods import settings_of
from train.methods.coclr import CoCLR
from train.methods.contrastive import OneStream, OneStreamSettings
from train.methods.infonce import InfoNCE
from train.methods.method import Method, MethodSettings
from train.methods.ubernce import UberNCE
from train.methods.vicc import ViCC
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.published import Published, coclr, import_published, published_state, vicc
from train.published.contents import State
from train.recipe import Recipe, StageSettings
from train.settings import read

# What the layout keeps of a queue's slots.
QUEUED: dict[type, tuple[str, ...]] = {
    InfoNCE: ("features", "pointer"),
    UberNCE: ("features", "pointer", "labels"),
    CoCLR: ("features", "pointer", "sources", "filled"),
}
WITH_PROTOTYPES = {"vicc": "vicc"}  # layout -> the method that a network with prototypes becomes a stage of
RECIPE = ("ucf101", "infonce")  # of which the run takes what the files do not say
SHOWN = 4  # names of tensors that are told one by one


def import_run(files: dict[str, Path], run: Path, layout: str) -> None:
    """Write RUN with a finished stage for each stream -> file. Only GOCA's files say of which stream their networks
    are.

    Of a file of CoCLR the query network is taken, with its key network and queue; of others the stream's or the query
    network, whole: projection head, aggregation or classifier included, and of ViCC the prototypes. Videos are compared
    by the layer that the paper compares them by. What a run has no place for is told. Raises Refusal for a run that is there, a file that is none
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
            StageSettings(name=stream, method=_method(published), settings=_settings(stream, published), epochs=1)
            for stream, published in found.items()
        ],
    )


def _method(published: Published) -> str:
    return "infonce" if published.prototypes is None else WITH_PROTOTYPES.get(published.layout, "infonce")


def _settings(stream: str, published: Published) -> MethodSettings:
    method = _method(published)
    if method == "infonce":
        queued = "key" in published.backbones and "features" in published.queue
        own = {"queue": len(published.queue["features"]) if queued else 0}
    else:
        assert published.prototypes is not None
        own = {"prototypes": len(published.prototypes)}
    network = dict(NetworkSettings.of_published(published.network))
    return read(settings_of(method), {"stream": stream, **network, **own}, published.layout)


def _checkpoint(recipe: Recipe, stage: StageSettings, published: Published, path: Path) -> dict[str, Any]:
    method = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
    network = published.state(published.role(stage.name))
    if isinstance(method, InfoNCE):
        pair, parts = method.pair, {"query": network}
        if "key" in pair.networks:
            parts["key"] = published.state("key")
            parts["queue"] = pair.queue.state_dict()
            parts["queue"] |= {name: tensor for name, tensor in published.queue.items() if name in parts["queue"]}
        checkpoints.load_strictly(pair, checkpoints.flat(parts), str(path))
    else:
        assert published.prototypes is not None
        checkpoints.load_strictly(method.networks[stage.name], network, str(path))
        checkpoints.load_strictly(method.parts["prototypes"], {"weight": published.prototypes}, str(path))
    facts = provenance.described(recipe, stage)
    facts |= {"imported": checkpoints.digest(path), "step": 0, "finished": True}
    return {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}


def _tell_what_is_left_out(published: Published, path: Path) -> None:
    if published.prototypes is not None and _method(published) == "infonce":
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
    fitting, what = WRITTEN[layout]
    method, facts = checkpoints.load_method(path), checkpoints.metadata(path)
    published = fitting(method)
    if published is None:
        raise Refusal(
            f"the layout {layout} is of {what}",
            where=f"{path}: {facts['method']}",
            remedy="export the bare backbone: leave out --layout",
        )
    content = {"state_dict": published_state(published), "epoch": 0, "iteration": facts["step"]}
    checkpoints.write(content, out)


def _as_coclr(method: Method) -> Published | None:
    settings = method.settings
    if (
        not isinstance(method, OneStream)
        or not isinstance(settings, OneStreamSettings)
        or not settings.queue
        or not _is_on(settings, coclr.WRITTEN)
    ):
        return None
    networks = {"query": method.pair.query, "key": method.pair.key}
    queue = {name: tensor for name, tensor in method.pair.queue.state_dict().items() if name in QUEUED[type(method)]}
    if isinstance(method, CoCLR):
        networks["sampler"] = method.sampler
        queue["other"] = method.sampled.features
    return _published("coclr", settings, networks, queue=queue)


def _as_vicc(method: Method) -> Published | None:
    """With the other stream's network, where there is one."""
    if not isinstance(method, ViCC) or not _is_on(method.settings, vicc.WRITTEN):
        return None
    networks = {"query": method.network}
    if method.settings.of_other is not None:
        if method.settings.of_other.parts != method.settings.parts:
            return None  # the layout says of one backbone only which it is
        networks["other"] = method.other
    return _published("vicc", method.settings, networks, prototypes=method.prototypes.weight.detach())


def _is_on(settings: NetworkSettings, backbones: Sequence[str]) -> bool:
    return settings.backbone in backbones and settings.head == "coclr"


def _published(layout: str, settings: NetworkSettings, networks: dict[str, Network], **rest: Any) -> Published:
    def head(network: Network) -> State:
        return {f"head.{name}": tensor for name, tensor in network.head.state_dict().items()}

    return Published(
        layout,
        {"backbone": settings.backbone, "head": settings.head},
        {role: network.backbone.state_dict() for role, network in networks.items()},
        {role: head(network) for role, network in networks.items()},
        **rest,
    )


# The layouts that checkpoints of ours fit into: what makes one of a method, and of which methods it can.
WRITTEN: dict[str, tuple[Callable[[Method], Published | None], str]] = {
    "coclr": (_as_coclr, f"InfoNCE, UberNCE and CoCLR with a queue, on {', '.join(coclr.WRITTEN)}"),
    "vicc": (_as_vicc, f"ViCC, on {', '.join(vicc.WRITTEN)}, both streams on the same"),
}
