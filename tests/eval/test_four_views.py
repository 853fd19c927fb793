"""CoCon on four views goes all the way: a store that lacks two gets them as the refusal says, then it trains and is
reported."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path

import pytest
import yaml

from eval.evaluate import evaluate
from eval.results import read
from pipeline.errors import Refusal
from pipeline.store import open_store
from pipeline.views import VIEWS
from tests import printed, test_make
from tests.eval.conftest import build_store, listing, pixels
from train import recipe as recipes
from train.commands import pretrain
from train.hardware import Hardware

COPY = test_make.folder  # a fixture: where make runs, with a Python that writes down what it would be run with
HARDWARE = Hardware(reader="opencv", threads=1, accelerator="cpu")
installed = pytest.mark.skipif(
    any(name not in importlib.metadata.packages_distributions() for name in ("mediapipe", "ai_edge_litert")),
    reason="there is no MediaPipe for this machine",
)


def tiny(path: Path) -> Path:
    """The shipped recipe of four views, with two steps of small networks."""
    shipped = recipes.load(recipes.find("small-four-views", "cocon"))
    [stage] = shipped.stages
    settings = stage.settings.changed(
        backbone_settings={"width": 0.125}, aggregation_settings={"block_length": 2, "hidden": 16}
    )
    made = shipped.changed(
        clips=shipped.clips.changed(length=8),
        sampling=shipped.sampling.changed(blocks=4),
        batch=4,
        stages=[stage.changed(steps=2, settings=settings)],
    )
    path.write_text(yaml.safe_dump(made.as_dict(), sort_keys=False), encoding="utf-8")
    return path


@installed
@pytest.mark.remedy("adds that to its videos, with the DATASET=")
def test_four_views(tmp_path: Path, COPY: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = build_store(tmp_path, listing()[:6] + listing()[12:], pixels)
    recipe, run = str(tiny(tmp_path / "recipe.yaml")), tmp_path / "run"
    with pytest.raises(Refusal, match="no view 'segmentation' and no view 'pose'") as refused:
        pretrain("cocon", store.root, run, recipe=recipe, hardware=HARDWARE)
    command = re.search("`(make extract-flow .*?)` adds that", refused.value.remedy)
    assert command is not None
    line = command[1].replace("VIDEOS=", f"VIDEOS={shlex.quote(str(tmp_path / 'videos'))} WORKERS=1")
    assert printed.run(printed.argv_of(line, COPY), monkeypatch) == 0
    store = open_store(store.root)
    assert store.views == tuple(VIEWS)
    assert pretrain("cocon", store.root, run, recipe=recipe, hardware=HARDWARE) == 0
    page, _ = evaluate(run, store, ("clean",), "opencv", 1)
    told = page.read_text(encoding="utf-8")
    assert VIEWS["segmentation"].title in told and VIEWS["pose"].title in told
    records = read(run / "results.json")
    assert {record.stream for record in records} == {*VIEWS, "all streams"}
    assert {r.metric for r in records if r.stream == "all streams"} >= {"R@1", "views_kmeans_nmi", "views_kmeans_ami"}
