"""The papers' numbers: what is quoted, with what certainty, and what every line says of how to make it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml

from eval import commands, evaluate, published, results
from eval.published import SUPERVISED, Origin, classifier_origin, counterpart, tables
from eval.results import Record
from eval.runs import Stage
from pipeline.errors import UsageError
from tests import printed
from tests.test_make import folder
from train import finetune
from train import recipe as recipes

COPY = folder  # a fixture: where make runs, with a Python that writes down what it would be run with
S3D = Origin("coclr", "ucf101", "s3d", "32x128x128")


def value(origin: Origin, stream: str, data: str, metric: str, protocol: str = "coclr") -> float | None:
    found = counterpart(origin, stream, data, metric, protocol)
    return found.value if found else None


def test_numbers_are_fractions_with_a_source_and_all_papers_are_there() -> None:
    assert all(0 < row.value < 1 and row.source for row in published.numbers())
    counted = Counter(row.paper for row in published.numbers())
    assert counted == {"CoCLR": 90, "ViCC": 33, "SLIC": 10, "CoCon": 21}
    assert [paper.paper for paper in published.papers()] == ["CoCLR", "ViCC", "GOCA", "SLIC", "CoCon"]


def test_a_counterpart_is_of_the_same_method_network_clip_stream_data_and_protocol() -> None:
    infonce = dataclasses.replace(S3D, method="infonce")
    assert value(infonce, "rgb", "ucf101", "R@1") == pytest.approx(0.331)
    assert value(S3D, "two-stream", "ucf101", "R@20") == pytest.approx(0.825)
    assert value(S3D, "rgb", "hmdb51", "R@10") == pytest.approx(0.535)
    assert value(Origin("vicc", "ucf101", "s3d", "32x128x128"), "flow", "ucf101", "R@1", "vicc") == pytest.approx(0.597)
    for changed in ({"method": "cmc"}, {"pretraining": ""}, {"network": "small"}, {"clip": "16x112x112"}):
        assert value(dataclasses.replace(S3D, **changed), "rgb", "ucf101", "R@1") is None
    assert value(S3D, "rgb", "demo", "R@1") is None
    assert value(S3D, "rgb", "ucf101", "R@1", "clean") is None


def test_what_is_recalled_is_listed_and_never_quoted() -> None:
    recalled = [row for row in published.numbers() if row.certainty == "recalled"]
    assert {row.method for row in recalled} == {"ubernce", "coclr", "vicc", "slic"}
    assert not set(recalled) & set(published.about("ucf101") + published.about("hmdb51"))
    ubernce = dataclasses.replace(S3D, method="ubernce")
    assert value(ubernce, "rgb", "ucf101", "R@1") is None
    slic = Origin("slic", "ucf101", "r3d-18", "16x128x128")
    assert value(slic, "rgb", "ucf101", "R@1", "slic") is None  # derived: quoted, but no counterpart
    assert 0.716 in [row.value for row in published.about("ucf101") if row.method == "slic"]


def test_those_of_a_data_set_begin_with_the_run_s_method() -> None:
    assert {row.data for row in published.about("hmdb51")} == {"hmdb51"}
    assert published.about("ucf101", first="vicc")[0].method == "vicc"
    assert published.about("my-videos") == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        pytest.param(
            {"values": {"ucf101 R@1": [0.5]}},
            "no source",
            marks=pytest.mark.remedy("name where it was read: [53.3, mvcgc]"),
        ),
        ({"values": {"ucf101 R@1": [153.0, "readme"]}}, "no percentage"),
        pytest.param(
            {"values": {"ucf101 R@1": [53.0, "rumour"]}},
            "'rumour' is no source",
            marks=pytest.mark.remedy("list it among the sources, "),
        ),
        pytest.param(
            {"values": {"R@1": [53.0, "readme"]}},
            "no number's name",
            marks=pytest.mark.remedy("a data set and a metric, such as `ucf101 R@1`"),
        ),
        ({"values": {"ucf101 accuracy": [53.0, "readme"]}}, "no number's name"),
        ({"netwrok": "s3d"}, "netwrok"),
    ],
)
def test_data_that_cannot_be_meant_fails(tmp_path: Path, changed: dict, told: str) -> None:
    content = yaml.safe_load((published.FOLDER / "coclr.yaml").read_text())
    content["tables"][0]["rows"][0] |= changed
    path = tmp_path / "coclr.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        published.load(path)
    assert str(path) in str(caught.value)
    content["tables"][0]["rows"][0] |= {"values": {"ucf101 R@1": [53.3, "mvcgc"]}}
    content["tables"][0]["rows"][0].pop("netwrok", None)
    content["sources"]["mvcgc"] = content["sources"]["readme"]  # listed
    path.write_text(yaml.safe_dump(content))
    published.load(path)


def test_every_command_of_every_line_is_understood(COPY: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of command is given to its program once, and what it names is looked up for each."""
    kinds: dict[tuple[str, ...], str] = {}
    for line in tables.listing():
        if line.here != "not run":
            continue
        for command in line.commands:
            words = shlex.split(command)
            given = dict(word.split("=", 1) for word in words[2:] if "=" in word)
            if words[0] == "make":
                kinds[words[1], *given] = command
            else:
                kinds[tuple(word for word in words if word.startswith("--"))] = command
            if asked := re.fullmatch(r"--protocols \[(\w+)\]", given.get("ARGS", "")):
                evaluate.asked_for([asked[1]])
            assert ("ARGS" in given) == bool(asked)
            if words[1] in ("finetune", "probe"):
                assert finetune.find(words[1], given["RECIPE"]).is_file()
    assert {kind[0] for kind in kinds} == {"--flow", "--rgb", "evaluate", "finetune", "pretrain", "probe"}
    for command in kinds.values():
        printed.understood(printed.argv_of(command, COPY), monkeypatch)


