"""Networks and batches that no memory holds are refused before any is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import Refusal, UsageError
from train import recipe as recipes
from train import sizes
from train.methods.goca import GOCASettings
from train.settings import read

SMALL = recipes.find("small", "infonce")


@pytest.mark.parametrize(
    "numbers", [{"dim": 10**9}, {"dim": 10**7, "queue": 10**7}, {"dim": 4 * 10**9, "queue": 4 * 10**9}]
)
def test_a_network_larger_than_memory_is_refused(numbers: dict[str, int]) -> None:
    recipe = recipes.load(SMALL)
    stage = recipe.stages[0]
    sizes.check(recipe, stage)
    larger = stage.model_copy(update={"settings": stage.settings.changed(**numbers)})
    with pytest.raises(Refusal, match=f"networks of stage '{stage.name}'"):
        sizes.check(recipe, larger)


def test_a_batch_larger_than_memory_is_refused() -> None:
    recipe = recipes.load(SMALL).changed(batch=10**9)
    with pytest.raises(Refusal, match="a batch of clips of stage"):
        sizes.check(recipe, recipe.stages[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", 10**30),
        ("order", {"block": 10**9}),
        ("order", {"repeat": 10**9}),
        ("clips", {"length": 10**9}),
        ("clips", {"size": [10**9, 64]}),
        ("stages", {"settings": {"queue": 10**13}}),
        ("stages", {"settings": {"backbone_settings": {"width": 1.0e300}}}),
        ("stages", {"name": ["rgb"]}),
        ("stages", {"method": ["infonce"]}),
        ("stages", {"settings": {"backbone": ["small"]}}),
        ("augmentation", {"name": ["small"]}),
        ("sampling", {"name": ["random"]}),
        ("sampling", {"name": "multiscale", "longer": 10**9}),
        ("sampling", {"name": "multiscale", "shorter": 10**9}),
        ("sampling", {"name": "multiscale", "shorter_length": 10**9}),
        ("keep_best", {"metric": ["a"], "mode": "max"}),
        ("title", ["a"]),
        ("layer", ["backbone"]),
        ("splits", [["train"]]),
        ("precision", ["32-true"]),
        ("neighbours", {"share": float("nan")}),
        ("clip_gradients", float("inf")),
    ],
)
def test_what_no_setting_can_be_is_refused_by_its_name(key: str, value: object, tmp_path: Path) -> None:
    content = yaml.safe_load(SMALL.read_text())
    places = content[key] if isinstance(content.get(key), list) and key == "stages" else [content]
    for place in places:
        if isinstance(value, dict) and key == "stages":
            for name, of_stage in value.items():
                place[name] = {**place.get(name, {}), **of_stage} if isinstance(of_stage, dict) else of_stage
        else:
            place[key] = {**place.get(key, {}), **value} if isinstance(value, dict) else value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=rf"recipe\.yaml: {key}"):
        recipes.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("key", ["clips", "prototypes", "iterations"])
def test_no_number_of_a_method_is_counted_to_before_it_is_checked(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key}\n  to do: at most"):
        read(GOCASettings, {"backbone": "small", "streams": ["rgb"], key: 10**9}, "")


@pytest.mark.parametrize(
    "content",
    [
        "a: [b",
        "a: &a {b: 1}\nc: {<<: [*a, *a]}",
        "a: {b: 1, b: 2}",
        "[]",
        "3",
        "a: !!bool perhaps",
        "a: !!timestamp x",
        "a: 2001-99-99",
        "{[a]: b}",
        "[" * 600,
        "\xff",
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        recipes.load(tmp_path / "recipe.yaml")
