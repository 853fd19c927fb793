"""DPC and CoCon: steps against the same written out in plain loops, resume with a plateau, and ranks."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from pipeline.views import VIEWS
from tests.toy_view import TOY
from tests.train import runs, two_ranks
from tests.train.steps import CHANNELS, Views, fit
from tests.train.stores import write_store
from train import methods
from train.backbones import BACKBONES
from train.losses import predictive
from train.losses.predictive import dense_predictive_nce, prediction
from train.methods.cocon import CoCon
from train.networks.network import Network

AGGREGATION = {"block_length": 2, "hidden": 16, "dropout": 0.0}
SMALL: dict[str, Any] = {"backbone": "small", "backbone_settings": {"width": 0.125}, "predicted": 2}
SMALL |= {
    "aggregation_settings": AGGREGATION,
    "optimiser": {"name": "sgd", "lr": 0.0005, "momentum": 0.0, "weight_decay": 0.0},
}


@dataclass
class Numbered(Views):
    index: Tensor = torch.arange(3)


def batches(count: int) -> list[Numbered]:
    """Three videos, four blocks of two frames."""
    drawn = torch.randn(count, 3, 3, 8, 24, 24, generator=torch.Generator().manual_seed(1))
    return [Numbered({"rgb": [step], "flow": [step[:, :2].flip(0).sin()]}) for step in drawn]


def loop_blocks(network: Network, clips: Tensor) -> list[Tensor]:
    """Of each block the backbone's map (B, D, S, S), the mean over time."""
    blocks = torch.stack(clips.split(2, dim=2), dim=1)  # batch norm sees all blocks at once
    maps = network.backbone(blocks.flatten(0, 1)).mean(dim=2)
    return list(maps.unflatten(0, blocks.shape[:2]).unbind(dim=1))


def loop_gru(gru: Any, block: Tensor, state: Tensor) -> Tensor:
    both = torch.cat([block, state], dim=1)
    update, reset = torch.sigmoid(gru.update_gate(both)), torch.sigmoid(gru.reset_gate(both))
    proposed = torch.tanh(gru.out_gate(torch.cat([block, reset * state], dim=1)))
    return (1 - update) * state + update * proposed


def unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + 1e-5)


def loop_predictions(network: Network, blocks: list[Tensor], kind: str) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions of the last two blocks, and all blocks as targets."""
    aggregation: Any = network.aggregation
    normalised = [unit(block) if kind == "cocon" else block for block in blocks]
    state = torch.zeros(len(blocks[0]), 16, *blocks[0].shape[2:])
    for block in normalised[:2]:
        state = loop_gru(aggregation.gru, block if kind == "cocon" else block.clamp(min=0), state)
    state = unit(state) if kind == "cocon" else state
    predicted = []
    for _ in range(2):
        block = aggregation.predictor(state)
        block = unit(block) if kind == "cocon" else block
        predicted.append(block)
        state = loop_gru(aggregation.gru, block if kind == "cocon" else block.clamp(min=0), state)
        state = unit(state) if kind == "cocon" else state
    return predicted, normalised


def loop_nce(predicted: list[Tensor], targets: list[Tensor], videos: list[int], divisor: float) -> Tensor:
    side = predicted[0].shape[-1]
    places = list(itertools.product(videos, range(2), range(side), range(side)))
    rows = torch.stack([predicted[p][b, :, i, j] for b, p, i, j in places]) / divisor
    columns = torch.stack([targets[p][b, :, i, j] for b, p, i, j in places]) / divisor
    scores = rows @ columns.T
    return torch.stack([scores[k].logsumexp(0) - scores[k, k] for k in range(len(places))]).mean()


def loop_pooled(blocks: list[Tensor]) -> Tensor:
    """Rows of all videos' blocks, video by video: of 3 x 3 places the first row and column are taken alone."""
    windows = [(0,), (1, 2)]
    rows = []
    for video in range(3):
        for block in blocks:
            cells = [block[video][:, list(r)][:, :, list(c)].amax(dim=(1, 2)) for r in windows for c in windows]
            row = torch.stack(cells).mean(dim=0)
            rows.append(row / (row.norm() + 1e-5))
    return torch.stack(rows)


