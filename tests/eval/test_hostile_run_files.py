"""Whatever the files of a run say, with whatever digests: evaluation, report, comparison and verify give what was
measured, or refuse by name."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from eval import compare, features, report, results, runs
from eval.bank import FeatureBank
from eval.runs import bank_path
from pipeline.errors import Refusal
from pipeline.storage import sealed
from pipeline.store import VideoStore
from tests import hostile
from train import checkpoints, verify
from train.checkpoints import METADATA
from train.run_folder import RECIPE, check_folder, checkpoint_path


def readers(run: Path, store: VideoStore, all_of_them: bool) -> list[Callable[[], object]]:
    """Each way in which a kind of file is read; some load networks, or draw the page, and take long."""
    quick: list[Callable[[], object]] = [
        lambda: results.read(run / "results.json"),
        lambda: compare.compare([run]),
        lambda: runs.recipe_text(run),
        lambda: [runs.Stage("flow", checkpoint_path(run, "flow"), {}).metrics()],
    ]
    slow: list[Callable[[], object]] = [
        lambda: [(stage.name, runs.trained_on(stage, run, store)) for stage in runs.stages(run)],
        lambda: report.write_report(run, store),
        lambda: list(verify.verify(run)),
    ]
    return [*quick, *slow] if all_of_them else quick


def refused_or_right(run: Path, store: VideoStore, what: str, all_of_them: bool = False) -> int:
    count = 0
    for number, reader in enumerate(readers(run, store, all_of_them)):
        try:
            reader()
        except Refusal:
            count += 1
        except Exception as error:
            raise AssertionError(f"{what}, reader {number}: {error!r}") from error
    return count


@pytest.mark.parametrize(
    "changes", [hostile.SOME, pytest.param(tuple(hostile.RAW), marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("name", [RECIPE, "results.json", "flow/metrics.jsonl", "flow/checkpoints/last.ckpt"])
def test_bytes_of_no_meaning_are_refused(
    evaluated: Path, store: VideoStore, name: str, changes: tuple[str, ...]
) -> None:
    path, everything = evaluated / name, changes != hostile.SOME
    whole = path.read_bytes()
    for what in changes:
        if (name, what) != (RECIPE, "nested"):  # see below: PyYAML takes its time
            path.write_bytes(hostile.RAW[what](whole))
            refused_or_right(evaluated, store, f"{name}, {what}")
    path.unlink()
    path.mkdir()
    refused_or_right(evaluated, store, f"{name}, a folder in its place", all_of_them=everything)
    path.rmdir()
    os.mkfifo(path)
    refused_or_right(evaluated, store, f"{name}, a FIFO in its place", all_of_them=True)


@pytest.mark.parametrize("share", [0.2, pytest.param(1.0, marks=pytest.mark.slow)])
def test_each_value_of_a_recipe_or_result_may_be_gone_or_another(
    evaluated: Path, store: VideoStore, share: float
) -> None:
    path = evaluated / RECIPE
    whole, refused = path.read_bytes(), 0
    for what, changed in hostile.mutated(yaml.safe_load(whole), 0.04 * share):
        path.write_bytes(yaml.safe_dump(changed, sort_keys=False).encode(errors="surrogateescape"))
        refused += refused_or_right(evaluated, store, f"recipe, {what}") > 0
    path.write_bytes(whole)
    path, records = evaluated / "results.json", sealed.records((evaluated / "results.json").read_bytes())
    for what, changed in hostile.mutated({"records": records[:1]}, share / 4):
        path.write_bytes(hostile.written(changed["records"]) if "records" in changed else b"")
        refused += refused_or_right(evaluated, store, f"results, {what}") > 0
    assert refused > 5


ALIASES = (
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b]\n"
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (ALIASES, "alias"),
        ("&a [*a]", "alias"),
        ("title: x\ntitle: y\n", "given twice"),
        ("title: x\nseed: 0\nsplits: []\nstages: [{name: ../../x}]\n", "stages[0].name"),
        ("title: x\nseed: -1\nsplits: []\nstages: [{name: x}]\n", "seed"),
        ("title: x\nseed: 0\nsplits: {}\nstages: [{name: x}]\n", "splits"),
        ("- x\n", "no mapping"),
        ("[" * 400, "nested"),
        ("!!python/object/apply:os.system [true]", "python/object"),
    ],
)
def test_a_recipe_of_a_run_that_cannot_be_is_refused_with_its_key(run: Path, content: str, told: str) -> None:
    (run / RECIPE).write_text(content)
    for read in (lambda: runs.stages(run), lambda: runs.recipe_text(run), lambda: list(verify.verify(run))):
        with pytest.raises(Refusal, match="the run's recipe cannot be read") as refused:
            read()
        assert (told in refused.value.what, refused.value.where) == (True, str(run / RECIPE)), refused.value.what


def changed_bank(whole: bytes, change: Callable[[h5py.File], None]) -> bytes:
    content = io.BytesIO(whole)
    with h5py.File(content, "r+") as file:
        change(file)
    return sealed.seal(content.getvalue())


def another(name: str, **column: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **column)

    return change


def gone(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def linked(to: h5py.ExternalLink | h5py.SoftLink) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["rgb"]
        file["rgb"] = to

    return change


def group_in_its_place(file: h5py.File) -> None:
    del file["rgb"]
    file.create_group("rgb")


TEXT = h5py.string_dtype()
BANKS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "huge": (
        another("rgb", shape=(10**8, 1000), dtype="f4", chunks=(1000, 1000)),
        "rgb: it claims 400,000,000,000 bytes",
    ),
    "many ids": (another("video_id", shape=(10**10,), dtype=TEXT, chunks=(1000,)), "video_id: it claims"),
    "integers": (another("rgb", data=np.ones((18, 8), np.int32)), "rgb: this is no column of float32"),
    "doubles": (another("rgb", data=np.ones((18, 8))), "rgb: this is no column of float32"),
    "flat": (another("rgb", data=np.ones(18, np.float32)), "rgb: this is no column of float32"),
    "fewer": (another("rgb", data=np.ones((17, 8), np.float32)), r"features of the shape \(17, 8\) for 18 videos"),
    "NaN": (another("rgb", data=np.full((18, 8), np.nan, np.float32)), "features that are not finite"),
    "labels": (another("label", data=np.full(18, -7)), "label: -7 is no class"),
    "label text": (another("label", data=["x"] * 18, dtype=TEXT), "label: this is no column of int64"),
    "splits": (another("split", data=["dev"] * 18, dtype=TEXT), "split: 'dev' is none"),
    "no ids": (gone("video_id"), "video_id"),
    "no rows": (gone("rgb"), "rgb"),
    "linked": (linked(h5py.ExternalLink("/dev/zero", "rgb")), "rgb: this is no column"),
    "linked softly": (linked(h5py.SoftLink("/rgb")), "rgb: this is no column"),
    "elsewhere": (
        another("rgb", shape=(18, 8), dtype="f4", external=[("/dev/zero", 0, 18 * 8 * 4)]),
        "rgb: its values lie in another file",
    ),
    "a group": (group_in_its_place, "rgb: this is no column"),
    "stream": (lambda file: file.attrs.__setitem__("stream", 3), "stream"),
    "no stream": (lambda file: file.attrs.__delitem__("stream"), "stream"),
    "no videos": (lambda file: file.attrs.__delitem__("videos"), "videos"),
}


@pytest.mark.parametrize(
    "all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["where it is read", "everywhere"]
)
@pytest.mark.parametrize("kind", BANKS)
def test_a_bank_that_cannot_be_is_refused_and_no_memory_is_taken_for_it(
    evaluated: Path, store: VideoStore, kind: str, all_of_them: bool
) -> None:
    path = bank_path(evaluated, store, "rgb", "trained", "clean", "rgb")
    bank = FeatureBank.load(path)
    end = len(path.read_bytes()) - sealed.LENGTH
    change, told = BANKS[kind]
    path.write_bytes(changed_bank(path.read_bytes()[:end], change))
    with pytest.raises(Refusal, match=f"not a feature bank: .*{told}") as refused:
        FeatureBank.load(path)
    assert refused.value.where == str(path)
    assert features._reusable(path, bank.attributes, bank.video_ids) is None
    refused_or_right(evaluated, store, f"bank, {kind}", all_of_them or kind in ("huge", "a group"))


def test_a_bank_of_other_videos_is_not_used_again(evaluated: Path, store: VideoStore) -> None:
    path = bank_path(evaluated, store, "rgb", "trained", "clean", "rgb")
    bank = FeatureBank.load(path)
    assert features._reusable(path, bank.attributes, bank.video_ids) is not None
    assert features._reusable(path, bank.attributes, bank.video_ids[::-1]) is None


def loads(path: Path, what: str) -> bool:
    try:
        checkpoints.load_method(path)
        checkpoints.check_continues(checkpoints.read(path), ("Metrics", "Checkpoints"), path)
    except Refusal:
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    return True


@pytest.mark.parametrize("share", [0.008, pytest.param(0.04, marks=pytest.mark.slow)])
def test_each_fact_of_a_checkpoint_may_be_gone_or_another(run: Path, share: float) -> None:
    path, refused = checkpoint_path(run, "flow"), 0
    whole = torch.load(path, weights_only=True)
    for what, facts in hostile.mutated(whole[METADATA], share):
        checkpoints.write({**whole, METADATA: facts}, path)
        refused += not loads(path, what)
    for key in whole.keys() - {METADATA}:
        for value in (None, {}, [1]):
            checkpoints.write({**whole, key: value}, path)
            refused += not loads(path, f"{key}: {value!r}")
    assert refused > 15


def test_a_run_with_such_a_recipe_is_not_continued(run: Path) -> None:
    (run / RECIPE).write_text(json.dumps({"title": 1}))
    with pytest.raises(Refusal, match="title: 1 is not text"):
        check_folder(run, None)  # type: ignore[arg-type]  # the recipe that is asked for comes second
