"""Two trainings into one run: the second is refused and told who the first is; one that was killed holds nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import Refusal
from pipeline.storage import exclusive
from tests.train import runs
from tests.train.runs import IN_BATCH
from train import imported, run_folder
from train.recipe import Recipe

HOLD = """
import sys
from pathlib import Path
from pipeline.storage import exclusive
with exclusive.held(Path(sys.argv[1]), lambda holder: RuntimeError(holder)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return runs.load(tmp_path / "recipe.yaml", IN_BATCH)


@pytest.fixture
def first(recipe: Recipe, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the run."""
    run = tmp_path / "run"
    run_folder.prepare(run, recipe)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, run / run_folder.LOCK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.remedy("wait for it, or stop it, or give another RUN=")
def test_the_second_is_refused_and_told_who_the_first_is(
    first: subprocess.Popen, recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with (
        pytest.raises(Refusal, match=f"another training.*pid {first.pid} on {socket.gethostname()}"),
        run_folder.only_trainer(run, recipe),
    ):
        pytest.fail("two trainings in one run")
    with run_folder.only_trainer(tmp_path / "another", recipe):
        pass
    first.kill()
    first.wait()
    with run_folder.only_trainer(run, recipe):
        pass


def test_of_two_imports_at_once_the_second_writes_nothing(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found no run there when they began; nothing of the files is looked at here."""
    run, other = tmp_path / "run", contextlib.ExitStack()

    def meanwhile(*_: object) -> dict[str, object]:
        run.mkdir()
        other.enter_context(exclusive.held(run / run_folder.LOCK, Refusal))
        return {}

    for name, stand_in in {"_recipe": lambda *_: recipe, "_checkpoint": meanwhile}.items():
        monkeypatch.setattr(imported, name, stand_in)
    for name in ("import_published", "_tell_what_is_left_out"):
        monkeypatch.setattr(imported, name, lambda *_: None)
    with other, pytest.raises(Refusal, match="another training is writing to this run"):
        imported.import_run({"rgb": tmp_path / "file.pth"}, run, "auto")
    assert [path.name for path in run.iterdir()] == [run_folder.LOCK]


def test_a_run_of_another_recipe_or_folder_is_left_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(Refusal, match="not a run"), run_folder.only_trainer(tmp_path / "mine", recipe):
        pytest.fail("not a run")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_folder_that_holds_only_the_lock_is_new(recipe: Recipe, tmp_path: Path) -> None:
    """A training that was killed before it wrote the recipe."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / run_folder.LOCK).touch()
    with run_folder.only_trainer(tmp_path / "run", recipe):
        assert (tmp_path / "run" / run_folder.RECIPE).is_file()
