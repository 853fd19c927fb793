"""What a checkpoint says of itself, and how networks come back out of it: strictly, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline import called, storage
from pipeline.errors import Refusal, named, spelled_out
from pipeline.storage import sealed
from pipeline.validation import Count, Facts, check
from train import methods
from train.methods.method import Method, MethodSettings, Start
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.published import Published, files, import_published
from train.settings import read as settings_from

__all__ = ["Published", "import_published"]  # what the papers published is read next door

METADATA = "costream"  # the key of our part of a Lightning checkpoint
CONTENT = ("state_dict", "hyper_parameters")  # beside our part, for every use
FACTS = ("method", "stage", "streams", "seed", "step", "finished", "versions", "store_videos_hash", "recipe_hash")
# What Lightning needs to go on, and takes for granted.
TO_CONTINUE = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
OPTIMISED = "optimised"  # among our facts: `kept_by` of the optimisers
FETCH = "train it, or download it, first"
REPLACE = "put a copy, such as step-N.ckpt of its folder, in its place, or delete it: the stage then begins anew"
PARTS = {"head": "projection head"}  # what people call parts that they may know by another name


class CheckpointFacts(Facts):
    """What is relied on of `FACTS`."""

    method: str
    stage: str
    streams: list[str]
    seed: Count
    step: Count
    finished: bool
    versions: dict[str, str]
    store_videos_hash: str
    recipe_hash: str
    backbones: dict[str, str] = {}
    clips: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    layer: Literal["backbone", "context", "head"] = "backbone"
    after: list[str] = []


class StreamState(Facts):
    """Of the loader of a stage, at its place in the stream of batches."""

    delivered: Count


class LoopState(Facts):
    combined_loader: list[StreamState] = []


class FitLoop(Facts):
    state_dict: LoopState = LoopState()


class Loops(Facts):
    fit_loop: FitLoop = FitLoop()


class Optimiser(Facts):
    param_groups: list[dict[str, Any]] = []
    state: dict[int, Any] = {}


class Content(Facts):
    """The same of the rest, where it is there: Lightning checks nothing of what it goes on with."""

    state_dict: dict[str, Any]
    hyper_parameters: dict[str, Any]
    optimizer_states: list[Optimiser] = []
    lr_schedulers: list[dict[str, Any]] = []
    loops: Loops = Loops()
    callbacks: dict[str, dict[str, Any]] = {}
    epoch: Count = 0
    global_step: Count = 0


def read(path: Path) -> dict[str, Any]:
    """The whole checkpoint, on the CPU; files that would run code are refused. Raises Refusal."""
    checkpoint = files.load(path, remedy=FETCH)
    if not isinstance(checkpoint, dict) or METADATA not in checkpoint:
        raise Refusal(
            "this is not a checkpoint of costream", where=str(path), remedy="give RUN/<stage>/checkpoints/last.ckpt"
        )
    _check_content(checkpoint, path)
    return checkpoint


def check_continues(checkpoint: Mapping[str, Any], callbacks: Iterable[str], path: Path) -> None:
    """Raises Refusal naming what a checkpoint lacks of what a run goes on with. callbacks: that have a state, by their
    keys."""
    lacks = [name for name in TO_CONTINUE if name not in checkpoint]
    optimisers = checkpoint.get("optimizer_states", ())
    if not optimisers or kept_by(optimisers) != checkpoint[METADATA].get(OPTIMISED):
        lacks.append("the optimiser's state")
    if not checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {}).get("combined_loader"):
        lacks.append("the place in the epoch")
    lacks += [f"the state of {name}" for name in callbacks if name not in checkpoint.get("callbacks", {})]
    _refuse_incomplete(lacks, path)


def kept_by(optimisers: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Of each optimiser's state: how many groups of weights it has, and for how many weights it keeps something; none
    before the first step, and always none of plain gradient descent."""
    return [[len(optimiser.get(part, ())) for part in ("param_groups", "state")] for optimiser in optimisers]


