"""Published checkpoints as a run of ours, which evaluation reads like any other; and a checkpoint of ours as they
publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.importers.lists import class_names
from train import checkpoints, provenance, run_folder
from train import recipe as recipes
from train.checkpoints import METADATA
from train.clips.spec import ClipSpec, StreamSettings
from train.console import tell
from train.methods.classify import Classify, ClassifySettings
from train.methods.coclr import CoCLR
from train.methods.contrastive import OneStream, OneStreamSettings
from train.methods.goca import GOCA, GOCASettings
from train.methods.infonce import InfoNCE, InfoNCESettings
from train.methods.method import Method, MethodSettings
from train.methods.ubernce import UberNCE
from train.methods.vicc import ViCC, ViCCSettings
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.published import Published, coclr, dpc, goca, import_published, published_state, slic, vicc
from train.published.contents import State
from train.recipe import Recipe, StageSettings

# What the layout keeps of a queue's slots.
QUEUED: dict[type, tuple[str, ...]] = {
    InfoNCE: ("features", "pointer"),
    UberNCE: ("features", "pointer", "labels"),
    CoCLR: ("features", "pointer", "sources", "filled"),
}
RECIPE = ("ucf101", "infonce")  # of which the run takes what the files do not say
SHOWN = 4  # names of tensors that are told one by one


def import_run(
    files: dict[str, Path], run: Path, layout: str, pretraining: str = "", classes: Path | None = None
) -> None:
    """Write RUN with a finished stage for each stream -> file. Only GOCA's files say of which stream their networks
    are; one that is given for two streams makes one stage of method goca, with its prototypes.

    Of a file of CoCLR the query network is taken, with its key network and queue; of others the stream's or the query
    network, whole: projection head, aggregation or classifier included, and ViCC's prototypes. Videos are compared by
    the layer that the paper compares them by. Probes and fine-tuned networks keep their classifiers, whose logits are
    in the order of `classes`, a list of one class a line, or by default in that of the store that is evaluated. What a
    run has no place for is told. `pretraining` is the data set that the files' networks were trained on, as the papers'
    tables call it; files do not say it. Raises Refusal for a run that is there, a file that is none and files whose
    networks saw other clips, and UsageError without a file.
    """
    if not files:
        raise UsageError("no file is given", where="import", remedy="--rgb FILE, --flow FILE, or both")
    if run.exists():
        raise Refusal("there is something already", where=str(run), remedy="give a new folder as --run")
    found = {stream: import_published(path, layout) for stream, path in files.items()}
    recipe = _recipe(found, files, class_names(classes) if classes else [], pretraining)
    written = {
        stage.name: _checkpoint(recipe, stage, *_of_stage(stage, found, files), pretraining) for stage in recipe.stages
    }
    for stage in recipe.stages:
        _tell_what_is_left_out(stage, *_of_stage(stage, found, files))
    with run_folder.only_trainer(run, recipe):
        for name, content in written.items():
            checkpoints.write(content, run_folder.checkpoint_path(run, name))


def _recipe(found: dict[str, Published], files: dict[str, Path], classes: list[str], pretraining: str) -> Recipe:
    """A stage for each stream, on the clips that its network was trained on, which may differ in their size alone."""
    clips, layer = next((published.clips, published.layer) for published in found.values())
    if any(
        (published.clips.changed(size=clips.size), published.layer) != (clips, layer) for published in found.values()
    ):
        listed = ", ".join(f"{files[stream]} ({published.layout})" for stream, published in found.items())
        raise Refusal(
            "the networks were trained on clips of other kinds, or videos are compared by other layers of them",
            where=listed,
            remedy="import each into a run of its own",
        )
    clips = clips.changed(streams={**clips.streams, **_sizes(clips, found)})
    named = ", ".join(map(str, files.values()))
    if any(published.layout == "slic" and published.network["head"] == "slic" for published in found.values()):
        clips = clips.changed(statistics=slic.statistics(pretraining))
        if not pretraining:
            tell(
                f"{named}: pixels are normalised by ImageNet's statistics, as SLIC does it on all data sets but"
                " Kinetics"
                "\n  to do: --pretraining kinetics400 for a network that was trained there, and another --run"
            )
    return recipes.load(recipes.find(*RECIPE)).changed(
        title=f"published networks: {named}",
        clips=clips,
        layer=layer,
        stages=_stages(found, files, classes),
    )


def _sizes(clips: ClipSpec, found: dict[str, Published]) -> dict[str, StreamSettings]:
    """What differs in the streams whose networks saw clips of another size; the layout's own sizes of a view count."""
    return {
        stream: clips.streams.get(stream, StreamSettings()).changed(size=published.clips.size)
        for stream, published in found.items()
        if published.clips.size != clips.size == clips.stream(stream).size
    }


