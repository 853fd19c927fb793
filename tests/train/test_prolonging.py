"""A finished run is prolonged under its name: bit for bit what a run is whose recipe says so from the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE, Run, pretrain
from train import prolonging, run_folder
from train.checkpoints import METADATA
from train.recipe import Recipe

SHORT = IN_BATCH | {"steps": 3}
OF_EPOCH = 3  # steps


def steps_of(run: Path, stage: str) -> int:
    return runs.content(run, stage)[METADATA]["step"]


@pytest.mark.remedy("train it first, without MORE_STEPS=")
def test_a_prolonged_run_is_the_run_of_a_longer_recipe(store: VideoStore, tmp_path: Path, call: Run) -> None:
    """Two stages that none starts from; the steps are interrupted, repeated and prolonged once more."""
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(INFONCE | {"epochs": 1}, SHORT))
    run, longer = tmp_path / "run", tmp_path / "longer"
    asked = pretrain(store.root, run, recipe)

    code, _, errors = call(*asked, "--more_steps", 4)
    assert code == 2 and "nothing to prolong" in errors
    assert call(*asked)[0] == 0
    with runs.signalled(4):
        assert call(*asked, "--more_steps", 4)[0] == 143
    assert [steps_of(run, name) for name in ("motion", "pixels")] == [5, 3]
    code, _, errors = call(*asked, "--more_steps", 4)
    assert code == 0
    assert "stage motion is at step 5 of 7: it goes on to its end, and no steps are added" in errors
    code, _, errors = call(*asked, "--more_steps", 1)
    assert code == 0
    assert "stage motion: 1 step more, 7 -> 8; the learning rate falls at the milestones" in errors
    assert "stage pixels: 1 step more, 7 -> 8; the learning rate goes through a cycle of their own" in errors

    assert call(*pretrain(store.root, longer, recipe, "--set", "stages.*.more_steps=[4, 1]"))[0] == 0
    for name in ("motion", "pixels"):
        runs.assert_same_runs(longer, run, name)
    assert (run / run_folder.RECIPE).read_bytes() == (longer / run_folder.RECIPE).read_bytes()
    code, _, errors = call(*asked)  # and is still the run of its recipe
    assert code == 0 and errors.count("was finished already") == 2


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage is at its end, without a step."""
    monkeypatch.setattr(prolonging, "_reached", lambda run, recipe, stage: stage.length(OF_EPOCH))


@pytest.mark.usefixtures("finished")
def test_a_stage_that_others_began_with_stays(store: VideoStore, tmp_path: Path) -> None:
    later = SHORT | {"name": "later", "start": {"query": "pixels"}}
    recipe = runs.load(tmp_path / "recipe.yaml", SHORT, later)
    longer = prolonging.prolonged(tmp_path, recipe, store, 2)
    assert [stage.more_steps for stage in longer.stages] == [(), (2,)]
    assert prolonging.as_recorded(tmp_path, recipe) == longer
    again = prolonging.prolonged(tmp_path, longer, store, 5)
    assert [stage["more_steps"] for stage in again.as_dict()["stages"][1:]] == [[2, 5]]


def at_its_end(folder: Path, steps: int, **schedule: int) -> Recipe:
    """Of a run of one stage whose learning rate follows a cosine."""
    settings = IN_BATCH["settings"] | {"optimiser": {"name": "sgd", "lr": 0.05, "schedule": "cosine", **schedule}}
    return runs.load(folder / "recipe.yaml", SHORT | {"steps": steps, "settings": settings})


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("schedule", "remedy"),
    [
        pytest.param({"horizon": 2}, "at most MORE_STEPS=2", marks=pytest.mark.remedy("at most MORE_STEPS=")),
        pytest.param({"warm_up": 1}, "at least MORE_STEPS=4", marks=pytest.mark.remedy("at least MORE_STEPS=")),
    ],
)
def test_a_schedule_without_room_is_refused(
    store: VideoStore, tmp_path: Path, schedule: dict[str, int], remedy: str
) -> None:
    recipe, right = at_its_end(tmp_path, 4, **schedule), int(remedy.split("=")[-1])
    before = (tmp_path / "recipe.yaml").read_bytes()
    with pytest.raises(UsageError) as error:
        prolonging.prolonged(tmp_path, recipe, store, 3)
    assert error.value.remedy == remedy and (tmp_path / "recipe.yaml").read_bytes() == before
    assert prolonging.prolonged(tmp_path, recipe, store, right).stages[0].more_steps == (right,)


@pytest.mark.usefixtures("finished")
@pytest.mark.remedy("another RUN=, with a longer horizon")
def test_a_run_at_its_horizon_is_not_prolonged(store: VideoStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ends at step 3"):
        prolonging.prolonged(tmp_path, at_its_end(tmp_path, 3, horizon=1), store, 1)
    assert prolonging.prolonged(tmp_path, at_its_end(tmp_path, 3, horizon=2), store, 3).stages[0].more_steps == (3,)
