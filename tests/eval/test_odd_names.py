"""Every id, class, recording, store, run and recipe name that is accepted works in every command of stages
two and three, in what they write, and on their pages."""

from __future__ import annotations

import contextlib
import dataclasses
import html.parser
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest import mock

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import yaml

from eval import __main__ as evaluation
from eval import results, runs
from eval.features import FeatureBank
from eval.runs import bank_path
from pipeline import __main__ as extraction
from pipeline.commands import console
from pipeline.manifest import Manifest, Video
from pipeline.store import annotation, open_store
from pipeline.store.annotation import AnnotationSet
from pipeline.store.catalogue import save as save_catalogue
from pipeline.terminal import visible
from tests.eval.conftest import RECIPE
from tests.pipeline.test_odd_names import ODD
from tests.train.stores import write_store
from train import __main__ as training

PROGRAMS = {"pipeline": extraction.COMMANDS, "train": training.COMMANDS, "eval": evaluation.COMMANDS}
# fmt: off
NAMES = [
    *ODD, "0123", "nan", "1e5", "inf", "no", "a=b", "a;b", "a&b=c", "&amp;", "{{ a }}", "{% raw %}", "${a}",
    "$(touch ran)", "<script>x</script>", '"><script>', "'\"`", "|a|b|", "a::b", "file:", "S:", "C:\\a",
    "\u05d0\u05d1", "\u0661", "2001-01-01", "--", "=a", "+a", "\t",
]
# Of stores, runs and files; the first of runs that are trained.
PLACES = [
    "-r #[bold] &'\"%41?{a}|$HOME\\é\U0001f600;*", "a::b\n", "<b>\u202e\x1b[31m", "null", "-", "memory:",
    "e\u0301", "1e5",
]
# fmt: on
CLIP = (9, 16, 24)


STORE, RUN = PLACES[0], f"{PLACES[0]}-r"
TRAINED = [
    "--method=infonce",
    f"--store={STORE}",
    "--recipe=#'r' [a].yaml",
    "--hardware.threads=1",
    "--hardware.reader=opencv",
]
EVALUATED = [f"--store={STORE}", "--protocols=[clean]", "--threads=1", "--reader=opencv"]