def _stages(found: dict[str, Published], files: dict[str, Path], classes: list[str]) -> list[StageSettings]:
    if len(files) > 1 and len(set(files.values())) == 1 and found[next(iter(found))].layout == "goca":
        settings = _of_goca(tuple(found), found[next(iter(found))])
        return [StageSettings(name="goca", method="goca", settings=settings, epochs=1)]
    return [
        StageSettings(name=stream, method=kind, settings=settings, epochs=1)
        for stream, published in found.items()
        for kind, settings in [_settings(stream, published, files[stream], classes)]
    ]


def _of_stage(stage: StageSettings, found: dict[str, Published], files: dict[str, Path]) -> tuple[Published, Path]:
    """What a stage is made of, and its file."""
    stream = next(iter(stage.settings.networks))
    return found[stream], files[stream]


def _of_goca(streams: tuple[str, ...], published: Published) -> GOCASettings:
    assert published.prototypes is not None
    heads = [published.heads[published.role(stream)] for stream in streams]
    network = NetworkSettings.of_published(published.network)
    count = len(published.prototypes)
    return GOCASettings(streams=streams, shared_head=heads[0] is heads[-1], prototypes=count, **dict(network))


def _settings(stream: str, published: Published, path: Path, classes: list[str]) -> tuple[str, MethodSettings]:
    """The method that a network becomes a stage of, and its settings. Raises Refusal for classes of another number."""
    network = dict(NetworkSettings.of_published(published.network))
    if network["head"] == "classifier":
        if classes and len(classes) != network["dim"]:
            raise Refusal(
                f"the classifier has {network['dim']} classes, and {len(classes)} are listed",
                where=str(path),
                remedy="give the class list of the data set that it was trained on as --classes",
            )
        frozen = bool(network["head_settings"].get("unit_input"))
        return "classify", ClassifySettings(stream=stream, classes=classes, frozen=frozen, **network)
    if published.layout == "vicc" and published.prototypes is not None:
        return "vicc", ViCCSettings(stream=stream, prototypes=len(published.prototypes), **network)
    queue = len(published.queue["features"]) if published.queue and "key" in published.backbones else 0
    return "infonce", InfoNCESettings(stream=stream, queue=queue, **network)


def _checkpoint(
    recipe: Recipe, stage: StageSettings, published: Published, path: Path, pretraining: str
) -> dict[str, Any]:
    method = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
    if isinstance(method, GOCA):
        _fill_goca(method, published, path)
    elif isinstance(method, ViCC):
        _fill_vicc(method, stage.name, published, path)
    elif isinstance(method, Classify):
        checkpoints.load_strictly(method.network, published.state(published.role(stage.name)), str(path))
    else:
        assert isinstance(method, InfoNCE)
        _fill_infonce(method, stage.name, published, path)
    facts = provenance.described(recipe, stage)
    facts |= {"imported": checkpoints.digest(path), "step": 0, "finished": True}
    tuned = isinstance(stage.settings, ClassifySettings) and not stage.settings.frozen
    facts["published"] = {"method": _trained_by(published), "pretraining": pretraining, "finetuned": tuned}
    return {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), METADATA: facts}


