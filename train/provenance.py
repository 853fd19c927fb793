"""What a checkpoint records of where it comes from, and what may continue it."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

from pipeline import called, environment
from pipeline.errors import Refusal
from pipeline.store import VideoStore
from train import sampling
from train.batches.planning import PLANS
from train.clips.spec import ClipSpec
from train.console import tell
from train.recipe import Recipe, StageSettings
from train.sampling import Sampling
from train.settings import read
from train.training_set import TrainingSet

IN_CHECKPOINTS = ("torch", "lightning")  # the state of optimisers and loops is theirs
COMPUTING = (*IN_CHECKPOINTS, "costream", "numpy", "opencv-contrib-python", "nvidia-dali-cuda130", "oneDNN")


def data_of(store: VideoStore) -> str:
    """The name of a data set, which is that of its store's folder."""
    return unicodedata.normalize("NFC", store.root.resolve().name)


def facts(
    recipe: Recipe,
    stage: StageSettings,
    store: VideoStore,
    training_set: TrainingSet,
    start: dict[str, str],
    onednn: bool,
    hardware: str = "",
) -> dict[str, Any]:
    """What a checkpoint records of where it comes from.

    Args:
        start: Digest of the weights that each role starts from.
        onednn: Whether torch may use it: see `train.hardware.convolutions`.
        hardware: In words, of the machine that wrote it.
    """
    return described(recipe, stage) | {
        "versions": environment.versions() | ({} if onednn else {"oneDNN": "off"}),
        "data": data_of(store),
        "store_settings_hash": store.settings_hash,
        "store_settings": store.settings,  # by which new videos are extracted for the networks
        "store_videos_hash": training_set.digest,
        "annotations": {"name": store.annotated.name, "digest": store.annotated.digest},
        "start": start,
        "hardware": hardware,
    }


def described(recipe: Recipe, stage: StageSettings) -> dict[str, Any]:
    """The part of `facts` that does not depend on a store: empty hashes stand for none."""
    return {
        "plans": PLANS,
        "method": stage.method,
        "stage": stage.name,
        "streams": list(stage.settings.networks),
        "backbones": {stream: network.backbone for stream, network in stage.settings.networks.items()},
        "seed": recipe.seed,
        "clips": recipe.clips.as_dict(),
        "sampling": recipe.sampling_of(stage).as_dict(),
        "layer": recipe.layer,
        "tf32": recipe.tf32,
        "recipe_hash": recipe_hash(recipe.as_dict()),
        "store_settings_hash": "",
        "store_videos_hash": "",
        "annotations": {},
        "start": {},
        "versions": environment.versions(),
    }


def clips_of(facts: dict[str, Any], path: Path) -> tuple[ClipSpec, Sampling]:
    """What a checkpoint's networks were trained on. Raises Refusal for a checkpoint whose facts do not say it."""
    try:
        return read(ClipSpec, facts["clips"], str(path)), sampling.chosen(facts["sampling"], str(path))
    except KeyError as missing:
        raise Refusal(
            f"the checkpoint, of an older costream, does not say what its networks were trained on: no {missing}",
            where=str(path),
            remedy=f"give another {called.option('run')} to train anew",
        ) from missing


def refuse_other(found: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Raises Refusal if a checkpoint's facts say that it was made from something else."""
    meaning = {
        "plans": (
            f"plans of version {found.get('plans')}:"
            f" for the same recipe version {now['plans']} draws other frames and pixels"
        ),
        "stage": "another stage",
        "recipe_hash": "another recipe",
        "store_settings_hash": "a store with other settings",
        "store_videos_hash": "other videos, labels or recordings: store or annotations have changed since",
        "start": "other networks to start from: what the stage names in `start` has changed since",
    }
    for key, what in meaning.items():
        if found.get(key) != now[key]:
            raise Refusal(
                f"the checkpoint was made with {what}",
                where=str(path),
                remedy=f"continue with what it was made with, or give another {called.option('run')} to start anew",
            )


def refuse_other_versions(found: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Raises Refusal if a checkpoint was written by another major version of a library whose state is in it.

    Other versions of what computes are told: training goes on, but not bit for bit.
    """
    before, here = found["versions"], now["versions"]
    changed = [name for name in COMPUTING if before.get(name) != here.get(name)]
    listed = ", ".join(f"{name} {before.get(name, '(none)')}, now {here.get(name, '(none)')}" for name in changed)
    if any(before.get(name, "").split(".")[0] != here[name].split(".")[0] for name in IN_CHECKPOINTS):
        raise Refusal(
            f"the checkpoint was written with {listed}",
            where=str(path),
            remedy=f"continue with the versions that wrote it, or give another {called.option('run')} to start anew",
        )
    if changed:
        tell(f"the checkpoint was written with {listed}: training goes on, but not bit for bit as it would have")


def recipe_hash(content: dict[str, Any]) -> str:
    """Of a recipe as `Recipe.as_dict` gives it, and a run's recipe.yaml holds it; the same when a run is prolonged."""
    stages = [{key: value for key, value in stage.items() if key != "more_steps"} for stage in content["stages"]]
    content = content | {"stages": stages}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