class Page(html.parser.HTMLParser):
    """The texts of a page, and where it leads."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        self.text += "".join(f" {value} " for name, value in attributes if name in ("alt", "aria-label"))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(path: Path) -> Page:
    """Of which nothing that a name holds has become a tag, a link, or a sign that steers."""
    content = path.read_text()
    page = Page(content)
    assert "<script>x" not in content
    assert '"><script>' not in content
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search("[\x00-\x08\x1b\u202e]", page.text)
    return page


def call(program: str, *arguments: object) -> tuple[int, str, str]:
    """Runs a command of one of the three packages in this process: exit code, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    given = mock.patch.object(sys, "argv", [program, *map(str, arguments)])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), given:
        try:
            code = console.main(PROGRAMS[program], "", program)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose videos, classes and recordings have all those names, a recipe that has them for its title, and a
    run of it, evaluated."""
    place = tmp_path_factory.mktemp("odd")
    rows = [
        Video(f"{name}/{split}", "x", name, f"{name} of {split}", split)
        for name in NAMES
        for split in ("train", "test")
    ]
    rows += [Video(f"{name}/more", "x", name, f"{name} and more", "train") for name in NAMES[:2]]
    write_store(place / PLACES[0], {row.video_id: CLIP for row in rows})
    annotation.save(place / PLACES[0], annotation.EXTRACTION, AnnotationSet.of_manifest(Manifest(rows, NAMES)))
    save_catalogue(place / PLACES[0])
    recipe = yaml.safe_load(RECIPE)
    recipe |= {"title": " ".join(NAMES), "stages": recipe["stages"][1:], "batch": 8}
    recipe["stages"][0] |= {"name": "-null", "steps": 2}
    (place / "#'r' [a].yaml").write_text(yaml.safe_dump(recipe))
    with contextlib.chdir(place):
        code, _, err = call("train", "pretrain", f"--run={RUN}", *TRAINED)
        assert code == 0, err
        code, _, err = call("eval", "evaluate", f"--run={RUN}", *EVALUATED)
        assert code == 0, err
    return place


def test_odd_names_of_videos_classes_and_runs_in_every_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert {open_store(STORE).info(f"{name}/train").label for name in NAMES} == set(NAMES)
    assert [line["step"] for line in runs.stages(Path(RUN))[0].metrics()] == [1, 2]
    bank = FeatureBank.load(bank_path(Path(RUN), open_store(STORE), "-null", "trained", "clean", "rgb"))
    assert {video_id.rpartition("/")[0] for video_id in bank.video_ids} == set(NAMES)
    assert results.read(Path(RUN, "results.json"))[0].stage == "-null"
    for place in PLACES[1:3]:
        code, _, err = call("train", "pretrain", f"--run={place}-r", *TRAINED)
        assert code == 0, (place, err)
    for place in PLACES[1:]:
        other = f"{place}-r"
        shutil.copytree(RUN, other, dirs_exist_ok=True)
        for command in (["train", "verify"], ["eval", "report", f"--store={STORE}"]):
            code, out, err = call(*command, f"--run={other}")
            assert code == 0, (other, out, err)
        told = page_of(Path(other, "report.html")).text.partition("Again: ")[2].splitlines()[0]
        if other == visible(other) and "\n" not in other:
            assert shlex.split(told) == ["make", "evaluate", f"RUN={other}", f"STORE={STORE}"]


def test_odd_names_in_a_comparison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code, out, err = call("eval", "compare", f"--runs={json.dumps([RUN])}", "--out=-c #.html")
    assert code == 0, err
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in table} == {9}
    page_of(Path("-c #.html"))


def test_odd_names_on_the_preview_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code, _, err = call("train", "preview", "--out=-p #?.html", *TRAINED[:3])
    assert code == 0, err
    page = page_of(Path("-p #?.html"))
    assert len([name for name in NAMES if f"{visible(name)}/" in page.text]) >= 8
    sheets = [f"{name}/test" for name in NAMES[::4]]
    code, _, err = call("pipeline", "preview", f"--store={STORE}", "--out=-sheets", f"--videos={json.dumps(sheets)}")
    assert code == 0, err
    assert len(list(Path("-sheets").rglob("*.png"))) == len(sheets)


def test_odd_names_of_files_that_are_exported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    checkpoint = f"--checkpoint={RUN}/-null/checkpoints/last.ckpt"
    for place in PLACES:
        code, _, err = call("train", "export", checkpoint, f"--out={place}.pt", "--stream=rgb")
        assert code == 0, (place, err)
        assert Path(f"{place}.pt").is_file()
        assert Path(f"{place}.json").is_file()
    code, _, err = call("train", "import", f"--run={PLACES[0]}-i", f"--rgb={PLACES[0]}.pt")
    assert (code, f"where: {PLACES[0]}.pt" in err) == (1, True), err


@pytest.mark.parametrize("instead", [[], ["--manifest", "#split, 'a'.csv"]], ids=["share", "manifest"])
def test_training_without_a_split_tells_commands_that_make_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / STORE, STORE)
    split = [Video(f"{name}/{split}", "x", name, "", split) for name in NAMES for split in ("train", "test")]
    Manifest(split, NAMES).save(Path("#split, 'a'.csv"))
    none = [dataclasses.replace(row, split="") for row in split]
    annotation.save(tmp_path / STORE, annotation.EXTRACTION, AnnotationSet.of_manifest(Manifest(none, NAMES)))
    trained = [f"--recipe={folder}/#'r' [a].yaml" if "recipe" in option else option for option in TRAINED]
    code, _, err = call("train", "pretrain", "--run=r", *trained)
    assert code == 1
    words = shlex.split(err.partition("to do: `")[2].partition("` keeps a fifth")[0])
    assert words[:2] + words[-2:] == ["python", "-m", "--test_share", ".2"]
    code, _, err = call(*words[2:-2], *(instead or words[-2:]))
    assert code == 0, err
    code, _, err = call("train", "pretrain", "--run=r", *trained)
    assert code == 0, err
