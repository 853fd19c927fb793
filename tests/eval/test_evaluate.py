"""The whole evaluation of a tiny run: numbers, files, reuse, refusals, commands."""

from __future__ import annotations

import csv
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import evaluate, features, linear, published, results, retrieval, runs, task
from eval.bank import FeatureBank
from eval.clusters import ALGORITHMS, between, measure
from eval.published import Origin, Quoted
from eval.runs import bank_path
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from train import checkpoints

BOTH = ("clean", "coclr")


def run_evaluation(run: Path, store: VideoStore, protocols: tuple[str, ...] = BOTH) -> list[results.Record]:
    return evaluate.evaluate(run, store, protocols, "opencv", 1)[1]


def test_every_measurement_is_there_once(evaluated: Path, store: VideoStore) -> None:
    records = results.read(evaluated / "results.json")
    clustered = {f"{name}_{score}" for name in ALGORITHMS for score in ("nmi", "ami", "ari", "accuracy", "purity")}
    found = {(r.protocol, r.network, r.stream, r.stage, r.metric) for r in records if "purity@" not in r.metric}
    assert found == {
        (protocol, network, stream, stage, metric)
        for protocol in BOTH
        for network in ("trained", "untrained")
        for stream, stage in (("flow", "flow"), ("rgb", "rgb"), ("two-stream", "rgb+flow"))
        for metric in {"R@1", "R@5", "R@10", "R@20", "R@50", "knn_top1", "linear_top1"}
        | (clustered if stage == stream else {"views_kmeans_nmi", "views_kmeans_ami"})
    }
    assert {(r.split, r.data) for r in records} == {("test", store.root.name)}
    assert all(r.value == r.chance == 1 for r in records if r.metric in ("R@20", "R@50"))  # twelve training videos
    assert {round(r.chance, 6) for r in records if r.metric in ("R@1", "linear_top1")} == {round(1 / 3, 6)}
    assert (evaluated / "report.html").is_file()


def test_numbers_are_those_of_the_banks_on_disk(evaluated: Path, store: VideoStore) -> None:
    records = [r for r in results.read(evaluated / "results.json") if r.protocol == "clean"]
    banks = {s: FeatureBank.load(bank_path(evaluated, store, s, "trained", "clean", s)) for s in ("rgb", "flow")}
    scores = {}
    for stream, bank in banks.items():
        tested, gallery = bank.rows("test"), bank.rows("train")
        centred = [rows - rows.mean(0) for rows in (bank.features[tested], bank.features[gallery])]
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in centred]
        scores[stream] = unit[0] @ unit[1].T
        wanted, have = bank.labels[tested], bank.labels[gallery]
        grouped = {r.metric: r.value for r in records if (r.stream, r.network) == (stream, "trained")}
        seed = int(bank.attributes["seed"])
        assert measure(bank.features[tested], wanted, seed).items() <= grouped.items()
    views = [bank.features[bank.rows("test")] for bank in banks.values()]
    told = {r.metric: r.value for r in records if (r.stream, r.network) == ("two-stream", "trained")}
    assert between(views, wanted, seed).items() <= told.items()
    scores["two-stream"] = scores["rgb"] + scores["flow"]
    for stream, matrix in scores.items():
        expected = retrieval.recall(matrix, wanted, have)
        values = {r.metric: r.value for r in records if r.stream == stream and r.network == "trained"}
        assert {k: values[f"R@{k}"] for k in expected} == expected


def test_recall_of_each_class_is_that_of_its_videos(evaluated: Path, store: VideoStore) -> None:
    with open(runs.classes_path(evaluated, store), newline="") as file:
        table = list(csv.DictReader(file))
    values = {
        (r.protocol, r.stream, r.network, r.stage, r.metric): r.value for r in results.read(evaluated / "results.json")
    }
    groups: dict[tuple, list[dict]] = {}
    for row in table:
        groups.setdefault((row["protocol"], row["stream"], row["network"], row["stage"]), []).append(row)
    assert len(groups) == 2 * 2 * 3
    for key, rows in groups.items():
        assert [row["class"] for row in rows] == store.classes and {row["videos"] for row in rows} == {"2"}
        for metric in ("R@1", "R@5", "R@50"):
            assert np.mean([float(row[metric]) for row in rows]) == pytest.approx(100 * values[*key, metric], abs=0.01)


