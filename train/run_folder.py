"""A run's folder: its recipe as it was written, who trains into it, and where its checkpoints lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from pipeline import called, storage, yaml_file
from pipeline.errors import Refusal
from pipeline.storage import exclusive
from pipeline.store.settings import differences
from pipeline.validation import Facts, check
from train.console import LEADER
from train.recipe import STAGE_NAME, MoreSteps, Recipe, UniqueKeys

RECIPE, LOCK = "recipe.yaml", ".lock"


def checkpoint_path(run: Path, stage: str) -> Path:
    return run / stage / "checkpoints" / "last.ckpt"


@contextlib.contextmanager
def only_trainer(run: Path, recipe: Recipe) -> Iterator[None]:
    """Hold a run's folder, prepared. Raises Refusal, naming the holder, where another process trains into it."""

    def taken(holder: str) -> Refusal:
        return Refusal(
            f"another training is writing to this run ({holder})",
            where=str(run),
            remedy=f"wait for it, or stop it, or give another {called.option('run')};"
            " to evaluate meanwhile does no harm",
        )

    if not LEADER:  # it writes nothing, and would see the folder while the leader of its group fills it
        yield
        return
    check_folder(run, recipe)
    with contextlib.ExitStack() as stack:
        with storage.writing("the run", run):
            storage.make_folder(run)
            stack.enter_context(exclusive.held(run / LOCK, taken))
        prepare(run, recipe)
        yield


def prepare(run: Path, recipe: Recipe) -> None:
    """Make the run's folder and write RUN/recipe.yaml; or see that it belongs to this recipe. Raises Refusal."""
    if not check_folder(run, recipe):
        write_recipe(run, recipe)


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Of a group, the leader does."""
    if not LEADER:
        return
    content = yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True)
    with storage.writing("the run", run):
        storage.write_atomically(run / RECIPE, content.encode())


def check_folder(run: Path, recipe: Recipe) -> bool:
    """Whether the folder is a run of this recipe already. Raises Refusal where it is anything else but new."""
    path = run / RECIPE
    if path.is_file():
        found = differences(read_recipe(run), recipe.as_dict())
        if found:
            raise Refusal(
                "the run belongs to another recipe:\n    " + "\n    ".join(found),
                where=str(path),
                remedy=f"give another {called.option('run')}, or the recipe that it was started with;"
                " nothing was changed",
            )
        return True
    if run.is_dir() and any(item.name not in (LOCK, RECIPE + ".partial") for item in run.iterdir()):
        raise Refusal(
            "this folder is not empty and not a run",
            where=str(run),
            remedy=f"give a new folder as {called.option('run')}",
        )
    return False


class RunStage(Facts):
    name: Annotated[str, Field(pattern=STAGE_NAME)]
    start: dict[str, str] = {}
    more_steps: MoreSteps = ()


class RunRecipe(Facts):
    """What is relied on of a run's recipe, which its first training wrote."""

    title: str
    seed: Annotated[int, Field(ge=0)]
    splits: list[str]
    stages: Annotated[list[RunStage], Field(min_length=1)]


def read_recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe of a run, as its first training wrote it.

    Raises:
        Refusal: no run here, or its recipe is damaged.
    """
    path = run / RECIPE
    if not path.is_file():
        raise Refusal(
            "there is no run here" if run.is_dir() else "there is no such folder",
            where=str(path),
            remedy=f"give the {called.option('run')} that `{called.command('pretrain')}` wrote",
        )
    try:
        found = yaml_file.read(path, _NoAliases)
        if not isinstance(found, dict):
            raise ValueError("it is no mapping of names")
        check(RunRecipe, found)
    except ValueError as error:
        raise Refusal(
            f"the run's recipe cannot be read: {error}", where=str(path), remedy=f"give another {called.option('run')}"
        ) from error
    if "sampling" not in found:
        raise Refusal(
            "the run is of an older costream, which drew other frames and pixels: its recipe has no `sampling`",
            where=str(path),
            remedy=f"give another {called.option('run')}; nothing was changed",
        )
    return found


class _NoAliases(UniqueKeys):
    """Refuses aliases, which let few lines stand for more than fits into memory; a run's recipe is written without."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="it has an alias", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)
