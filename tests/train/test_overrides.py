"""What a command changes of a recipe is checked as the file is, and is the run's recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.arguments import Changes
from pipeline.commands import console
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE
from tests.train.stores import write_store
from train import overrides, provenance, recipe, stage_data
from train.commands import pretrain
from train.run_folder import read_recipe
from train.stage_data import fitted


def changed(*changes: str) -> dict[str, Any]:
    return overrides.changed(runs.settings(INFONCE, IN_BATCH | {"batch": 6}), changes)[0]


def test_keys_are_changed_by_their_path() -> None:
    made = changed("stages.0.epochs=2", "clips.size=[24, 24]", "neighbours.every=5", "title='a = b'")
    assert made["stages"][0]["epochs"] == 2
    assert (made["clips"]["size"], made["neighbours"], made["title"]) == ([24, 24], {"every": 5}, "a = b")


def test_stages_are_named_by_number_by_name_and_all_together() -> None:
    optimiser = "settings.optimiser.lr=0.5"
    assert changed(f"stages.pixels.{optimiser}")["stages"][1]["settings"]["optimiser"]["lr"] == 0.5
    assert [stage["settings"]["optimiser"]["lr"] for stage in changed(f"stages.*.{optimiser}")["stages"]] == [0.5, 0.5]


def test_steps_take_the_place_of_epochs_and_a_batch_that_of_stages() -> None:
    given = overrides.listed(["seed=4"], steps=7, batch=2)
    made, told = overrides.changed(runs.settings(INFONCE, IN_BATCH | {"batch": 6}), given)
    assert [(stage["steps"], "epochs" in stage) for stage in made["stages"]] == [(7, False), (7, False)]
    assert (made["batch"], made["stages"][1]["batch"], made["seed"]) == (2, 2, 4)
    assert told == [
        "stages.0.steps 7 in place of 3 epochs",
        "stages.1.steps 8 -> 7",
        "batch 4 -> 2",
        "stages.1.batch 6 -> 2",
        "seed 3 -> 4",
    ]


def test_what_is_given_is_left_as_it_was() -> None:
    before = runs.settings(INFONCE)
    overrides.changed(before, ["stages.0.epochs=9", "batch=2"])
    assert before == runs.settings(INFONCE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("batch", "'batch' is no KEY=VALUE"),
        ("=4", "'=4' is no KEY=VALUE"),
        ("stages..steps=4", "is no KEY=VALUE"),
        ("stages.2.steps=4", 'unknown stage "2"(?s:.*)known: motion, pixels'),
        ("stages.pixles.steps=4", 'did you mean "pixels"'),
        ("batch.size=4", "batch has no keys of its own"),
        ("clips.size.0=4", r"(?s)clips.size has no keys.*clips.size=\[24,24\]"),
        ("stages.0=4", "stages has no keys"),
        ("batch.a.b=4", "has no keys of its own"),
        ("title=[", "is not YAML"),
    ],
)
def test_changes_that_cannot_be_meant_are_refused_fails(change: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        changed(change)


def test_steps_and_epochs_together_are_refused_fails() -> None:
    with pytest.raises(UsageError, match="either epochs or steps"):
        overrides.listed([], steps=3, epochs=3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("batsh=4", '(?s)unknown key "batsh".*--set batsh=4.*did you mean "batch"'),
        ("batch=0", "(?s)batch.*at least 1"),
        ("stages.0.settings.optimiser.lr=1e-3", "(?s)not a number"),
        ("stages.0.method=infonse", 'did you mean "infonce"'),
    ],
)
def test_changes_are_checked_as_the_file_is_fails(tmp_path: Path, change: str, told: str) -> None:
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(INFONCE))
    with pytest.raises(UsageError, match=told):
        recipe.load(path, changes=[change])


def test_a_changed_recipe_is_the_one_whose_file_says_so(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(INFONCE))
    other = runs.write(tmp_path / "other.yaml", runs.settings({**INFONCE, "epochs": 2}, batch=2))
    found = recipe.load(path, changes=["stages.0.epochs=2", "batch=2"]).as_dict()
    assert provenance.recipe_hash(found) == provenance.recipe_hash(recipe.load(other).as_dict())


def test_a_run_is_trained_and_continued_with_its_changes_and_with_no_others(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(runs.write(tmp_path / "recipe.yaml", runs.settings(INFONCE)))
    options: dict[str, Any] = {"recipe": path, "hardware": runs.HARDWARE, "set": ["log_every=2"]}
    assert pretrain("infonce", str(store.root), tmp_path / "run", steps=2, **options) == 0
    assert "changed in the recipe: stages.0.steps 2 in place of 3 epochs, log_every 1 -> 2" in capsys.readouterr().err
    written = read_recipe(tmp_path / "run")
    assert (written["stages"][0]["steps"], written["stages"][0]["epochs"], written["log_every"]) == (2, 0, 2)
    assert pretrain("infonce", str(store.root), tmp_path / "run", steps=2, **options) == 0
    with pytest.raises(Refusal, match="(?s)the run belongs to another recipe.*steps"):
        pretrain("infonce", str(store.root), tmp_path / "run", steps=3, **options)


def test_the_commands_of_a_terminal_take_changes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[str] | None] = []

    def command(set: Changes | None = None, seed: int = 0) -> None:
        taken.append(set)

    for words in (["--set", "a=1", "--seed", "2", "--set=b=[1, #2]"], []):
        monkeypatch.setattr(sys, "argv", ["train", "pretrain", *words])
        assert console.main({"pretrain": command}, "", "train") == 0
    assert taken == [["a=1", "b=[1, #2]"], None]


def test_a_batch_that_a_small_set_does_not_fill_is_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = write_store(tmp_path / "store", {f"v{number}": (8, 20, 24) for number in range(7)})
    queued = INFONCE | {"settings": INFONCE["settings"] | {"queue": 96}}
    given = runs.load(tmp_path / "a.yaml", queued, IN_BATCH | {"batch": 6}, batch=32, fit_batch=True)
    found = fitted(given, small)
    assert (found.batch, [found.batch_of(stage) for stage in found.stages]) == (6, [6, 6])  # of which 96 is a multiple
    assert "a batch of 32 is more than the 7 training videos: batch 6 (fit_batch)" in capsys.readouterr().err
    assert fitted(found, small) == found
    assert fitted(given, small, ranks=4).batch == 4
    assert "fit_batch" not in found.as_dict()
    unchanged = runs.load(tmp_path / "b.yaml", queued, batch=32)
    assert fitted(unchanged, small) is unchanged
    assert found.model_fields_set == given.model_fields_set


def test_a_method_of_another_recipe_is_told_where_it_is_fails() -> None:
    with pytest.raises(UsageError, match='(?s)unknown method in recipe hmdb51 "goca".*RECIPE=: kinetics400 or small'):
        recipe.find("hmdb51", "goca")
    assert recipe.find("small", "goca").is_file()


def test_help_lists_methods_and_recipes() -> None:
    told = pretrain.__doc__ or ""
    for name in [*recipe.methods_of("small"), *(set(recipe.folders()) - set(recipe.FOLDERS_ON_LABELS))]:
        assert name in told
    assert "finetune" not in told


def test_small_recipes_fit_their_batch(
    store: VideoStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ViCC with a prototype for each video at most, SLIC with whole pools."""
    monkeypatch.setattr(stage_data, "training_set_of", lambda *_: range(30))
    for folder in ("small", "small-real"):
        for method in recipe.methods_of(folder):
            found = fitted(recipe.load(recipe.find(folder, method)), store)
            assert {found.batch_of(stage) for stage in found.stages} <= {30, 24, 16}, (folder, method)
            told = ", prototypes 32 -> 30" if method == "vicc" else ""
            assert f"than the 30 training videos: batch {found.batch}{told} (fit_batch)\n" in capsys.readouterr().err
    monkeypatch.setattr(stage_data, "training_set_of", lambda *_: range(5))
    whole = recipe.load(recipe.find("small-real", "slic"))
    pools = [stage.changed(settings=stage.settings.changed(competing=8)) for stage in whole.stages]
    fitted(whole.changed(stages=pools), store)
    assert "than the 5 training videos: batch 5, competing 8 -> 5 (fit_batch)\n" in capsys.readouterr().err
