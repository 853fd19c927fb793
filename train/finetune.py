"""Recipes of probes and fine-tuning, which begin with a run that is given: what they leave open is taken from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import called
from pipeline.errors import Refusal, UsageError, refuse_unknown
from train import checkpoints, run_folder
from train import recipe as recipes
from train.console import tell
from train.methods.classify import ClassifySettings
from train.networks.settings import NetworkSettings
from train.recipe import GIVEN_RUN, Recipe, StageSettings

# What a recipe may leave to the run: all of a network before its classifier.
OF_THE_RUN = ("backbone", "backbone_settings", "temporal_centring", "pool", "aggregation", "aggregation_settings")


def find(folder: str, recipe: str) -> Path:
    """The file of a recipe: a path, or the name of a file in train/recipes/FOLDER."""
    return recipes.find(recipe if recipe.endswith((".yaml", ".yml")) else folder, recipe)


def needs_run(recipe: Recipe) -> bool:
    """Whether a recipe begins with a run."""
    return any(given == GIVEN_RUN for stage in recipe.stages for given in stage.start.values())


def begun_with(recipe: Recipe, run: Path | None, streams: list[str]) -> Recipe:
    """The recipe with the files that its stages start from, and with what it leaves open about their networks.

    Of a stream the last stage of the run counts that has a network of it. Stages of streams that the run does not have
    are left out, which is told.

    Args:
        run: Folder of a run; None for a recipe that starts from random weights.
        streams: That are trained; none: all of the recipe.

    Raises:
        Refusal: no run there, or no network in it of any of the recipe's streams, or one with another backbone than the
            recipe says.
        UsageError: a run where none is needed, or none where one is; an unknown stream.
    """
    known = [stage.settings.stream for stage in recipe.stages if isinstance(stage.settings, ClassifySettings)]
    for stream in streams:
        if stream not in known:
            refuse_unknown("stream", stream, known)
    if needs_run(recipe) != (run is not None):
        if run is None:
            raise UsageError(
                "the recipe begins with a run, and none is given",
                where="run",
                remedy=f"{called.option('run', 'runs/mine')}",
            )
        raise UsageError(
            "the recipe begins with random weights", where="run", remedy=f"leave {called.option('run')} out"
        )
    asked = [stage for stage in recipe.stages if not streams or _stream(stage) in streams]
    if run is None:
        return recipe.of_stages(asked)
    found = _networks(run)
    begun = [_begun(stage, found[_stream(stage)], recipe, run) for stage in asked if _stream(stage) in found]
    missing = [_stream(stage) for stage in asked if _stream(stage) not in found]
    if not begun:
        raise Refusal(
            f"the run has no network of {' or '.join(missing)}",
            where=str(run),
            remedy=f"it has networks of {', '.join(found)}; give a recipe of one of them",
        )
    if missing:
        tell(f"{run} has no network of {', '.join(missing)}, which is left out")
    return recipe.of_stages(begun)


def _stream(stage: StageSettings) -> str:
    return next(iter(stage.settings.networks))


def _networks(run: Path) -> dict[str, tuple[Path, NetworkSettings]]:
    """Stream -> the last checkpoint that has a network of it, and what that is made with."""
    listed = run_folder.read_recipe(run)["stages"]
    found: dict[str, tuple[Path, NetworkSettings]] = {}
    for path in (run_folder.checkpoint_path(run, stage["name"]) for stage in listed):
        if path.is_file():
            found |= {stream: (path, network) for stream, network in checkpoints.networks_of(path).items()}
    if not found:
        raise Refusal(
            "the run has no checkpoint yet",
            where=str(run),
            remedy=f"{called.command('pretrain')} with the same {called.option('run')} goes on to it",
        )
    return found


def _begun(stage: StageSettings, given: tuple[Path, NetworkSettings], recipe: Recipe, run: Path) -> StageSettings:
    path, network = given
    own = stage.settings
    assert isinstance(own, ClassifySettings)
    taken: dict[str, Any] = {name: getattr(network, name) for name in OF_THE_RUN if name not in own.model_fields_set}
    if network.aggregation and "aggregation_settings" in taken:
        taken["aggregation_settings"] = network.aggregation_settings | {"predicts": False}
    settings = own.changed(**taken)
    if other := network.unlike(settings, "backbone"):
        raise Refusal(
            f"the recipe's network is not the run's: {other}",
            where=f"{run}, stage {stage.name}",
            remedy="leave it out of the recipe, and it is the run's",
        )
    seen = checkpoints.metadata(path)["clips"]
    differing = [(name, value) for name, value in recipe.clips.as_dict().items() if seen.get(name) != value]
    if differing:
        told = ", ".join(f"{name} {value} (the run's {seen.get(name)})" for name, value in differing)
        tell(f"stage {stage.name}: other clips than the run was trained on: {told}")
    start = {role: str(path) if role_given == GIVEN_RUN else role_given for role, role_given in stage.start.items()}
    return stage.changed(settings=settings, start=start)
