"""What TensorBoard is given of a run, and that the installed one shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import INFONCE
from train.clustering.watching import LARGEST

VICC = {
    "name": "vicc",
    "method": "vicc",
    "steps": 2,
    "settings": {
        "stream": "flow",
        "backbone": "small",
        "backbone_settings": {"width": 0.25},
        "dim": 8,
        "prototypes": 6,
        "optimiser": {"name": "adamw", "lr": 0.003, "schedule": "one_cycle"},
    },
}


@pytest.fixture(scope="module")
def trained(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    runs.run(runs.load(folder / "recipe.yaml", INFONCE | {"epochs": 1}, VICC), store, folder / "run")
    return folder / "run"


def test_every_meter_and_the_learning_rate_are_there(trained: Path) -> None:
    for stage in ("motion", "vicc"):
        lines = runs.lines(trained, stage, times=True)
        board = EventAccumulator(str(trained / stage / "tensorboard")).Reload()
        assert set(board.Tags()["scalars"]) >= lines[0].keys() - {"step", "epoch"}
        assert [event.value for event in board.Scalars("lr")] == pytest.approx([line["lr"] for line in lines])


def test_prototypes_of_clips_are_histograms(trained: Path) -> None:
    board = EventAccumulator(str(trained / "vicc" / "tensorboard")).Reload()
    [last] = [event for event in board.Histograms("prototypes of clips") if event.step == 2]
    counted = last.histogram_value
    assert counted.num > 0
    assert max(counted.bucket) / counted.num == pytest.approx(runs.lines(trained, "vicc")[-1][LARGEST])
    assert EventAccumulator(str(trained / "motion" / "tensorboard")).Reload().Tags()["histograms"] == []


@pytest.mark.slow
def test_the_installed_one_serves_a_page(trained: Path) -> None:
    command = [sys.executable, "-W", "ignore::UserWarning", "-m", "tensorboard.main", "--logdir", str(trained)]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as served:
        try:
            assert served.stderr is not None
            told = ""
            while not (address := re.search(r"http://\S+", told)):
                line = served.stderr.readline()
                assert line, told
                told += line
            with urllib.request.urlopen(address[0]) as page:
                assert page.status == 200 and b"TensorBoard" in page.read()
            with urllib.request.urlopen(f"{address[0]}data/logdir") as answer:
                assert json.load(answer)["logdir"] == str(trained)
        finally:
            served.kill()  # it may wait for its data server when it is asked to end