def loop_ties(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    count = len(one)
    apart, same, different = [], [], []
    for i, j in itertools.product(range(count), repeat=2):
        apart.append((one[i] @ one[j] - other[i] @ other[j]).abs())
        cosine = one[i] @ other[j]
        (same if i == j else different).append(1 - cosine if i == j else cosine.clamp(min=0))
    return torch.stack(apart).mean(), torch.stack(same).mean() / 2 + torch.stack(different).mean() / 2


@pytest.mark.parametrize(
    ("kind", "switches"),
    [
        ("dpc", {}),
        ("dpc", {"stream": "flow", "competing": 1}),
        ("cocon", {"streams": ["rgb", "flow"]}),
        ("cocon", {"streams": ["rgb", "flow"], "cooperation": 0.0, "synchronisation": 3.0}),
        ("cocon", {"streams": ["flow"]}),
    ],
    ids=str,
)
def test_four_steps_equal_plain_loops(tmp_path: Path, kind: str, switches: dict[str, Any]) -> None:
    torch.manual_seed(0)
    settings = SMALL | ({"backbone_settings": {"width": 0.125}} if kind == "dpc" else {}) | switches
    method = methods.create(kind, settings, CHANNELS)
    networks = copy.deepcopy(method.networks)
    given, wanted = batches(4), []
    for batch in given:
        loss, pooled = torch.zeros(()), []
        for stream, network in networks.items():
            predicted, blocks = loop_predictions(network, loop_blocks(network, batch.view(stream, 0)), kind)
            groups = [[0], [1], [2]] if "competing" in switches else [[0, 1, 2]]
            divisor = 0.07 if kind == "cocon" else 1.0
            losses = [loop_nce(predicted, blocks[-2:], videos, divisor) for videos in groups]
            loss = loss + torch.stack(losses).mean()
            pooled.append(loop_pooled(blocks))
        if len(pooled) == 2:
            cooperation, synchronisation = loop_ties(*pooled)
            weights = switches.get("cooperation", 10.0), switches.get("synchronisation", 10.0)
            loss = loss + weights[0] * cooperation + weights[1] * synchronisation
        wanted.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for network in networks.values():
                for weight in network.parameters():
                    if weight.grad is not None:
                        weight -= 0.0005 * weight.grad
                network.zero_grad()
    recorder = fit(method, given, tmp_path)  # type: ignore[arg-type]
    assert [values["loss"] for values in recorder.values] == pytest.approx(wanted, rel=2e-3)
    for stream, network in networks.items():
        for name, weight in network.named_parameters():
            torch.testing.assert_close(method.networks[stream].get_parameter(name), weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_a_large_matrix_is_made_in_parts(monkeypatch: pytest.MonkeyPatch, temperature: float | None) -> None:
    drawn = functional.normalize(torch.randn(2, 2, 2, 4, 3, 3, dtype=torch.float64), dim=3)
    drawn[1] += drawn[0]  # so that some predictions are right
    whole, parts = ([rows.clone().requires_grad_() for rows in drawn] for _ in range(2))
    loss, right = prediction(*whole, temperature)
    loss.backward()
    monkeypatch.setattr(predictive, "LOGITS_AT_ONCE", 5 * 36 + 1)
    in_parts, found = prediction(*parts, temperature)
    in_parts.backward()
    torch.testing.assert_close(in_parts, loss)
    assert found == right and 0 < found < 1
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    monkeypatch.setattr(predictive, "LOGITS_AT_ONCE", 0)
    with pytest.raises(ValueError, match="predictions and targets do not fit together"):
        dense_predictive_nce(parts[0], parts[1][:1])


PLAIN = SMALL | {"backbone": "plain", "backbone_settings": {}, "predicted": 1}
RECIPE: dict[str, Any] = {
    "clips": {"length": 6, "stride": 1, "size": [24, 24], "streams": {"flow": {"size": [12, 12], "mirror": "never"}}},
    "sampling": {"name": "blocks", "blocks": 3},
    "layer": "context",
}
PLATEAU = {"name": "sgd", "lr": 0.05, "schedule": "plateau", "patience": 0, "final_lr": 0.0001}


def stage(**changes: Any) -> dict[str, Any]:
    settings = PLAIN | {"streams": ["rgb", "flow"]} | changes
    return {"name": "both", "method": "cocon", "epochs": 4, "settings": settings}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES.entries, "plain", "tests.train.runs:Plain")
    monkeypatch.setitem(VIEWS, TOY.name, TOY)


def test_a_run_continues_at_every_step_with_its_learning_rate(store: VideoStore, tmp_path: Path) -> None:
    changed = AGGREGATION | {"dropout": 0.1}
    listed = stage(optimiser=PLATEAU, aggregation_settings=changed)
    loaded = runs.load(tmp_path / "recipe.yaml", listed, **RECIPE, neighbours={"share": 0.5}, batch=3)
    runs.run(loaded, store, tmp_path / "whole")
    lines = runs.lines(tmp_path / "whole", "both")
    assert sum("held_out_loss" in line for line in lines) == 3
    for done in range(1, len(lines)):
        with runs.signalled(done - 1, also=(CoCon,)), pytest.raises(runs.Stopped):
            runs.run(loaded, store, tmp_path / "parts")
    runs.run(loaded, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "both")


def test_networks_of_one_view_go_on_in_a_joint_stage(store: VideoStore, tmp_path: Path) -> None:
    """Backbone and ConvGRU: CoCon's own way, each view alone first."""
    alone = {"name": "alone", "method": "cocon", "steps": 2, "settings": PLAIN | {"streams": ["rgb"]}}
    joint = stage() | {"epochs": 0, "steps": 1, "start": {"rgb": "alone"}}
    loaded = runs.load(tmp_path / "recipe.yaml", alone, joint, **RECIPE)
    began: dict[str, Any] = {}

    def look(method: Any, batch: Any) -> None:
        if len(method.networks) == 2 and not method.global_step:
            began.update({name: value.clone() for name, value in method.networks["rgb"].state_dict().items()})

    with runs.in_step(look, CoCon):
        runs.run(loaded, store, tmp_path / "run")
    trained = runs.content(tmp_path / "run", "alone")["state_dict"]
    assert began and all(torch.equal(value, trained[f"encoders.0.{name}"]) for name, value in began.items())


def test_four_views_of_different_sizes_train_together(tmp_path: Path) -> None:
    """Views as they come, among them one of 17 planes and one that is shown twice."""
    wide = write_store(tmp_path / "store", {f"v{n}": (12, 32, 40) for n in range(4)}, planes=17)
    clips = {
        "length": 6,
        "stride": 1,
        "size": [24, 24],
        "streams": {"flow": {"input": "signed"}, "toy": {"size": [16, 16]}, "gray": {"view": "toy", "input": "gray"}},
    }
    four = runs.load(
        tmp_path / "recipe.yaml",
        stage(streams=["rgb", "flow", "toy", "gray"]) | {"epochs": 1},
        **RECIPE | {"clips": clips, "batch": 4},
    )
    runs.run(four, wide, tmp_path / "run")
    [line] = runs.lines(tmp_path / "run", "both")
    assert {"toy_predicted_top1", "cooperation", "synchronisation"} <= line.keys()


@pytest.mark.parametrize(
    ("settings", "changes", "text", "mended"),
    [
        ({"predicted": 3}, {}, "a clip of 3 blocks, of which 3 are predicted", {"predicted": 2}),
        ({"aggregation": None}, {}, "settings of an aggregation without one", {"aggregation": "gru"}),
        (
            {"aggregation_settings": AGGREGATION | {"predicts": False}},
            {},
            "a network that predicts no block.*with predicts: true",
            {"aggregation_settings": AGGREGATION | {"predicts": True}},
        ),
        ({"head": "coclr"}, {}, "head coclr, which nothing trains.*head: none", {"head": "none"}),
        ({"streams": ["rgb", "rgb"]}, {}, "has a stream twice", {"streams": ["rgb", "flow"]}),
        ({"competing": 3}, {}, "does not fall into groups of 3.*or competing: 0", {"competing": 0}),
        ({"streams": ["rgb", "depth"]}, {}, 'unknown stream "depth"', {}),
        ({}, {"batch": 1}, "views of one video alone.*two videos or more", {}),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused_with_what_helps(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], text: str, mended: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=f"(?s){text}"):
        runs.load(tmp_path / "recipe.yaml", stage(**settings), **RECIPE | changes)
    runs.load(tmp_path / "recipe.yaml", stage(**mended), **RECIPE | ({"batch": 2} if changes else {}))


def test_a_store_without_a_view_is_refused(tmp_path: Path) -> None:
    narrow = write_store(tmp_path / "store", dict(list(runs.VIDEOS.items())[:6]))
    clips = RECIPE["clips"] | {"streams": {"toy": {}}}
    loaded = runs.load(tmp_path / "recipe.yaml", stage(streams=["rgb", "toy"]), **RECIPE | {"clips": clips})
    with pytest.raises(Refusal, match="(?s)no view 'toy'.*VIEWS=toy` adds that"):
        runs.run(loaded, narrow, tmp_path / "run")


@pytest.mark.slow
def test_two_ranks_equal_one(store: VideoStore, tmp_path: Path) -> None:
    content = runs.settings(stage(competing=2) | {"epochs": 2}, **RECIPE)
    recipe = runs.write(tmp_path / "recipe.yaml", content)
    two_ranks.of_a_run(__file__, store, recipe)
    runs.run(runs.recipe.load(recipe), store, tmp_path / "one")
    one, two = (runs.lines(tmp_path / name, "both") for name in ("one", "two"))
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-5)


if __name__ == "__main__":
    two_ranks.train_given(lambda method: {}, CoCon)
