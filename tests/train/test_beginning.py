"""What a training tells before its first step, and after its last one."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from tqdm import tqdm

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE
from train import augment, beginning, checkpoints, recipe
from train.callbacks import bar
from train.commands import pretrain
from train.recipe import FOLDER
from train.run_folder import checkpoint_path


def test_device_plan_and_networks_are_told_and_what_comes_next(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(INFONCE, IN_BATCH | {"steps": 1}))
    run = tmp_path / "runs a"
    hardware = dataclasses.replace(runs.HARDWARE, reader="auto")  # which is opencv without a GPU
    assert pretrain("infonce", str(store.root), run, recipe=str(path), hardware=hardware, steps=3) == 0
    told = capsys.readouterr().err
    assert "\non the CPU, 1 thread, reader opencv with 1 thread\n" in re.sub(r" \(.*\)", "", told).replace(
        "2 threads, reader", "1 thread, reader"
    )
    network = checkpoints.load_method(checkpoint_path(run, "motion")).networks["flow"]
    weights = sum(weight.numel() for weight in network.parameters()) / 1e6
    assert f"  stage motion: infonce, 3 steps of 4 videos (1 epoch); flow small with {weights:.2f} M weights\n" in told
    assert "stage motion took " in told
    assert f"next: make evaluate RUN={shlex.quote(str(run))} STORE={shlex.quote(str(store.root))}\n" in told


@pytest.mark.remedy("RECIPE=small-real adds none, nor does SET=augmentation.settings.flow_offset=0", told=True)
def test_flow_that_is_small_beside_the_offset_of_augmentation_is_told(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(**augmentation: float) -> str:
        settings = {"name": "small", "settings": augmentation}
        loaded = runs.load(
            tmp_path / "recipe.yaml", INFONCE, IN_BATCH, INFONCE | {"name": "again"}, augmentation=settings
        )
        beginning.tell_of_offset(loaded, store)
        return capsys.readouterr().err

    assert told() == "" == told(flow_offset=0)
    assert told(flow_offset=90).count("flow of these videos is small (spread ") == 1
    for path in (FOLDER / "small-real").iterdir():
        augmentation = recipe.load(path).augmentation
        assert augment.policy(augmentation.name, **augmentation.settings).offset == 0


def test_a_stopped_stage_tells_where_it_goes_on(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"steps": 3})))
    options = {"recipe": path, "hardware": runs.HARDWARE}
    with runs.signalled(1):
        assert pretrain("infonce", str(store.root), tmp_path / "run", **options) == 143
    assert "continuing" not in capsys.readouterr().err
    assert pretrain("infonce", str(store.root), tmp_path / "run", **options) == 0
    assert "stage pixels: continuing at step 2\n" in capsys.readouterr().err


def test_networks_are_counted_without_being_built(tmp_path: Path) -> None:
    loaded = runs.load(tmp_path / "recipe.yaml", INFONCE)
    [(stream, network)] = loaded.stages[0].settings.networks.items()
    built = network.build(2)
    assert beginning.weights(network, 2) == sum(weight.numel() for weight in built.parameters())
    assert stream == "flow"


def test_a_queue_tells_how_far_it_is_filled_and_what_guessing_gives(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is asked for most has room in 60 columns."""
    lines: dict[int, list[str]] = {60: [], 300: []}

    def update(shown: tqdm, steps: int) -> None:
        for width, found in lines.items():
            found.append(
                shown.format_meter(**(shown.format_dict | {"ncols": width, "n": shown.n + steps, "elapsed": 9}))
            )

    monkeypatch.setattr(bar.tqdm, "update", update)
    queued = INFONCE | {"settings": INFONCE["settings"] | {"queue": 12}}
    runs.run(runs.load(tmp_path / "recipe.yaml", queued), store, tmp_path / "run")
    assert ["queue filled: 33 %" in lines[300][0], "queue filled: 67 %" in lines[300][1]] == [True, True]
    assert "own clip first of 13: " in lines[300][0] and " % (guessing 20 %), in the first 5: " in lines[300][0]
    assert " % (guessing 11 %), in the first 5: " in lines[300][1] and lines[300][1].endswith(" % (guessing 56 %)")
    assert not any("queue filled" in line or "guessing" in line for line in lines[300][2:])
    assert capsys.readouterr().err.count("until the queue is filled") == 1
    for line in lines[60]:
        assert (
            re.fullmatch(r"\d\d:\d\d left, loss [\d.]+, \d+ clips/s, data wait \d+ %, moti.*", line) and len(line) <= 60
        )
