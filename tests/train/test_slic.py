"""SLIC: steps against the same written out in plain loops, its clusterings between epochs, resume and ranks."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, annotation, open_store
from pipeline.store.annotation import AnnotationSet
from tests.train import runs, two_ranks
from tests.train.steps import CHANNELS, Views, fit
from train import methods, pseudo_labels
from train.backbones import BACKBONES
from train.clustering.agreement import agreement
from train.methods.slic import DRAWN, SLIC

SMALL: dict[str, Any] = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 6}
SMALL |= {
    "head_settings": {"hidden": 12},
    "optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.0},
}
FLOW = {"stream": "flow"}
GROUPS = torch.tensor([0, 1, 0, -1])  # the last video is in no cluster


@dataclass
class Grouped(Views):
    """A batch of four videos."""

    index: Tensor = torch.arange(4)
    groups: Tensor = GROUPS


def batches(count: int) -> list[Grouped]:
    generator = torch.Generator().manual_seed(1)
    return [Grouped(list(step)) for step in torch.randn(count, 3, 4, 3, 2, 12, 12, generator=generator)]


def distance(one: Tensor, other: Tensor) -> Tensor:
    return 1 - torch.dot(one, other) / (one.norm() * other.norm())


def loop_triplets(rows: list[Tensor], labels: list[int], chances: list[float] | None, wrong: bool) -> Tensor:
    """chances: of each pair, to draw its negative with; None: the nearest one."""
    hinges, numbers = [], iter(chances or [])
    for i, label in enumerate(labels):
        others = [k for k, other in enumerate(labels) if other != label]
        for j in range(i + 1, len(labels)):
            if labels[j] != label or not others:
                continue
            far = {k: distance(rows[i], rows[k]) for k in others}
            candidates = [k for k in others if far[k] < distance(rows[i], rows[j]) + 0.2]
            chance = next(numbers, 0.0)
            nearest = min(others, key=lambda k: far[k].item())
            chosen = candidates[int(chance * len(candidates))] if chances and candidates else nearest
            if wrong and not candidates:
                chosen = others.index(nearest)
            hinges.append((distance(rows[i], rows[j]) - distance(rows[i], rows[chosen]) + 0.2).clamp(min=0))
    return sum(hinges, torch.zeros(())) / max(len(hinges), 1)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"negatives": "fixed_semi_hard", "wrong_negative": True},
        {"competing": 2},
        {"temporal_weight": 0.0},
        {"loss": "ntxent"},
    ],
    ids=str,
)
def test_four_steps_equal_plain_loops(tmp_path: Path, switches: dict[str, Any]) -> None:
    torch.manual_seed(0)
    method = methods.create("slic", SMALL | {"clusters": "none"} | switches, CHANNELS)
    assert isinstance(method, SLIC)
    network, given = copy.deepcopy(method.network), batches(4)
    velocity = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    wanted = []
    for step, batch in enumerate(given):
        clips = batch.clips if switches.get("temporal_weight", 1) else batch.clips[:2]
        rows = list(network(torch.cat(clips)))  # type: ignore[arg-type]
        anchors, positives, second = rows[:4], rows[4:8], rows[8:]
        seed = np.random.SeedSequence((DRAWN, torch.initial_seed(), step, step)).generate_state(1, np.uint64)[0]
        drawn = torch.Generator().manual_seed(int(seed >> 1))
        losses = []
        for pool in [[0, 1], [2, 3]] if switches.get("competing") else [[0, 1, 2, 3]]:
            labels = [[0, 1, 0, -9][video] for video in pool] * 2
            some = [side[video] for side in (anchors, positives) for video in pool]
            count = sum(labels[i] == labels[j] for i in range(len(labels)) for j in range(i))
            chances = torch.rand(count, generator=drawn, dtype=torch.float64).tolist()
            fixed = "negatives" in switches
            losses.append(loop_triplets(some, labels, None if fixed else chances, fixed))
        loss = sum(losses, torch.zeros(())) / len(losses)
        if switches.get("loss") == "ntxent":
            loss = loop_ntxent(anchors, positives)
        if second:
            near = [distance(a, b) for a, b in zip(anchors, second, strict=True)]
            far = [distance(a, p) for a, p in zip(anchors, positives, strict=True)]
            loss = loss + sum((n - f + 0.04).clamp(min=0) for n, f in zip(near, far, strict=True)) / 4
        wanted.append(loss.item())
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                velocity[name] = 0.5 * velocity[name] + weight.grad  # type: ignore[operator]
                weight -= 0.1 * velocity[name]
    recorder = fit(method, given, tmp_path)  # type: ignore[arg-type]
    assert [values["loss"] for values in recorder.values] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(method.network.get_parameter(name), weight, rtol=1e-4, atol=1e-6)


def loop_ntxent(anchors: list[Tensor], positives: list[Tensor]) -> Tensor:
    rows = [*anchors, *positives]
    logs = []
    for i, row in enumerate(rows):
        similar = {k: (1 - distance(row, other)) / 0.5 for k, other in enumerate(rows) if k != i}
        logs.append(torch.stack(list(similar.values())).logsumexp(0) - similar[(i + 4) % 8])
    return sum(logs, torch.zeros(())) / 8


def test_a_batch_without_a_pair_that_has_a_negative_moves_nothing(tmp_path: Path) -> None:
    method = methods.create("slic", SMALL | {"clusters": "none", "temporal_weight": 0.0}, CHANNELS)
    before = copy.deepcopy(dict(method.named_parameters()))
    [batch] = batches(1)
    batch.groups = torch.zeros(4, dtype=torch.int64)
    recorder = fit(method, [batch], tmp_path)
    assert recorder.values[0]["loss"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in method.named_parameters())


U = {"view": "flow", "input": "u", "mirror": "plain"}
SAMPLING = {"name": "cluster", "same_video": 0.2, "replaced": 0.5, "replacements": {"rgb": [U]}}
PLAIN = SMALL | {"backbone": "plain", "backbone_settings": {}, "head": "coclr", "head_settings": {}, "every": 2}


def stage(**changes: Any) -> dict[str, Any]:
    return {"name": "slic", "method": "slic", "epochs": 5, "settings": PLAIN | changes}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES.entries, "plain", "tests.train.runs:Plain")


def clusterings(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "slic" / "clusters").iterdir())}


def test_a_run_continues_at_every_step_around_its_clusterings(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", stage(), sampling=SAMPLING)
    runs.run(loaded, store, tmp_path / "whole")
    lines = runs.lines(tmp_path / "whole", "slic")
    assert [line["step"] for line in lines if "nmi" in line] == [1, 7, 13]  # epochs 0, 2 and 4, of three steps
    for done in (1, 4, 5, 6, 7, 11, 12, 13):  # last steps of epochs, and first ones of the next
        with runs.signalled(done - 1, also=(SLIC,)), pytest.raises(runs.Stopped):
            runs.run(loaded, store, tmp_path / "parts")
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "slic")
    assert clusterings(tmp_path / "whole") == clusterings(tmp_path / "parts")


def test_a_run_that_ended_while_it_clustered_goes_on_exactly(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", stage(), sampling=SAMPLING)
    runs.run(loaded, store, tmp_path / "whole")
    for place in (1, 2):
        calls = []

        def ending(*given: Any, calls: list[int] = calls, place: int = place) -> np.ndarray:
            calls.append(1)
            if len(calls) == place:
                raise SystemExit("ended here")
            return pseudo_labels._finch(*given)

        monkeypatch.setitem(pseudo_labels.CLUSTERINGS, "finch", ending)
        with pytest.raises(SystemExit, match="ended here"):
            runs.run(loaded, store, tmp_path / "parts")
    monkeypatch.setitem(pseudo_labels.CLUSTERINGS, "finch", pseudo_labels._finch)
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "slic")
    assert clusterings(tmp_path / "whole") == clusterings(tmp_path / "parts")


def test_clusters_are_those_of_the_middle_clips_and_written_by_video(store: VideoStore, tmp_path: Path) -> None:
    seen: list[Any] = []

    def look(method: Any, batch: Any) -> None:
        seen.append((two_ranks.groups_of(method), batch.index, batch.groups))

    loaded = runs.load(tmp_path / "recipe.yaml", stage() | {"epochs": 1}, sampling=SAMPLING)
    with runs.in_step(look, SLIC):
        runs.run(loaded, store, tmp_path / "run")
    labels, index, groups = seen[0]
    assert np.array_equal(groups, labels[index])
    path = tmp_path / "run" / "slic" / "clusters" / "epoch-0000.parquet"
    table = pq.read_table(path)
    assert table["video_id"].to_pylist() == sorted(runs.VIDEOS) and table["cluster"].to_pylist() == labels.tolist()
    said = json.loads(table.schema.metadata[b"costream"])
    classes = np.asarray(store.annotated.labels)
    assert said["epoch"] == 0 and said["clustering"] == "finch" and said["clusters"] == len(set(labels.tolist()))
    assert {name: said[name] for name in ("nmi", "purity")} == {
        name: agreement(labels, classes)[name] for name in ("nmi", "purity")
    }


def test_another_streams_network_is_clustered_once_stays_as_it_is_and_a_run_with_it_continues_exactly(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Tensor] = []

    def noting(found: Tensor, count: int, seed: int) -> np.ndarray:
        rows.append(found.clone())
        return pseudo_labels._finch(found, count, seed)

    monkeypatch.setitem(pseudo_labels.CLUSTERINGS, "finch", noting)
    motion = stage(stream="flow", dim=8) | {"name": "motion", "epochs": 1}
    longer = motion | {"name": "longer", "start": {"query": "motion"}}
    clusterer = {"stream": "flow", "dim": 8}
    pixels = stage(clusterer=clusterer, every=1) | {"epochs": 3, "start": {"clusterer": "motion"}}
    sampling = {"name": "cluster", "replaced": 0.0}
    loaded = runs.load(tmp_path / "recipe.yaml", motion, longer, pixels, sampling=sampling)
    runs.run(loaded, store, tmp_path / "whole")
    _, of_longer, of_pixels = rows  # `longer` clusters the rows of its own network, before that moves
    assert of_pixels.shape == (13, 8) and torch.equal(of_pixels, of_longer)
    assert list(clusterings(tmp_path / "whole")) == ["epoch-0000.parquet"]
    weights = runs.content(tmp_path / "whole", "slic")["state_dict"]
    for name, weight in runs.content(tmp_path / "whole", "motion")["state_dict"].items():
        assert torch.equal(weights[name.replace("network", "clusterer")], weight), name
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "slic")
    for done in (1, 3, 4):  # in the first epoch, and around the beginning of the second
        with runs.signalled(done - 1, also=(SLIC,)), pytest.raises(runs.Stopped):
            runs.run(loaded, store, tmp_path / "parts")
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "slic")


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"clusters": "kmeans", "cluster_count": 3}, 3),
        ({"clusters": "spherical_kmeans", "cluster_count": 2}, 2),
        ({"cluster_count": 2}, 2),
    ],
    ids=str,
)
def test_other_clusterings_have_the_number_that_is_asked_for(
    store: VideoStore, tmp_path: Path, settings: dict[str, Any], count: int
) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", stage(**settings) | {"epochs": 1}, sampling=SAMPLING)
    runs.run(loaded, store, tmp_path / "run")
    assert runs.lines(tmp_path / "run", "slic")[0]["clusters"] == count


def test_the_search_of_finch_is_approximate_where_its_name_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, finch = [], pseudo_labels.finch
    monkeypatch.setattr(pseudo_labels, "finch", lambda rows, **given: asked.append(given) or finch(rows, **given))
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for name in ("finch", "finch_approximate"):
        pseudo_labels.CLUSTERINGS[name](rows, 0, 7)
    assert [given["neighbours"] for given in asked] == ["exact", "approximate"]
    assert all(given["seed"] == 7 and given["partitions"] == 1 for given in asked)


@pytest.mark.remedy("another cluster_count in the recipe")
def test_more_clusters_than_there_can_be_are_refused_and_fewer_are_not(store: VideoStore, tmp_path: Path) -> None:
    def begin(count: int) -> None:
        settings = stage(clusters="kmeans", cluster_count=count) | {"epochs": 1}
        runs.run(runs.load(tmp_path / "recipe.yaml", settings, sampling=SAMPLING), store, tmp_path / f"run{count}")

    with pytest.raises(Refusal, match="cannot be clustered: .* rows cannot make 1000 clusters"):
        begin(1000)
    begin(2)


def test_labels_may_take_the_place_of_clusters_and_be_shifted_as_released(store: VideoStore, tmp_path: Path) -> None:
    found = {}
    for shifted in (False, True):
        settings = {"clusters": "labels", "shifted_labels": shifted}
        loaded = runs.load(tmp_path / "recipe.yaml", stage(**settings) | {"epochs": 1}, sampling=SAMPLING)
        run = tmp_path / f"run-{shifted}"

        def look(method: Any, batch: Any, shifted: bool = shifted) -> None:
            found[shifted] = two_ranks.groups_of(method)

        with runs.in_step(look, SLIC):
            runs.run(loaded, store, run)
        assert runs.lines(run, "slic")[0]["purity"] == 1  # as released, the score is that of the clusters themselves
    assert found[False].tolist() == np.asarray(store.annotated.labels).tolist()
    assert found[True].tolist() == [found[False][-1], *found[False][:-1]]


@pytest.mark.remedy("another clustering in the recipe, or ")
def test_labels_that_are_missing_are_refused_and_another_clustering_does_without(
    store: VideoStore, tmp_path: Path
) -> None:
    unlabelled = open_store(shutil.copytree(store.root, tmp_path / "store"))
    annotation.save(unlabelled.root, "nothing", AnnotationSet([], {}))
    unlabelled = open_store(unlabelled.root, "nothing")
    once = {"epochs": 1}
    loaded = runs.load(tmp_path / "recipe.yaml", stage(clusters="labels") | once, sampling=SAMPLING)
    text = "(?s)13 of 13 training videos have no class.*another clustering.*annotate"
    with pytest.raises(Refusal, match=text):
        runs.run(loaded, unlabelled, tmp_path / "run")
    loaded = runs.load(tmp_path / "recipe.yaml", stage() | once, sampling=SAMPLING)
    runs.run(loaded, unlabelled, tmp_path / "another")
    line = runs.lines(tmp_path / "another", "slic")[0]
    assert line["clusters"] > 1 and "nmi" not in line


@pytest.mark.parametrize(
    ("settings", "batch", "text", "mended", "of"),
    [
        ({}, 1, "one video alone.*two videos or more", {}, 2),
        ({"competing": 3}, 4, "does not fall into pools of 3.*a multiple of it", {"competing": 3}, 6),
        ({"competing": 3}, 4, "or competing: 0", {"competing": 0}, 4),
        (
            {"clusters": "kmeans"},
            4,
            "without a number of clusters.*cluster_count: 1000",
            {"clusters": "kmeans", "cluster_count": 1000},
            4,
        ),
        pytest.param(
            {"clusters": "labels", "cluster_count": 4},
            4,
            "has a number of its own.*leave it out",
            {"clusters": "labels"},
            4,
            marks=pytest.mark.remedy("leave it out"),
        ),
        ({"clusterer": {"stream": "rgb"}}, 4, "sees the stream that is trained.*the other", {"clusterer": FLOW}, 4),
        ({"clusterer": FLOW, "clusters": "none"}, 4, "none ask no network.*finch", {"clusterer": FLOW}, 4),
        ({"clusterer": FLOW, "clusters": "labels"}, 4, "or no clusterer", {"clusters": "labels"}, 4),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused_with_what_helps(
    tmp_path: Path, settings: dict[str, Any], batch: int, text: str, mended: dict[str, Any], of: int
) -> None:
    other = stage(stream="flow") | {"name": "motion"}

    def load(settings: dict[str, Any], batch: int) -> None:
        start = {"start": {"clusterer": "motion"}} if "clusterer" in settings else {}
        runs.load(tmp_path / "recipe.yaml", other, stage(**settings) | start, batch=batch, sampling=SAMPLING)

    with pytest.raises(UsageError, match=f"(?s){text}"):
        load(settings, batch)
    load(mended, of)


@pytest.mark.slow
def test_two_ranks_equal_one(store: VideoStore, tmp_path: Path) -> None:
    content = runs.settings(stage(every=1, competing=2) | {"epochs": 3}, sampling=SAMPLING)
    recipe = runs.write(tmp_path / "recipe.yaml", content)
    ranks = two_ranks.of_a_run(__file__, store, recipe)
    runs.run(runs.recipe.load(recipe), store, tmp_path / "one")
    one, two = (runs.lines(tmp_path / name, "slic") for name in ("one", "two"))
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
    decided = runs.content(tmp_path / "one", "slic")["callbacks"]["PseudoLabels"]["decided"]
    assert all(torch.equal(rank["decided"], decided) for rank in ranks)
    tables = [pq.read_table(tmp_path / name / "slic" / "clusters" / "epoch-0002.parquet") for name in ("one", "two")]
    assert tables[0].equals(tables[1])


if __name__ == "__main__":
    two_ranks.train_given(lambda method: {"decided": torch.from_numpy(two_ranks.groups_of(method))}, SLIC)