def _check_content(checkpoint: Mapping[str, Any], path: Path) -> None:
    facts = checkpoint[METADATA]
    known = facts.keys() if isinstance(facts, dict) else ()
    lacks = [name for name in CONTENT if name not in checkpoint]
    _refuse_incomplete(lacks + [name for name in FACTS if name not in known], path)
    try:
        check(CheckpointFacts, facts)
        check(Content, checkpoint)
        if not all(isinstance(tensor, torch.Tensor) for tensor in checkpoint["state_dict"].values()):
            raise ValueError("state_dict: not all of it are tensors")
        if "backbones" in facts and not set(facts["streams"]) <= facts["backbones"].keys():
            raise ValueError(f"streams: {', '.join(facts['streams'])}, of {', '.join(facts['backbones'])}")
    except ValueError as error:
        raise Refusal(
            f"the checkpoint says what cannot be: {error}",
            where=str(path),
            remedy=REPLACE,
        ) from error


def _refuse_incomplete(lacks: Sequence[str], path: Path) -> None:
    if lacks:
        raise Refusal(
            f"the checkpoint lacks {named(lacks, most=8)}",
            where=str(path),
            remedy=REPLACE,
        )


def metadata(path: Path) -> dict[str, Any]:
    """Facts of a checkpoint: method, stage, streams, clip, seed, step, finished, store and recipe hashes, versions."""
    return read(path)[METADATA]


def load_method(path: Path) -> Method:
    """The trained method, in evaluation mode. Raises Refusal naming each missing, unexpected or misshapen key."""
    return _with_weights(read(path), path)


def untrained(path: Path) -> Method:
    """The method of a checkpoint as it was before training: same seed, same weights as at its first step."""
    return _create(read(path), path).eval()


def create(name: str, settings: Mapping[str, Any] | MethodSettings, channels: Mapping[str, int], seed: int) -> Method:
    """A fresh method whose weights follow from the seed alone; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return methods.create(name, settings, channels)


def starting_weights(path: Path, start: Start) -> dict[str, dict[str, torch.Tensor]]:
    """Name of a part -> its state dict, batch-norm statistics included: of those that a role takes, what the file has.

    Of our checkpoints the network is the stream's. Most published files say nothing of streams; their query network is
    taken. A head of another name than that of the network that starts, such as a classifier, is none.

    Raises:
        Refusal: a file without such a network, and one without a part that the role cannot do without.
    """
    network, found = _trained_parts(path, start.stream)
    if network.head != start.network.head:
        found.pop("head", None)
    missing = [part for part in start.takes if part not in found and part not in start.optional]
    if missing:
        raise Refusal(
            f"the network has no {PARTS.get(missing[0], missing[0])},"
            " and where it is to start a fresh one would stay random",
            where=str(path),
            remedy="give a file that has it, such as the pre-trained one that this was made from",
        )
    return {
        part: {name: tensor for name, tensor in found[part].items() if not f"{part}.{name}".startswith(start.leaves)}
        for part in start.takes
        if part in found
    }


def made_by(path: Path) -> list[str]:
    """The methods that a checkpoint of ours, and those that it began with, were trained by; of another file none."""
    facts = _facts_of_start(path)
    published = facts.get("published", {}).get("method", "")
    return [facts["method"], *facts.get("after", ()), *([published] if published else [])] if facts else []


def lineage(path: Path) -> dict[str, str]:
    """By which `method` a file that a stage starts from was trained, and on which data set (`pretraining`), as far as
    it says so: of an imported file its authors' method."""
    facts = _facts_of_start(path)
    given = {"method": facts.get("method", ""), "pretraining": facts.get("data", "")} | facts.get("published", {})
    return {name: given[name] for name in ("method", "pretraining")}


def _facts_of_start(path: Path) -> dict[str, Any]:
    """Of a checkpoint of ours; of another file none."""
    loaded = files.load(path, remedy=FETCH)
    if not isinstance(loaded, dict) or METADATA not in loaded:
        return {}
    _check_content(loaded, path)
    return dict(loaded[METADATA])


