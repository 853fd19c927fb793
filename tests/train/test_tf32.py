"""Where float32 is rounded on GPUs: what a recipe says holds while its stages train, and is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from tests.train import runs
from train import checkpoints, recipe, run_folder
from train.hardware.precision import tf32
from train.recipe import FOLDER


def flags() -> list[str]:
    cudnn = torch.backends.cudnn
    return [kind.fp32_precision for kind in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [("none", ["ieee"] * 3), ("convolutions", ["tf32", "tf32", "ieee"]), ("all", ["tf32"] * 3)],
)
def test_it_holds_within_the_block(where: str, expected: list[str]) -> None:
    before = flags()
    with pytest.raises(ZeroDivisionError), tf32(where):  # type: ignore[arg-type]
        assert flags() == expected
        raise ZeroDivisionError
    assert flags() == before


def test_published_recipes_round_nothing_and_a_misspelt_word_is_refused(tmp_path: Path) -> None:
    published = [path for path in FOLDER.glob("*/*.yaml") if "# Published" in path.read_text()]
    assert len(published) > 10
    for path in published:
        loaded = recipe.load(path)
        assert (loaded.tf32, loaded.clips.pixels) == ("none", "published"), path
    (tmp_path / "r.yaml").write_text((FOLDER / "small" / "infonce.yaml").read_text() + "tf32: non\n")
    with pytest.raises(UsageError, match="(?s)tf32.*none"):
        recipe.load(tmp_path / "r.yaml")


def test_a_run_trains_as_its_recipe_says_and_records_it(store: VideoStore, tmp_path: Path) -> None:
    one = runs.IN_BATCH | {"steps": 2}
    loaded = runs.load(tmp_path / "recipe.yaml", one, tf32="all")
    seen = []
    with runs.in_step(lambda *_: seen.append(flags())):
        runs.run(loaded, store, tmp_path / "run")
    assert seen == [["tf32"] * 3] * 2
    assert checkpoints.metadata(run_folder.checkpoint_path(tmp_path / "run", one["name"]))["tf32"] == "all"


def test_published_pixels_train_on_either_stream(store: VideoStore, tmp_path: Path) -> None:
    streams = {"flow": {"input": "image", "mirror": "plain"}}
    clips = {"length": 4, "stride": 1, "size": [16, 16], "pixels": "published", "streams": streams}
    augmentation = {"name": "coclr", "settings": {"retry": False, "gray_kind": "channel"}}
    for stage in (runs.INFONCE, runs.IN_BATCH):
        short = {key: value for key, value in stage.items() if key != "epochs"} | {"steps": 2}
        loaded = runs.load(tmp_path / "recipe.yaml", short, clips=clips, augmentation=augmentation)
        runs.run(loaded, store, tmp_path / short["name"])
        assert (tmp_path / short["name"] / short["name"] / "checkpoints" / "last.ckpt").is_file()