def _trained_by(published: Published) -> str:
    """The method that made a file, of ours by name; of CoCLR's three, what is beside the encoder tells which. "" where
    nothing does: probes and fine-tuned networks of CoCLR and ViCC on S3D look alike."""
    if published.layout != "coclr":
        return published.layout
    if not published.queue:
        return ""
    if "sampler" in published.backbones:
        return "coclr"
    return "ubernce" if "labels" in published.queue else "infonce"


def _fill_infonce(method: InfoNCE, stream: str, published: Published, path: Path) -> None:
    pair = method.pair
    parts = {"query": published.state(published.role(stream))}
    if "key" in pair.networks:
        parts["key"] = published.state("key")
        parts["queue"] = pair.queue.state_dict()
        parts["queue"] |= {name: tensor for name, tensor in published.queue.items() if name in parts["queue"]}
    checkpoints.load_strictly(pair, checkpoints.flat(parts), str(path))


def _fill_vicc(method: ViCC, stream: str, published: Published, path: Path) -> None:
    assert published.prototypes is not None
    checkpoints.load_strictly(method.network, published.state(published.role(stream)), str(path))
    checkpoints.load_strictly(method.prototypes, {"weight": published.prototypes}, str(path))


def _fill_goca(method: GOCA, published: Published, path: Path) -> None:
    assert published.prototypes is not None
    for stream, network in method.networks.items():
        checkpoints.load_strictly(network, published.state(published.role(stream)), str(path))
    checkpoints.load_strictly(method.prototypes, {"weight": published.prototypes}, str(path))


def _tell_what_is_left_out(stage: StageSettings, published: Published, path: Path) -> None:
    if published.prototypes is not None and "prototypes" not in stage.settings.gives:
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


def export_published(path: Path, layout: str, out: Path, stream: str = "") -> None:
    """Write a checkpoint of ours in a published layout, so that its authors' scripts read it.

    stream: whose network, of the layouts that have a file for each, where the checkpoint has several. Raises Refusal
    for a checkpoint of a method or backbone that the layout does not know, UsageError for a layout that is unknown, or
    that no checkpoint of ours fits into, and for a stream that is not there.
    """
    if layout not in (*WRITTEN, *OF_ONE_STREAM):
        refuse_unknown("layout", layout, [*WRITTEN, *OF_ONE_STREAM], where="export")
    method, facts = checkpoints.load_method(path), checkpoints.metadata(path)
    where = f"{path}: {facts['method']}"
    if any(network.settings["temporal_centring"] for network in method.networks.values()):
        raise _no_place("knows no temporal centring, without which this network sees something else", where)
    published = WRITTEN[layout](method, where) if layout in WRITTEN else _as_predictive(layout, method, stream, where)
    content = {"state_dict": published_state(published), "epoch": 0, "iteration": facts["step"]}
    checkpoints.write(content, out)


def _as_coclr(method: Method, where: str) -> Published:
    settings = method.settings
    if (
        not isinstance(method, OneStream)
        or not isinstance(settings, OneStreamSettings)
        or not settings.queue
        or settings.backbone not in coclr.WRITTEN
        or settings.head != "coclr"
    ):
        raise _no_place(f"coclr is of InfoNCE, UberNCE and CoCLR with a queue, on {', '.join(coclr.WRITTEN)}", where)
    networks = {"query": method.pair.query, "key": method.pair.key}
    queue = {name: tensor for name, tensor in method.pair.queue.state_dict().items() if name in QUEUED[type(method)]}
    if isinstance(method, CoCLR):
        networks["sampler"] = method.sampler
        queue["other"] = method.sampled.features
    return _published("coclr", networks, {"backbone": settings.backbone, "head": settings.head}, queue=queue)


def _as_vicc(method: Method, where: str) -> Published:
    """With the other stream's network, where there is one."""
    if not isinstance(method, ViCC) or not _alike_for_vicc(method.settings):
        raise _no_place(f"vicc is of ViCC, both streams on the same of {', '.join(vicc.WRITTEN)}", where)
    networks = {"query": method.network} | ({"other": method.other} if method.settings.other else {})
    made_with = {"backbone": method.settings.backbone, "head": method.settings.head}
    return _published("vicc", networks, made_with, prototypes=method.prototypes.weight.detach())


