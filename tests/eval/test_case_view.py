"""A view that no module of the product names goes all the way: extracted, trained on, evaluated, reported, compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.compare import compare, write_page
from eval.evaluate import evaluate
from eval.results import read
from pipeline.views import VIEWS
from pipeline.views.rgb import RgbSettings
from tests.eval.conftest import build_store, listing, pixels
from tests.toy_view import TOY, ToySettings
from train.commands import pretrain
from train.hardware import Hardware

RECIPE = """
title: tiny, of a view of its own
clips: {length: 4, stride: 2, size: [16, 16]}
augmentation: {name: small}
batch: 4
log_every: 1
stages:
  - name: planes
    method: infonce
    steps: 2
    settings: {stream: toy, backbone: small, backbone_settings: {width: 0.25}, dim: 8, queue: 0, temperature: 0.1}
  - name: both
    method: cmc
    steps: 2
    settings: {streams: [rgb, toy], backbone: small, backbone_settings: {width: 0.25}, dim: 8, queue: 0}
"""


def test_a_view_of_17_planes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, TOY.name, TOY)
    store = build_store(tmp_path, listing(), pixels, views={"rgb": RgbSettings(), "toy": ToySettings()})
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    runs = [tmp_path / f"seed-{seed}" for seed in range(2)]
    hardware = Hardware(reader="opencv", threads=1, accelerator="cpu")
    for seed, run in enumerate(runs):
        assert pretrain("cmc", store.root, run, recipe=str(tmp_path / "recipe.yaml"), seed=seed, hardware=hardware) == 0
        page, _ = evaluate(run, store, ("clean",), "opencv", 1)
        assert "toy planes" in page.read_text(encoding="utf-8").lower()
        assert {record.stream for record in read(run / "results.json")} == {"rgb", "toy", "two-stream"}
    write_page(compare(runs), tmp_path / "comparison.html")
    assert "toy planes" in (tmp_path / "comparison.html").read_text(encoding="utf-8").lower()