def test_the_untrained_network_is_that_of_the_first_step(evaluated: Path, store: VideoStore) -> None:
    checkpoint = evaluated / "flow" / "checkpoints" / "last.ckpt"
    trained, fresh = checkpoints.load_method(checkpoint), checkpoints.untrained(checkpoint)
    assert not torch.equal(*(m.networks["flow"].head[0].weight for m in (trained, fresh)))
    banks = [
        FeatureBank.load(bank_path(evaluated, store, "flow", n, "clean", "flow")) for n in ("trained", "untrained")
    ]
    assert not np.allclose(banks[0].features, banks[1].features)
    assert banks[0].attributes["checkpoint"] == checkpoints.digest(checkpoint)
    assert banks[1].attributes["checkpoint"] == checkpoints.network_digest(fresh.networks["flow"], "backbone")
    assert {r.checkpoint for r in results.read(evaluated / "results.json") if r.stage == "flow"} == {
        checkpoints.digest(checkpoint)
    }


def test_a_second_evaluation_computes_nothing_and_changes_nothing(
    evaluated: Path, store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_evaluation(evaluated, store)  # in this folder, whose name the page shows
    before = {name: (evaluated / name).read_bytes() for name in ("results.json", "report.html")}
    monkeypatch.setattr(features, "compute", lambda *_, **__: pytest.fail("computed again"))
    monkeypatch.setattr(linear, "probe", lambda *_, **__: pytest.fail("fitted again"))
    run_evaluation(evaluated, store)
    assert {name: (evaluated / name).read_bytes() for name in before} == before


def test_an_unfinished_run_is_evaluated_as_far_as_it_is(run: Path, store: VideoStore) -> None:
    shutil.rmtree(run / "rgb")
    records = run_evaluation(run, store, ("clean",))
    assert {(r.stage, r.stream) for r in records} == {("flow", "flow")}
    assert "optical flow" in (run / "report.html").read_text()


@pytest.mark.parametrize("broken", ["no folder", "no checkpoint", "damaged", "foreign", "other network"])
def test_what_is_no_run_fails(run: Path, store: VideoStore, broken: str) -> None:
    checkpoint = run / "flow" / "checkpoints" / "last.ckpt"
    if broken == "no folder":
        run = run / "nowhere"
    elif broken == "no checkpoint":
        shutil.rmtree(run / "flow")
        shutil.rmtree(run / "rgb")
    elif broken == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif broken == "foreign":
        torch.save({"state_dict": {}}, checkpoint)
    else:
        content = torch.load(checkpoint, weights_only=True)
        content["hyper_parameters"]["backbone_settings"] = {"width": 0.5}
        torch.save(content, checkpoint)
    with pytest.raises(Refusal) as caught:
        run_evaluation(run, store)
    assert caught.value.where and caught.value.remedy
    assert not (run / "results.json").exists()


def test_protocols_fail_by_name(run: Path, store: VideoStore) -> None:
    with pytest.raises(UsageError, match="clear"):
        run_evaluation(run, store, ("clear",))
    with pytest.raises(UsageError, match="no protocol"):
        run_evaluation(run, store, ())


def test_published_numbers_stand_beside_networks_of_that_data_set_only(
    evaluated: Path, store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(row for row in published.numbers() if row.metric == "R@1")
    home = Origin("infonce", "store", "small", "4x16x16")

    def counterpart(made_by: Origin, stream: str, data: str, metric: str, protocol: str) -> Quoted | None:
        return first if (made_by, data, protocol) == (home, "store", "coclr") else None

    monkeypatch.setattr(evaluate, "counterpart", counterpart)
    records = run_evaluation(evaluated, store)
    quoted = {(r.network, r.protocol, r.metric) for r in records if r.published is not None}
    assert quoted == {("trained", "coclr", f"R@{k}") for k in (1, 5, 10, 20, 50)}
    monkeypatch.setattr(task, "trained_on", lambda *_: False)
    assert all(r.published is None for r in run_evaluation(evaluated, store))


def test_a_network_knows_the_videos_that_it_was_trained_on(
    run: Path, store: VideoStore, unlabelled_store: VideoStore
) -> None:
    stage = runs.stages(run)[0]
    assert runs.trained_on(stage, run, store)
    assert not runs.trained_on(stage, run, unlabelled_store)


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_the_command_line_tells_a_refusal_without_a_traceback(
    command: str, tmp_path: Path, store: VideoStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = ["--run", str(tmp_path / "none"), "--store", str(store.root)]
    monkeypatch.setattr(sys, "argv", ["eval", command, *options])
    monkeypatch.delitem(sys.modules, "eval.__main__", raising=False)  # where another test imported it
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("eval", run_name="__main__")
    assert ended.value.code == 1
    assert f"eval {command}: " in (shown := capsys.readouterr().err) and "to do: " in shown
