"""Every id, class, recording, store, run and recipe name that is accepted works in every command of stages
two and three, in what they write, and on their pages."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import html.parser
import io
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest import mock

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from eval import __main__ as evaluation
from eval import results, runs
from eval.features import FeatureBank
from eval.runs import bank_path
from pipeline import __main__ as extraction
from pipeline import storage, synthetic
from pipeline.commands import console
from pipeline.manifest import Manifest, Video
from pipeline.store import annotation, open_store
from pipeline.store.annotation import AnnotationSet
from pipeline.store.catalogue import save as save_catalogue
from pipeline.terminal import visible
from tests import printed, test_make
from tests.eval.conftest import RECIPE
from tests.pipeline.test_odd_names import ODD
from tests.train.stores import write_store
from tests.train.test_published import published_state
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


COPY = test_make.folder  # a fixture: where make runs, with a Python that writes down what it would be run with


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


@pytest.mark.parametrize(
    ("trained", "places"),
    [(PLACES[1:2], PLACES[1:4]), pytest.param(PLACES[2:3], PLACES[4:], marks=pytest.mark.slow)],
    ids=["some", "others"],
)
def test_odd_names_of_videos_classes_and_runs_in_every_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str], places: list[str]
) -> None:
    monkeypatch.chdir(folder)
    assert {open_store(STORE).info(f"{name}/train").label for name in NAMES} == set(NAMES)
    assert [line["step"] for line in runs.stages(Path(RUN))[0].metrics()] == [1, 2]
    bank = FeatureBank.load(bank_path(Path(RUN), open_store(STORE), "-null", "trained", "clean", "rgb"))
    assert {video_id.rpartition("/")[0] for video_id in bank.video_ids} == set(NAMES)
    assert results.read(Path(RUN, "results.json"))[0].stage == "-null"
    for place in trained:
        code, _, err = call("train", "pretrain", f"--run={place}-r", *TRAINED)
        assert code == 0, (place, err)
    for place in places:
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


FILES = [name for name in NAMES if "/" not in name and len(name.encode()) < 200]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("asked", "outs", "files"),
    [
        (["--view"], ["-d #.csv"], FILES[::4]),
        pytest.param(
            ["[a]"],
            ["-d #.csv", "[d].md", "d&.tex"],
            [name for name in FILES if name not in FILES[::4]],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "others"],
)
def test_odd_names_in_search_duplicates_tables_and_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], outs: list[str], files: list[str]
) -> None:
    monkeypatch.chdir(folder)
    compared = [f"--run={RUN}", "--threads=1", "--reader=opencv"]
    for place in ("-q #", "-f [#]"):
        shutil.rmtree(place, ignore_errors=True)
    Path("-q #").mkdir()
    clip = synthetic.video(synthetic.CLASSES[0], 0, *CLIP)
    synthetic.write_mp4(Path("-q #/clip.mp4"), clip)
    for name in {*files, *asked}:
        shutil.copyfile("-q #/clip.mp4", f"-q #/{name}.mp4")
    for name in asked:
        video, page = f"-q #/{name}.mp4", "-s [x]#?.html"
        query = [f"--query={video}", f"--store={STORE}", f"--neighbours={2 * len(NAMES) + 2}", f"--out={page}"]
        code, out, err = call("eval", "search", *query, *compared)
        assert code == 0, (name, err)
        assert "\x1b" not in out + err
        table = [line for line in out.splitlines() if line.startswith("|")]
        assert {line.replace(r"\|", "").count("|") for line in table} == {6}
        text = page_of(Path(page)).text
        assert all(f"{visible(name)}/test" in text for name in NAMES if name.strip() == name)
        assert shlex.split(text.partition("costream: ")[2].splitlines()[0]) == [
            *("make", "search", f"QUERY={video}", f"RUN={RUN}", f"STORE={open_store(STORE).root}"),
        ]
    for out in outs:
        code, said, err = call("eval", "duplicates", f"--store={STORE}", "--least=.01", f"--out={out}", *compared)
        assert code == 0, err
        assert "\x1b" not in said + err
    with open("-d #.csv", newline="") as file:
        pairs = list(csv.reader(file))
    assert {len(row) for row in pairs} == {5}
    assert {row[0] for row in pairs[1:]} | {row[1] for row in pairs[1:]} >= {f"{name}/test" for name in NAMES}
    code, out, err = call("eval", "tables", f"--runs={json.dumps([RUN])}", "--out=-t #.csv", "--paper=vicc")
    assert code == 0, err
    Manifest([Video(f"{name}/f", f"{name}.mp4", name, "", "") for name in files], files).save(Path("-f.csv"))
    given = ["--videos=-q #", "--manifest=-f.csv", "--out=-f [#]", "--workers=1"]
    code, out, err = call("eval", "features", *given, *compared)
    assert code == 0, err
    found = pq.read_table(Path("-f [#]", "features.parquet"))
    assert sorted(found["video_id"].to_pylist()) == sorted(f"{name}/f" for name in files)
    assert sorted(found["label"].to_pylist()) == sorted(files)


@pytest.mark.parametrize("name", ["%41 #? [x]&'\"", pytest.param("\u00e9\U0001f600", marks=pytest.mark.slow)])
def test_odd_urls_of_stores(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`file://` and `memory://` with names that a URL would quote: the same videos as in a folder of that name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / RUN, "run")
    write_store(tmp_path / name, {f"{video}/test": CLIP for video in NAMES[:3]})
    memory = storage.location(f"memory://{name}/{tmp_path.name}")
    for path in (tmp_path / name).rglob("*"):
        if path.is_file():
            storage.write(memory / path.relative_to(tmp_path / name).as_posix(), path.read_bytes())
    compared = ["--run=run", "--threads=1", "--reader=opencv"]
    said = {}
    for store in (str(tmp_path / name), f"file://{tmp_path / name}", str(memory)):
        assert open_store(store).videos == open_store(tmp_path / name).videos
        for command in (["pipeline", "status"], ["pipeline", "verify"]):
            code, out, err = call(*command, f"--store={store}")
            assert code == 0, (store, err)
        code, out, err = call(
            "eval", "duplicates", f"--store={store}", "--least=.9", f"--out={len(said)}.csv", *compared
        )
        assert code == 0, (store, err)
        said[store] = Path(f"{len(said)}.csv").read_bytes()
    assert len(set(said.values())) == 1
    code, _, err = call("pipeline", "export", "--out=a.npy", "--", str(memory), f"{NAMES[0]}/test")
    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES[:2])
def test_odd_names_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("[c] #&.txt").write_text("\n".join(NAMES[:3]))
    torch.save({"state_dict": published_state("infonce"), "epoch": 1}, "published.pth")
    os.link("published.pth", f"{place}.pth.tar")
    run = f"{place}-i"
    code, out, err = call("train", "import", f"--run={run}", f"--rgb={place}.pth.tar", "--pretraining=-p #")
    assert code == 0, err
    assert "\x1b" not in out + err
    code, out, err = call("train", "verify", f"--run={run}")
    assert code == 0, (out, err)
    assert [stage.name for stage in runs.stages(Path(run))] == ["rgb"]


@pytest.mark.parametrize(
    "instead",
    [[], pytest.param(["--manifest", "#split, 'a'.csv"], marks=pytest.mark.slow)],
    ids=["share", "manifest"],
)
def test_training_without_a_split_tells_commands_that_make_one(
    folder: Path, COPY: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: list[str]
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
    words = printed.argv_of(err.partition("to do: `")[2].partition("` keeps a fifth")[0], COPY)
    share = "--test_share=0.2"
    assert words[:2] == ["pipeline", "annotate"] and share in words
    code, _, err = call(*(word for word in words if word != share), *(instead or [share]))
    assert code == 0, err
    code, _, err = call("train", "pretrain", "--run=r", *trained)
    assert code == 0, err
