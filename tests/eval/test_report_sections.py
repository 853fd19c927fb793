"""Parts of the report: its tables as files, curves, cost and provenance, the map and the confusion matrix."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from eval import feature_map, report, results, runs
from eval.bank import FeatureBank
from eval.report import pictures, sheets, training
from eval.results import Record
from eval.runs import bank_path
from pipeline.store import VideoStore
from pipeline.views import VIEWS
from tests.eval.test_report import Page, words


def change_log(path: Path, **values: float) -> None:
    """Add values to every line of a log, times its step."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [line | {name: value * line["step"] for name, value in values.items()} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))


def test_every_table_lies_beside_the_page_in_three_forms_and_in_it(evaluated: Path, store: VideoStore) -> None:
    text = report.write_report(evaluated, store).read_text()
    named = {path.name for path in (evaluated / "tables").iterdir()}
    stems = {name.rpartition(".")[0] for name in named}
    wanted = {
        "results-clean", "results-coclr", "clusters-clean", "cluster-sizes-clean", "classes-rgb", "classes-flow",
        "cost", "provenance", "versions",
    }  # fmt: skip
    assert wanted <= stems and named == {f"{stem}{suffix}" for stem in stems for suffix in (".csv", ".md", ".tex")}
    linked = {base64.b64decode(link.partition("base64,")[2]) for link in Page(text).loads}
    assert {path.read_bytes() for path in (evaluated / "tables").iterdir()} <= linked
    rows = list(csv.DictReader((evaluated / "tables" / "results-clean.csv").read_text().splitlines()))
    found = {(row["stream"], row["stage"], row["network"]): float(row["R@1"]) for row in rows}
    for record in results.read(evaluated / "results.json"):
        if (record.protocol, record.metric) == ("clean", "R@1"):
            assert found[record.stream, record.stage, record.network] == pytest.approx(100 * record.value)
    assert rows[-1]["network"] == "guessing" and not [name for name in rows[0] if "_" in name]
    clustered = list(csv.DictReader((evaluated / "tables" / "clusters-clean.csv").read_text().splitlines()))
    found = {(row["network"], row["stream"]): row for row in clustered if row["clusters"].startswith("k-means of each")}
    for record in results.read(evaluated / "results.json"):
        if (record.protocol, record.metric) == ("clean", "views_kmeans_ami"):
            assert float(found.pop((record.network, record.stream))["AMI"]) == pytest.approx(100 * record.value)
    assert not found


def test_a_published_number_stands_beside_ours() -> None:
    common = {
        "protocol": "coclr", "stage": "rgb", "split": "test", "data": "d",
        "checkpoint": "c", "annotations": "a", "chance": 0.1,
    }  # fmt: skip
    records = [
        Record(metric=metric, value=value, stream="rgb", network=network, published=quote, **common)
        for metric, value, network, quote in (
            ("linear_top1", 0.6, "trained", None), ("R@1", 0.5, "trained", 0.533), ("R@1", 0.2, "untrained", None),
        )
    ]  # fmt: skip
    made = sheets.of_results("coclr", records)
    assert made.table.head == ("stream", "stage", "network", "R@1", "linear", "published R@1")
    assert [list(row) for row in made.table.rows] == [
        ["rgb", "rgb", "trained", 50.0, 60.0, pytest.approx(53.3)],
        ["rgb", "rgb", "untrained", 20.0, None, None],
        ["any", None, "guessing", 10.0, 10.0, None],
    ]
    assert made.kinds == ("trained", "untrained", "chance")


def test_prototypes_and_clusters_are_drawn_where_the_log_has_them(evaluated: Path, store: VideoStore) -> None:
    assert "Prototypes and clusters" not in words(report.write_report(evaluated, store).read_text())
    told = {"rgb_assigned_right": 0.3, "nmi": 0.05, "own_thing": 2.0, "assignment_entropy": 0.1, "guidance_kl": 0.2}
    change_log(evaluated / "rgb" / "metrics.jsonl", **told)
    drawn = {one.stage: one for one in training.curves([runs.stages(evaluated)])}
    words_of = [training.OF_CLUSTERS[name] for name in ("assignment_entropy", "guidance_kl", "nmi")]
    assert list(drawn["rgb"].clusters) == [*words_of, "rgb: nearest by its assignment has its class"]
    assert "own thing" in drawn["rgb"].others and not drawn["flow"].clusters
    assert drawn["rgb"].clusters["NMI with the classes"].y_max == pytest.approx(0.2)
    page = words(report.write_report(evaluated, store).read_text())
    assert "Prototypes and clusters of rgb while it trained" in page and "NMI with the classes" in page


