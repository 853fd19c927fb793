"""What refusals of training and evaluation say is to be done helps: each is done here to the letter."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import changes, embed, filmstrips, report, results
from eval.__main__ import COMMANDS as EVAL
from eval.bank import FeatureBank
from eval.classification import Probabilities, _not_tested, fused, read_json
from eval.commands import report as report_command
from eval.commands import tell_of_next as tell_of_search
from eval.compare import compare
from eval.evaluate import evaluate
from eval.fusion import fuse_probabilities, fuse_similarities
from eval.protocols import PROTOCOLS
from eval.retrieval import recall, similarity
from eval.runs import bank_path
from eval.table import SUFFIXES, Table
from pipeline.commands import console
from pipeline.commands.following import after_store, following
from pipeline.errors import Refusal
from pipeline.importers import folder
from pipeline.manifest import SPLITS
from pipeline.store import VideoStore, annotation, open_store
from pipeline.store.annotation import AnnotationSet, Said
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from tests import printed, remedies, test_make
from tests.faults import small
from tests.pipeline.reference import run_here
from tests.remedies import helps
from train.__main__ import COMMANDS as TRAIN
from train.beginning import tell_of_next
from train.methods.classify import ClassifySettings
from train.provenance import data_of
from train.verify import verify

COPY = test_make.folder  # a fixture: where make runs, with a Python that writes down what it would be run with


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A command line in this process: exit code and standard error."""

    def call(commands: Mapping[str, Callable[..., int | None]], *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["eval", *map(str, arguments)])
        return console.main(commands, "a stage", "eval"), capsys.readouterr().err

    return call


Call = Callable[..., tuple[int, str]]


@pytest.mark.remedy(
    "--stream rgb, or --layout coclr",
    "--rgb FILE, --flow FILE, or both",
    "give a new folder as --run",
    "download it first; nothing is fetched",
)
def test_networks_are_written_and_taken(call: Call, run: Path, tmp_path: Path) -> None:
    export = ("export", "--checkpoint", run / "rgb" / "checkpoints" / "last.ckpt", "--out", tmp_path / "a.pt")
    code, err = call(TRAIN, *export)
    assert code == 2
    assert "to do: --stream rgb, or --layout coclr" in err
    assert call(TRAIN, *export, "--stream", "rgb")[0] == 0
    made = ("import", "--run", run)
    code, err = call(TRAIN, *made)
    assert code == 2
    assert "--rgb FILE, --flow FILE, or both" in err
    code, err = call(TRAIN, *made, "--rgb", tmp_path / "none.pth")
    assert code == 1
    assert "to do: give a new folder as --run" in err
    code, err = call(TRAIN, "import", "--run", tmp_path / "new", "--rgb", tmp_path / "none.pth")
    assert "download it first" in err


@pytest.mark.remedy("add it: make extract-flow VIDEOS= STORE={} VIEWS={}")
def test_a_view_that_a_network_looks_at_is_added(tmp_path: Path) -> None:
    videos = small.make(tmp_path / "videos")
    store = small.store(videos, tmp_path / "store")
    with pytest.raises(Refusal) as refused:
        embed._refuse_without_view(open_store(store), "flow", "flow")
    told = dict(word.split("=", 1) for word in shlex.split(refused.value.remedy) if "=" in word)
    views = {told["VIEWS"]: FlowSettings("dis", short_side=0)}
    run_here(folder.read(videos), videos, Path(told["STORE"]), ExtractionSettings(views).resolved(), add_views=True)
    embed._refuse_without_view(open_store(store), "flow", "flow")


@pytest.mark.remedy("run the evaluation: make evaluate RUN=")
def test_a_run_is_compared_once_it_is_evaluated(
    call: Call, finished_run: Path, evaluated: Path, tmp_path: Path
) -> None:
    command = ("compare", "--out", tmp_path / "page.html", "--runs")
    code, err = call(EVAL, *command, "[]")
    assert code in (1, 2)
    assert "name what is meant" in err
    assert call(EVAL, *command, f"[{evaluated}]")[0] == 0
    code, err = call(EVAL, *command, f"[{finished_run}]")
    assert code == 1
    assert "run the evaluation: make evaluate" in err


def probabilities(videos: str = "ab", classes: str = "xy", columns: int = 2) -> Probabilities:
    return Probabilities(list(videos), list(classes), np.full((len(videos), columns), 0.5))