def _alike_for_vicc(settings: ViCCSettings) -> bool:
    other = settings.of_other or settings
    return settings.backbone in vicc.WRITTEN and settings.head == "coclr" and other.parts == settings.parts


def _as_goca(method: Method, where: str) -> Published:
    if not isinstance(method, GOCA) or not _alike_for_goca(method.settings):
        streams, backbones = ", ".join(goca.NETWORKS), ", ".join(goca.CLIPS)
        raise _no_place(f"goca is of GOCA on {streams}, with its head on backbones of one kind, {backbones}", where)
    made = _published(
        "goca",
        method.networks,
        dict(method.networks[method.settings.streams[0]].settings),
        prototypes=method.prototypes.weight,
    )
    if method.settings.shared_head:
        made.heads.update(dict.fromkeys(made.heads, made.heads[method.settings.streams[0]]))
    return made


def _alike_for_goca(settings: GOCASettings) -> bool:
    kinds = [(network.backbone, network.head, network.pool) for network in settings.networks.values()]
    known = set(settings.streams) <= set(goca.NETWORKS) and settings.backbone in goca.CLIPS
    return known and settings.head == "goca" and len(set(kinds)) == 1


def _as_slic(method: Method, where: str) -> Published:
    """Of any method that trained one such network."""
    networks = list(method.networks.values())
    if len(networks) != 1 or not slic.is_own(networks[0].settings):
        raise _no_place(f"slic is of one network on {slic.BACKBONE} with SLIC's head", where)
    return _published("slic", {"query": networks[0]}, networks[0].settings)


def _as_predictive(layout: str, method: Method, stream: str, where: str) -> Published:
    """One network as DPC's or CoCon's, whichever method trained or imported it."""
    if not stream and len(method.networks) > 1:
        raise UsageError(
            f"{layout} has a file for each stream", where=where, remedy=f"--stream {' or '.join(method.networks)}"
        )
    stream = stream or next(iter(method.networks))
    if stream not in method.networks:
        refuse_unknown("stream", stream, method.networks, where=where)
    network = method.networks[stream]
    state, between, made_with = network.state_dict(), OF_ONE_STREAM[layout], network.settings
    if not (
        made_with["backbone"] in dpc.WRITTEN
        and made_with["head"] == "none"
        and (made_with["aggregation_settings"] or {}).get("between", "relu") == between
        and "aggregation.predictor.2.weight" in state
        and state["aggregation.gru.out_gate.bias"].shape == (dpc.SIZE,)
    ):
        what = f"{' or '.join(dpc.WRITTEN)} whose ConvGRU has {dpc.SIZE} features and predicts, between: {between}"
        raise _no_place(f"{layout} is of a {what}", where)
    behind = {name: tensor for name, tensor in state.items() if name.startswith("aggregation.")}
    return Published(layout, dict(made_with), {"query": network.backbone.state_dict()}, {"query": behind})


def _published(layout: str, networks: Mapping[str, Network], made_with: dict[str, Any], **more: Any) -> Published:
    heads = {role: _prefixed("head", network.head) for role, network in networks.items()}
    return Published(
        layout, made_with, {role: network.backbone.state_dict() for role, network in networks.items()}, heads, **more
    )


def _prefixed(name: str, part: nn.Module) -> State:
    return {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}


def _no_place(what: str, where: str) -> Refusal:
    return Refusal(f"the layout {what}", where=where, remedy="export the bare backbone: leave out --layout")


# Layouts that checkpoints of ours fit into.
WRITTEN: dict[str, Callable[[Method, str], Published]] = {
    "coclr": _as_coclr,
    "vicc": _as_vicc,
    "goca": _as_goca,
    "slic": _as_slic,
}
# Layouts with a file for each stream, and what lies between backbone and ConvGRU in them.
OF_ONE_STREAM = {"dpc": "relu", "cocon": "unit"}
