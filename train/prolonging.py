"""A finished run is prolonged under its name, by `--more_steps`; its recipe.yaml says by how many steps, each time."""

from __future__ import annotations

from pathlib import Path

from pipeline import called
from pipeline.errors import UsageError, counted
from pipeline.store import VideoStore
from train import checkpoints, run_folder
from train.console import tell
from train.optim import ON_TO_HORIZON, PROLONGED
from train.recipe import Recipe, StageSettings
from train.stage_data import steps_of_epoch


def as_recorded(run: Path, recipe: Recipe) -> Recipe:
    """The recipe with the steps by which the run, if there is one, has been prolonged, where it names none itself."""
    if not (run / run_folder.RECIPE).is_file():
        return recipe
    known = {stage["name"]: tuple(stage.get("more_steps", ())) for stage in run_folder.read_recipe(run)["stages"]}
    return recipe.of_stages(
        [stage.changed(more_steps=stage.more_steps or known.get(stage.name, ())) for stage in recipe.stages]
    )


def prolonged(run: Path, recipe: Recipe, store: VideoStore, steps: int) -> Recipe:
    """The recipe of a run, which is held, with so many steps more of each stage that none other starts from; they are
    told, and written into the run. A run that is not finished is left as it is: it goes on first.

    Raises UsageError where there is no run, and where a schedule has no room for the steps.
    """
    reached = [_reached(run, recipe, stage) for stage in recipe.stages]
    if not any(reached):
        problem = "no stage of this run has been trained, so there is nothing to prolong"
        raise UsageError(problem, where=str(run), remedy=f"train it first, without {called.option('more_steps')}")
    epochs = [steps_of_epoch(recipe, stage, store) for stage in recipe.stages]
    ends = [stage.length(of_epoch) for stage, of_epoch in zip(recipe.stages, epochs, strict=True)]
    for stage, step, end in zip(recipe.stages, reached, ends, strict=True):
        if step < end:
            tell(
                f"the run is not finished, stage {stage.name} is at step {step} of {end}: it goes on to its end, and no"
                " steps are added"
            )
            return recipe
    begun_with = {name for stage in recipe.stages for name in stage.start.values()}
    last = [stage for stage in recipe.stages if stage.name not in begun_with]
    said = []
    for stage, of_epoch, end in zip(recipe.stages, epochs, ends, strict=True):
        if stage in last:
            _check_room(stage, of_epoch, end, steps)
            optimiser = stage.settings.optimiser
            goes_on = ON_TO_HORIZON if optimiser.horizon else PROLONGED[optimiser.schedule]
            said.append(f"stage {stage.name}: {counted(steps, 'step')} more, {end} -> {end + steps}; {goes_on}")
    longer = recipe.of_stages(
        [stage.changed(more_steps=(*stage.more_steps, steps)) if stage in last else stage for stage in recipe.stages]
    )
    run_folder.write_recipe(run, longer)
    for line in said:
        tell(line)
    return longer


def _reached(run: Path, recipe: Recipe, stage: StageSettings) -> int:
    path = run_folder.checkpoint_path(run, stage.name)
    return int(checkpoints.metadata(path)["step"]) if path.exists() else 0


def _check_room(stage: StageSettings, of_epoch: int, end: int, steps: int) -> None:
    """Raises UsageError where the learning rate cannot follow its schedule for so many steps after the stage's end."""
    optimiser = stage.settings.optimiser
    horizon, warm_up = optimiser.horizon * of_epoch, optimiser.warm_up * of_epoch
    if 0 < horizon < end + steps:
        raise UsageError(
            f"the learning rate's schedule ends at step {horizon} (horizon), {counted(horizon - end, 'step')} after the"
            f" end of stage {stage.name}",
            where="--more_steps",
            remedy=f"at most {called.option('more_steps', str(horizon - end))}"
            if horizon > end
            else f"another {called.option('run')}, with a longer horizon",
        )
    if not horizon and warm_up >= steps:
        raise UsageError(
            f"the learning rate's warm-up, with which the schedule of stage {stage.name} begins again, takes"
            f" {counted(warm_up, 'step')}",
            where="--more_steps",
            remedy=f"at least {called.option('more_steps', str(warm_up + 1))}",
        )
