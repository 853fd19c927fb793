"""Any changed byte of a run is found: where it is read, and by verify. What is told to do about it helps."""

from __future__ import annotations

import json
import random
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import Refusal
from pipeline.storage import sealed
from pipeline.store import VideoStore
from tests import remedies
from tests.remedies import helps
from tests.train import runs
from tests.train.runs import IN_BATCH, last, stop
from train import checkpoints, file_commands, run_folder
from train.callbacks.metrics import Metrics, read_lines
from train.checkpoints import METADATA
from train.published import files
from train.recipe import Recipe
from train.verify import verify


@pytest.fixture(scope="module")
def begun(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """Stopped after four of eight steps, with numbered checkpoints; for copying."""
    folder = tmp_path_factory.mktemp("begun")
    recipe = runs.load(folder / "recipe.yaml", IN_BATCH, keep_every=2)
    stop(recipe, store, folder / "run", 4)
    return recipe, folder / "run"


@pytest.fixture(scope="module")
def whole(begun: tuple[Recipe, Path], store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, gone to its end."""
    run = shutil.copytree(begun[1], tmp_path_factory.mktemp("whole") / "run")
    runs.run(begun[0], store, run)
    return run


@pytest.fixture
def run(begun: tuple[Recipe, Path], tmp_path: Path) -> Path:
    return shutil.copytree(begun[1], tmp_path / "run")


def problems(run: Path) -> list[Refusal]:
    return [problem for problem in verify(run) if problem is not None]


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.remedy("give the RUN= that `make pretrain` wrote")
def test_a_run_as_it_was_written_is_whole(whole: Path, run: Path, tmp_path: Path) -> None:
    helps(problems, lambda folder: problems(run), tmp_path)
    assert not problems(run) and not problems(whole)
    assert file_commands.verify(run) == 0
    shutil.rmtree(run)
    with pytest.raises(Refusal, match="no such folder"):
        problems(run)


def test_any_changed_byte_of_a_checkpoint_is_found(run: Path) -> None:
    path = last(run)
    content = path.read_bytes()
    drawn = random.Random(0).sample(range(len(content)), 60)
    for place in (*drawn, *range(len(content) - sealed.LENGTH - 2, len(content))):
        path.write_bytes(flipped(content, place))
        with pytest.raises(Refusal, match="bytes are not those that were written|cannot be read"):
            checkpoints.read(path)
    path.write_bytes(content + b"\n")
    with pytest.raises(Refusal, match="bytes are not those that were written"):
        checkpoints.read(path)
    [problem] = problems(run)
    assert problem.where == str(path)
    assert file_commands.verify(run) == 1


def test_changed_bytes_of_files_of_others_are_found(tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}}, path)
    content = path.read_bytes()
    assert files.load(path, "")["state_dict"]["weight"][-1] == 999
    path.write_bytes(flipped(content, len(content) // 2))
    with pytest.raises(Refusal, match="bytes are not those that were written"):
        files.load(path, "")


def test_sealed_files_are_read_by_torch_alone(tmp_path: Path) -> None:
    checkpoints.write({"weight": torch.arange(5)}, tmp_path / "a.pt")
    for mapped in (False, True):
        assert torch.load(tmp_path / "a.pt", weights_only=True, mmap=mapped)["weight"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.remedy("put a copy, such as step-N.ckpt of its folder, in its place, or delete it: ")
def test_another_checkpoint_in_its_place_or_none_goes_on(
    begun: tuple[Recipe, Path], whole: Path, run: Path, store: VideoStore
) -> None:
    """What the refusal says to do, both ways, leads to the run that was not disturbed."""
    path = last(run)
    path.write_bytes(flipped(path.read_bytes(), 5000))
    with pytest.raises(Refusal, match="(?s)not those that were written.*use a copy, or delete it"):
        runs.run(begun[0], store, run)
    shutil.copy(path.with_name("step-2.ckpt"), path)
    runs.run(begun[0], store, run)
    runs.assert_same_runs(whole, run, "pixels")
    content = runs.content(run, "pixels")
    content[METADATA].pop("recipe_hash")
    checkpoints.write(content, path)
    with pytest.raises(Refusal, match="lacks recipe_hash"):
        runs.run(begun[0], store, run)
    path.unlink()
    runs.run(begun[0], store, run)
    runs.assert_same_runs(whole, run, "pixels")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "train it, or download it, first",
            lambda run: (checkpoints.read(run / "none.ckpt"), checkpoints.lineage(run / "none.ckpt")),
            lambda run: (checkpoints.read(last(run)), checkpoints.lineage(last(run))),
        ),
        remedies.case(
            "give RUN/<stage>/checkpoints/last.ckpt",
            lambda run: checkpoints.read(saved(run / "a.pt")),
            lambda run: checkpoints.read(run / "pixels" / "checkpoints" / "last.ckpt"),
        ),
        remedies.case(
            "let the recipe have the file's backbone and backbone_settings",
            lambda run: started(last(run), width=0.5),
            lambda run: started(last(run), width=0.25),
        ),
    ],
)
def test_a_checkpoint_is_given(run: Path, wrong: Callable, right: Callable) -> None:
    helps(wrong, right, run)


def started(path: Path, width: float) -> None:
    settings = IN_BATCH["settings"] | {"backbone_settings": {"width": width}}  # type: ignore[operator]
    method = checkpoints.create("infonce", settings, {"rgb": 3}, seed=3)
    weights = checkpoints.starting_weights(path, method.settings.starts["query"])
    for parts in method.starting["query"]:
        checkpoints.start_from(parts, weights, "here")


def saved(path: Path) -> Path:
    torch.save({"weight": torch.zeros(1)}, path)
    return path


@pytest.mark.parametrize(
    ("lacks", "change"),
    [
        ("the optimiser's state", lambda content: content.pop("optimizer_states")),
        ("the optimiser's state", lambda content: content.update(optimizer_states=[])),
        ("the optimiser's state", lambda content: content["optimizer_states"][0].update(state={})),
        ("lr_schedulers", lambda content: content.pop("lr_schedulers")),
        ("loops", lambda content: content.pop("loops")),
        ("the place in the epoch", lambda content: content["loops"]["fit_loop"].pop("state_dict")),
        ("the state of Metrics", lambda content: content["callbacks"].pop("Metrics")),
        ("the state of Checkpoints", lambda content: content["callbacks"].pop("Checkpoints")),
        ("finished", lambda content: content[METADATA].pop("finished")),
        ("state_dict", lambda content: content.pop("state_dict")),
    ],
)
def test_a_checkpoint_without_what_continues_it_is_refused_by_name(
    begun: tuple[Recipe, Path], run: Path, store: VideoStore, lacks: str, change: Callable[[dict[str, Any]], object]
) -> None:
    content = runs.content(run, "pixels")
    change(content)
    checkpoints.write(content, last(run))
    with pytest.raises(Refusal, match=f"lacks .*{lacks}"):
        runs.run(begun[0], store, run)


def test_parts_that_are_not_of_one_another_are_found(run: Path) -> None:
    content = runs.content(run, "pixels")
    torch.save(content, last(run))
    assert ["no digest" in problem.what for problem in problems(run)] == [True]
    content[METADATA]["stage"] = "motion"
    checkpoints.write(content, last(run))
    assert ["is of stage motion" in problem.what for problem in problems(run)] == [True]
    shutil.copy(last(run).with_name("step-4.ckpt"), last(run))
    recipe = run / run_folder.RECIPE
    recipe.write_text(recipe.read_text().replace("seed: 3", "seed: 4"))
    assert {problem.where for problem in problems(run)} == {str(path) for path in last(run).parent.iterdir()}
    assert all("another recipe" in problem.what for problem in problems(run))


def test_what_is_gone_of_a_run_is_found_by_what_was_made_of_it(run: Path) -> None:
    results = run / "results.json"
    results.write_bytes(sealed.seal_records([{"stage": "pixels", "value": 0.5}, {"stage": "motion+pixels"}]))
    assert not problems(run)
    shutil.rmtree(last(run).parent)
    [problem] = problems(run)
    assert (problem.what, problem.where) == (
        "the checkpoint is missing, but there are results of it",
        str(last(run)),
    )
    page = results.rename(run / "report.html")
    [problem] = problems(run)
    assert (problem.what, problem.where) == ("the results that it was made of are gone", str(page))


DAMAGE = {
    "half a line": lambda text: text[:-30],
    "nothing": lambda text: b"",
    "NULs at the end": lambda text: text + bytes(512),
    "NULs before a line": lambda text: text.replace(b"\n", b"\n" + bytes(100), 1),
    "an empty line": lambda text: text.replace(b"\n", b"\n\n", 1),
    "half a line within": lambda text: text[:50] + text[90:],
    "no text": lambda text: text + b"\xff\xfe\n",
    "no line": lambda text: b'[]\n3\n{"step": "2"}\n{"step": 1, "loss": null}\n{"step": 1%d}\n' % 10**400 + text,
    "a deep one": lambda text: b"[" * 100_000 + b"\n" + text,
    "lines twice": lambda text: text + text,
}


def damaged(run: Path, damage: str) -> tuple[Path, list[dict[str, float]], str]:
    """The log of a run of four steps once it is damaged, the lines that are still whole, and what is told of the
    others."""
    log = run / "pixels" / "metrics.jsonl"
    log.write_bytes(DAMAGE[damage](log.read_bytes()))
    kept = read_lines(log)[0]
    lost = f"the lines of {4 - len(kept)} steps up to step 4 are lost"
    return log, kept, "" if damage == "NULs before a line" else lost


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_log_is_mended(run: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    """As a run that goes on does it first: lines that are whole stay, and what is lost is told once."""
    log, kept, lost = damaged(run, damage)
    Metrics(log, every=1).on_train_start(types.SimpleNamespace(is_global_zero=True, global_step=4), None)  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert (told.count("metrics.jsonl: "), lost in told) == (bool(lost), True)
    assert read_lines(log) == (kept, 0)


@pytest.mark.parametrize("damage", ["half a line within", "a deep one"])
def test_a_run_with_a_damaged_log_goes_on(
    begun: tuple[Recipe, Path],
    whole: Path,
    run: Path,
    store: VideoStore,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    """Lines that are whole stay, those after the checkpoint are made."""
    log, kept, lost = damaged(run, damage)
    runs.run(begun[0], store, run)
    told = capsys.readouterr().err
    assert (told.count("metrics.jsonl: "), lost in told) == (1, True)
    steps = [*(line["step"] for line in kept), 5, 6, 7, 8]
    assert [line["step"] for line in runs.lines(run, "pixels")] == steps
    assert runs.lines(run, "pixels") == [line for line in runs.lines(whole, "pixels") if line["step"] in steps]
    assert read_lines(log)[1] == 0 and not problems(run)


@pytest.mark.remedy("move away what lies in its place: the lines after the last checkpoint are written again")
def test_what_lies_in_a_logs_place_is_moved_away(begun: tuple[Recipe, Path], run: Path, store: VideoStore) -> None:
    log = run / "pixels" / "metrics.jsonl"
    log.unlink()
    log.mkdir()
    helps(
        lambda _: runs.run(begun[0], store, run),
        lambda _: (log.rename(run / "away"), runs.run(begun[0], store, run)),
        run,
    )
    assert [line["step"] for line in runs.lines(run, "pixels")] == [5, 6, 7, 8]


def test_records_are_read_as_they_were_written_or_not_at_all() -> None:
    rows = [{"metric": "R@1", "value": 0.25}, {"metric": "R@5", "value": 0.5}]
    content = sealed.seal_records(rows)
    assert sealed.records(content) == rows
    assert [row.keys() - {"metric", "value"} for row in json.loads(content)] == [set(), {"digest"}]
    for place in range(len(content)):
        with pytest.raises(ValueError):
            sealed.records(flipped(content, place))