def networks_of(path: Path) -> dict[str, NetworkSettings]:
    """Stream -> what its network is made with, of a checkpoint of ours. Raises Refusal."""
    content = read(path)
    method = methods.settings_of(content[METADATA]["method"])
    return settings_from(method, content["hyper_parameters"]["settings"], str(path)).networks


def _trained_parts(path: Path, stream: str) -> tuple[NetworkSettings, dict[str, dict[str, torch.Tensor]]]:
    loaded = files.load(path, remedy=FETCH)
    if isinstance(loaded, dict) and METADATA in loaded:
        _check_content(loaded, path)
        method = _with_weights(loaded, path)
        if stream not in method.networks:
            raise Refusal(
                f"the checkpoint has no {stream} network",
                where=str(path),
                remedy=f"it has {', '.join(method.networks)}",
            )
        parts = {**method.networks[stream].parts, **method.parts}
        return method.settings.networks[stream], {name: part.state_dict() for name, part in parts.items()}
    published = import_published(path)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in published.state(published.role(stream)).items():
        part, _, rest = name.partition(".")
        found.setdefault(part, {})[rest] = tensor
    if published.prototypes is not None:
        found["prototypes"] = {"weight": published.prototypes}
    return NetworkSettings.of_published(published.network), found


def start_from(parts: Mapping[str, torch.nn.Module], weights: dict[str, dict[str, torch.Tensor]], where: str) -> None:
    """Let parts begin with what `starting_weights` gives; others keep their weights. Raises Refusal."""
    begun = torch.nn.ModuleDict({part: parts[part] for part in weights})
    load_strictly(begun, flat(weights), where, remedy="let the recipe have the file's backbone and backbone_settings")


def flat(weights: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Weights by part as one state dict."""
    return {f"{part}.{name}": tensor for part, tensors in weights.items() for name, tensor in tensors.items()}


def digest_of(state: dict[str, torch.Tensor]) -> str:
    """Digest of tensors by name; the bytes of a file also depend on how it was pickled."""
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        total.update(state[name].contiguous().numpy().tobytes())
    return total.hexdigest()


def network_digest(network: Network, layer: str) -> str:
    """Digest of all that a layer's rows follow from: settings and weights."""
    settings, weights = network.origin(layer)
    return hashlib.sha256((json.dumps(settings, sort_keys=True) + digest_of(weights)).encode()).hexdigest()


def load_strictly(module: torch.nn.Module, state: dict[str, torch.Tensor], where: str, remedy: str = REPLACE) -> None:
    """Load all of `state` into all of `module`. Raises Refusal and leaves the module as it was if any key differs."""
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the network's is {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        raise Refusal(
            f"the checkpoint is of another network:{spelled_out(problems, most=8)}",
            where=where,
            remedy=remedy,
        )
    module.load_state_dict(state)


def write(content: object, path: Path) -> None:
    """Save aside, flush to the disk, rename: `path` holds the old or the new content, whole, whenever the power fails.

    The file carries its digest, which `files.load` looks at; to `torch.load` it is like any other.

    Raises Refusal when the disk is full or not writable.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with storage.writing("the file", path):
        storage.write_atomically(path, sealed.seal(buffer.getvalue()))


def digest(path: Path) -> str:
    """Digest of the file's bytes. Raises OSError."""
    return storage.file_digest(path)


def _with_weights(checkpoint: dict[str, Any], path: Path) -> Method:
    method = _create(checkpoint, path)
    load_strictly(method, checkpoint["state_dict"], str(path))
    return method.eval()


def _create(checkpoint: dict[str, Any], path: Path) -> Method:
    facts = checkpoint[METADATA]
    made_with = checkpoint["hyper_parameters"]
    if made_with.keys() != {"settings", "channels"}:
        raise Refusal(
            "the checkpoint was written by an older version, whose methods were made of other parts",
            where=str(path),
            remedy=f"give another {called.option('run')} to train anew",
        )
    return create(facts["method"], made_with["settings"], made_with["channels"], facts["seed"])