ROWS = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give the class list of their own",
            lambda folder: probabilities(columns=3),
            lambda folder: probabilities(classes="xyz", columns=3),
        ),
        remedies.case(
            "test all that are fused on the same videos and classes: make evaluate RUN= STORE=",
            lambda folder: fused([probabilities(), probabilities("a")]),
            lambda folder: fused([probabilities(), probabilities()]),
        ),
        remedies.case(
            "give one number >= 0 per stream, not all of them 0",
            lambda folder: fuse_probabilities(ROWS, ROWS, weights=[0, 0]),
            lambda folder: fuse_probabilities(ROWS, ROWS, weights=[0, 1]),
        ),
        remedies.case(
            "use the videos that every stream has, in one order",
            lambda folder: fuse_similarities(ROWS, ROWS[:2]),
            lambda folder: fuse_similarities(ROWS[:2], ROWS[:2]),
        ),
        remedies.case(
            "turn all of them into one kind",
            lambda folder: fuse_similarities(ROWS, torch.eye(3)),
            lambda folder: fuse_similarities(torch.as_tensor(ROWS), torch.eye(3)),
        ),
        remedies.case(
            "take both from one network",
            lambda folder: similarity(ROWS, ROWS[:, :2]),
            lambda folder: similarity(ROWS, ROWS),
        ),
        remedies.case(
            "train again with a lower rate, or recompute them",
            lambda folder: similarity(ROWS, np.full_like(ROWS, np.inf)),
            lambda folder: similarity(ROWS, ROWS),
        ),
        remedies.case(
            "give at least two videos on each side, or pass centre=False",
            lambda folder: similarity(ROWS[:1], ROWS),
            lambda folder: [similarity(ROWS[:2], ROWS), similarity(ROWS[:1], ROWS, centre=False)],
        ),
        remedies.case(
            "give (Q, G) similarities with Q and G labels, none of them empty",
            lambda folder: recall(ROWS, [0, 1], [0, 1, 2], (1,)),
            lambda folder: recall(ROWS, [0, 1, 2], [0, 1, 2], (1,)),
        ),
        remedies.case(
            "another of the protocols",
            lambda folder: PROTOCOLS["cocon"].features.layer_of(("backbone", "head"), "backbone"),
            lambda folder: PROTOCOLS["clean"].features.layer_of(("backbone", "head"), "backbone"),
        ),
        remedies.case(
            "end the name with ",
            lambda folder: Table("t", ("a",), [(1,)]).write(folder / "t.txt"),
            lambda folder: [Table("t", ("a",), [(1,)]).write(folder / f"t{end}") for end in SUFFIXES],
        ),
    ],
)
def test_of_numbers(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


@pytest.mark.remedy("the store, or its annotation set, that they were made for")
def test_probabilities_belong_to_a_store(store: VideoStore, tmp_path: Path) -> None:
    path = tmp_path / "prob.json"
    path.write_text(json.dumps({f"{video}/": {"mean_prob": [[0.5, 0.5]]} for video in store.videos}))
    annotation.save(said := shutil.copytree(store.root, tmp_path / "store"), "two", of_classes(store, 2))
    helps(lambda _: read_json(path, store), lambda _: read_json(path, open_store(said, "two")), tmp_path)


def of_classes(store: VideoStore, count: int) -> AnnotationSet:
    """The videos with labels of so many classes, otherwise than the store has them."""
    names = list("abcd"[:count])
    listed = {
        video: Said(names[place % count], "", info.split) for place, (video, info) in enumerate(store.infos.items())
    }
    return AnnotationSet(names, listed)


@pytest.mark.remedy("(import the file with --classes)", told=True)
def test_a_classifier_without_names_is_imported_with_them(store: VideoStore) -> None:
    names = [*store.classes, *"abcd"]
    unnamed, named = ClassifySettings(stream="rgb", dim=7), ClassifySettings(stream="rgb", classes=names)
    assert _not_tested(unnamed, store, 1, "whole") == (
        "it has 7 classes without a name, and the store 3 (import the file with --classes)"
    )
    assert _not_tested(named, store, 1, "whole") == ""


@pytest.mark.remedy(
    "evaluate again: make evaluate RUN= STORE=",
    "RUN= STORE=, or RUNS= STORE=",
    "put the checkpoints back, or evaluate what is there: make evaluate RUN= STORE=",
    "give the store that it was evaluated on, or evaluate it on this one: make evaluate RUN= STORE=",
)
@pytest.mark.remedy("delete it and evaluate again: make evaluate RUN= STORE=", told=True)
def test_an_evaluation_is_repeated(
    evaluated: Path, store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    banks = {stream: bank_path(evaluated, store, stream, "trained", "clean", stream) for stream in ("rgb", "flow")}

    def again(on: VideoStore) -> None:
        evaluate(evaluated, on, ("clean",), "opencv", 1)

    def shown(folder: Path) -> None:
        report.write_report(evaluated, store)

    def compared(folder: Path) -> None:
        changes.by_class({"one": [(evaluated, "flow")]}, "flow", "clean", store)

    moved = shutil.move(evaluated / "rgb", tmp_path / "rgb")
    helps(shown, lambda _: (shutil.move(moved, evaluated / "rgb"), shown(tmp_path)), tmp_path)
    banks["rgb"].write_bytes(banks["rgb"].read_bytes()[:-9])
    [problem] = filter(None, verify(evaluated))
    assert problem.remedy == "delete it and evaluate again: make evaluate RUN= STORE="
    helps(shown, lambda _: None, tmp_path)
    for path in banks.values():
        path.unlink()
    for wrong in (shown, compared):
        helps(wrong, lambda _: None, tmp_path)
    shutil.move(evaluated / "rgb", moved)
    helps(
        lambda _: report_command(),
        lambda _: (again(store), report_command(evaluated, str(store.root)), compared(tmp_path)),
        tmp_path,
    )
    assert f"wrote {evaluated / 'report.html'}" in capsys.readouterr().out
    assert not any(verify(evaluated))

    said = shutil.copytree(store.root, tmp_path / "store")
    annotation.save(said, "two", of_classes(store, 2))
    other = open_store(said, "two")
    helps(lambda _: report.write_report(evaluated, other), shown, tmp_path)
    again(other)
    report.write_report(evaluated, other)


@pytest.mark.remedy(", or another --protocol", "evaluate them on one store: make evaluate RUN= STORE=")
def test_runs_are_evaluated_alike(
    evaluated: Path,
    store: VideoStore,
    tmp_path: Path,
    COPY: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(evaluated / "rgb")
    path = evaluated / "results.json"
    results.write(path, [one for one in results.read(path) if (one.protocol, one.stage) == ("clean", "flow")])
    with pytest.raises(Refusal) as refused:
        compare([evaluated], protocol="coclr")
    command, _, other = refused.value.remedy.partition(", or another --protocol")
    argv = printed.argv_of(command.replace("STORE=", f"STORE={shlex.quote(str(store.root))}"), COPY)
    assert other == "" and printed.run([*argv, "--threads=1", "--reader=opencv"], monkeypatch) == 0
    assert str(evaluated / "report.html") in capsys.readouterr().out
    for protocol in ("coclr", "clean"):
        compare([evaluated], protocol=protocol)
    another = shutil.copytree(evaluated, tmp_path / "another")
    recipe = another / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 1"))
    path = another / "results.json"
    results.write(path, [dataclasses.replace(record, data="elsewhere") for record in results.read(path)])
    helps(
        lambda _: compare([evaluated, another]),
        lambda _: (
            evaluate(another, store, ("clean",), "opencv", 1),
            compare([evaluated, another], data=data_of(store)),
        ),
        tmp_path,
    )


@pytest.mark.remedy("evaluate again: make evaluate RUN= STORE=")
def test_strips_are_of_one_evaluation(finished_evaluation: Path, store: VideoStore, tmp_path: Path) -> None:
    trained, untrained = (
        FeatureBank.load(bank_path(finished_evaluation, store, "rgb", network, "clean", "rgb"))
        for network in ("trained", "untrained")
    )
    old = dataclasses.replace(untrained, video_ids=untrained.video_ids[::-1])
    helps(
        lambda _: filmstrips.strips(store, trained, old, trained.video_ids[:1]),
        lambda _: filmstrips.strips(store, trained, untrained, trained.video_ids[:1]),
        tmp_path,
    )


@pytest.mark.parametrize("program", ["train", "/bin/costream"])
def test_what_comes_next_is_understood(
    COPY: Path, store: VideoStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """As it is printed, by make or by `costream`, after each stage."""
    monkeypatch.setattr(sys, "argv", [program])
    run = Path("runs/it's [a] $run")
    tell_of_next(store, run)
    tell_of_search(run, str(store.root))
    without = dataclasses.replace(store.annotated, splits=np.full_like(store.annotated.splits, SPLITS.index("")))
    lines = [
        after_store(store),
        following("extract", videos="a b", manifest="#.csv", store="s"),
        *capsys.readouterr().err.splitlines(),
    ]
    monkeypatch.setattr(store, "annotated", without)
    told = [line.removeprefix("next: ") for line in [*lines, after_store(store)]]
    assert {line.split()[0] for line in told} == {"costream" if "costream" in program else "make"}
    argvs = [printed.argv_of(line, COPY) for line in told]
    asked = ["pretrain", "extract", "evaluate", "search", "annotate"]
    assert [argv[1] for argv in argvs] == asked
    for argv in argvs:
        words = {word for option in argv for word in option.split("=", 1)}
        assert {str(run)} <= words or argv[1] not in ("evaluate", "search")
        assert {str(store.root)} <= words or argv[1] == "extract"
        printed.understood(argv, monkeypatch)