def test_every_line_has_a_command_that_is_there_or_says_why_not() -> None:
    named: set[tuple[str, str]] = set()
    for line in tables.listing():
        assert bool(line.commands) == (line.kind != "cannot be run")
        if line.here == "not run" and not line.row.released:
            words = shlex.split(line.commands[0])
            given = dict(word.split("=", 1) for word in words[2:])
            folder = given["RECIPE"] if words[1] == "pretrain" else words[1]
            named.add((folder, given.get("METHOD", given["RECIPE"]), given.get("SET", ""), line.row.network))
    changed = {"", "stages.*.settings.backbone=resnet2d3d-34 clips.size=[224,224]", "stages.*.settings.backbone=s3d"}
    assert {change for _, _, change, _ in named} == changed
    for folder, method, change, network in named:
        recipe = recipes.load(recipes.find(folder, method), changes=change.split())
        made = {each.backbone for stage in recipe.stages for each in stage.settings.networks.values()}
        assert network in (published.UNSTATED, *made)
    here = {line.row.method: line.here for line in tables.listing()}
    assert here["pace"] == "cannot be run: another paper's method, quoted for comparison"


def test_a_measured_number_stands_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = {
        "protocol": "coclr", "network": "trained", "stage": "rgb", "split": "test", "data": "ucf101",
        "checkpoint": "c", "annotations": "a",
    }  # fmt: skip
    record = Record(metric="R@1", value=0.5, stream="rgb", published=0.533, **common)
    results.write(tmp_path / "results.json", [record])
    (line,) = (line for line in tables.listing([tmp_path]) if line.value is not None)
    assert line.number and (line.number.model, line.number.metric, line.value) == ("CoCLR", "R@1", 0.5)
    assert line.here == f"measured, 50.0 ({tmp_path})"
    commands.tables([tmp_path], paper="coclr", out=tmp_path / "tables.csv")
    said = capsys.readouterr().out
    assert "93 numbers: 1 measured, 63 not run, 29 cannot be run" in said
    written = (tmp_path / "tables.csv").read_text()
    assert "coclr,rgb,ucf101,s3d,32x128x128,coclr,1,ucf101,R@1,53.3," in written
    assert "not run,,500 epochs; the recipe has 300,make pretrain" in written
    with pytest.raises(UsageError, match="did you mean"):
        commands.tables(paper="colcr")


def test_what_a_network_is_called_in_the_tables(tmp_path: Path) -> None:
    facts = {"method": "infonce", "clips": {"length": 32, "size": [128, 128]}, "backbones": {"rgb": "s3d"}}
    ours = Stage("rgb", tmp_path, facts)
    assert published.origin(ours, "rgb", "ucf101") == dataclasses.replace(S3D, method="infonce")
    assert published.origin(ours, "flow", "ucf101").network == "not stated"
    imported = Stage("rgb", tmp_path, facts | {"published": {"method": "coclr", "pretraining": "kinetics400"}})
    assert published.origin(imported, "rgb", "") == dataclasses.replace(S3D, pretraining="kinetics400")
    assert value(published.origin(imported, "rgb", ""), "rgb", "ucf101", "R@1") == pytest.approx(0.456)


@pytest.mark.parametrize(
    ("facts", "data", "method", "pretraining", "number"),
    [
        ({"begun": {"network": {"method": "coclr", "pretraining": "ucf101"}}}, "ucf101", "coclr", "ucf101", 0.814),
        ({"begun": {"network": {"method": "coclr", "pretraining": "other"}}}, "ucf101", "coclr", "other", None),
        ({"begun": {"network": {"method": "coclr", "pretraining": "ucf101"}}}, "", "", "", None),
        ({"begun": {}}, "ucf101", SUPERVISED, "ucf101", 0.77),
        ({}, "ucf101", "", "ucf101", None),  # of an older checkpoint, which does not say it
        ({"published": {"method": "coclr", "pretraining": "ucf101", "finetuned": True}}, "", "coclr", "ucf101", 0.814),
    ],
)
def test_a_classifier_is_of_what_it_began_with(
    tmp_path: Path, facts: dict, data: str, method: str, pretraining: str, number: float | None
) -> None:
    clips = {"length": 32, "size": [128, 128]}
    stage = Stage("rgb", tmp_path, {"method": "classify", "clips": clips, "backbones": {"rgb": "s3d"}} | facts)
    found = classifier_origin(stage, "rgb", data)
    assert (found.method, found.pretraining) == (method, pretraining)
    assert value(found, "rgb", "ucf101", "finetune_top1") == (number and pytest.approx(number))
    assert value(published.origin(stage, "rgb", "ucf101"), "rgb", "ucf101", "R@1") is None  # it retrieves otherwise