def test_a_checkpoint_that_held_out_videos_chose_is_told(evaluated: Path, store: VideoStore) -> None:
    """Training went on behind it: it is not one that was stopped."""
    assert "held-out videos chose" not in words(report.write_report(evaluated, store).read_text())
    recipe = yaml.safe_load((evaluated / "recipe.yaml").read_text())
    recipe["keep_best"] = {"metric": "held_out_top1", "mode": "max"}
    (evaluated / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    last = evaluated / "rgb" / "checkpoints" / "last.ckpt"
    shutil.copy(last, last.with_name("best.ckpt"))
    drawn = {one.stage: one for one in training.curves([runs.stages(evaluated)])}
    assert drawn["rgb"].chosen and not drawn["flow"].chosen
    page = words(report.write_report(evaluated, store).read_text())
    assert f"the checkpoint of step {drawn['rgb'].step} is tested, which held-out videos chose" in page


def test_cost_sums_the_steps_of_the_log(evaluated: Path) -> None:
    path = evaluated / "rgb" / "metrics.jsonl"
    path.write_text("".join(
        json.dumps({"step": step, "loss": 1.0, "step_time": each, "data_time": each / 4}) + "\n"
        for step, each in ((1, 1.0), (3, 2.0), (4, 5.0))
    ))  # fmt: skip
    made = training.cost(
        runs.stages(evaluated), {"batch": 4, "stages": [{"name": "flow"}, {"name": "rgb", "batch": 8}]}
    )
    row = dict(zip(made.table.head, made.table.rows[1], strict=True))
    assert (row["seconds"], row["videos/s"], row["waiting %"], row["steps"]) == (10.0, "3.2", "25", 4)
    made = training.provenance(runs.stages(evaluated), ["a" * 64, "b" * 64])
    assert [row[1] for row in made.table.rows] == ["a" * 16, "b" * 16] and "imported file" not in made.table.head


def test_the_map_follows_from_the_features_alone_and_needs_four_videos(evaluated: Path, store: VideoStore) -> None:
    bank = FeatureBank.load(bank_path(evaluated, store, "rgb", "trained", "clean", "rgb"))
    rows = bank.rows("test")
    made = feature_map.feature_map(bank.features, rows)
    again = feature_map.feature_map(bank.features, rows)
    assert made and again and np.array_equal(made.places, again.places)
    assert np.array_equal(made.rows, rows) and made.places.min() == 0 and made.places.max() == 100
    assert feature_map.feature_map(bank.features, rows[:3]) is None
    assert feature_map.feature_map(np.ones((9, 4), dtype=np.float32), np.arange(9), centre=False) is None


def test_two_groups_lie_apart_on_the_map() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(40) % 2
    features = np.eye(2, 8)[groups] * 5 + rng.normal(size=(40, 8))
    made = feature_map.feature_map(features, np.arange(40))
    assert made
    apart = np.linalg.norm(made.places[:, None] - made.places[None], axis=2) + 1000 * np.eye(40)
    assert (groups[apart.argmin(1)] == groups).mean() > 0.9


def test_the_sprite_holds_each_video_s_middle_frame(store: VideoStore) -> None:
    videos = list(store.videos)[:3]
    made = feature_map.sprite(store, videos)
    sheet = cv2.imdecode(np.frombuffer(base64.b64decode(made.uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape == (made.height, 3 * made.width, 3) and (made.columns, made.count) == (3, 3)
    middle = cv2.resize(store.read(videos[1], "rgb", [10])[0], (made.width, made.height), interpolation=cv2.INTER_AREA)
    shown = cv2.cvtColor(sheet[:, made.width : 2 * made.width], cv2.COLOR_BGR2RGB)
    assert np.abs(shown.astype(int) - middle).mean() < 12


def test_a_matrix_tells_every_cell_and_leaves_names_out_where_they_cannot_be_read() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 2]])
    made = pictures.matrix(counts, ["a", "b", "c<"])
    assert made and made.names == ["a", "b", "c<"] and made.named
    assert [(cell.row, cell.column, cell.share, cell.words) for cell in made.cells] == [
        (0, 0, 0.75, "a found a: 3 of 4"), (0, 1, 0.25, "a found b: 1 of 4"), (2, 2, 1.0, "c< found c<: 2 of 2"),
    ]  # fmt: skip
    changed = pictures.matrix(counts, ["a", "b", "c<"], np.array([[1, 3, 0], [0, 0, 0], [0, 2, 2]]))
    assert changed and [(cell.row, cell.column, cell.share, cell.right, cell.words) for cell in changed.cells] == [
        (0, 0, 0.5, True, "a found a: 3 of 4, 1 of 4 before"), (0, 1, 0.5, True, "a found b: 1 of 4, 3 of 4 before"),
        (2, 1, 0.5, True, "c< found b: 0 of 2, 2 of 4 before"), (2, 2, 0.5, True, "c< found c<: 2 of 2, 2 of 4 before"),
    ]  # fmt: skip
    worse = pictures.matrix(np.array([[1, 1]] * 2), ["a", "b"], np.array([[2, 0], [1, 1]]))
    assert worse and [(cell.row, cell.column, cell.right) for cell in worse.cells] == [(0, 0, False), (0, 1, False)]
    many = np.eye(pictures.MOST_CLASSES + 1, dtype=int)
    assert pictures.matrix(many, ["n"] * len(many)) is None
    some = pictures.matrix(many[:60, :60], ["n"] * 60)
    assert some and not some.named


def test_views_that_no_network_looks_at_are_shown_of_the_same_videos(
    evaluated: Path, store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not report.page_content(evaluated, store)["beside"]
    banks = report._banks
    monkeypatch.setattr(report, "_banks", lambda *given: {"rgb": banks(*given)["rgb"]})
    content = report.page_content(evaluated, store)
    shown = content["beside"][VIEWS["flow"]]
    queries = content["strips"]["rgb"]
    assert [strip.video_id for strip in shown] == [strip.video_id for strip in queries]
    assert all(one.picture.height == 2 * query.picture.height for one, query in zip(shown, queries, strict=True))
    page = report.render("report.html", content)
    assert f"Not looked at by this run: {VIEWS['flow'].title}" in page and shown[0].picture.uri in page
