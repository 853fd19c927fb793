"""Recipes: what is written comes back, and what cannot be meant is refused by file and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.errors import Refusal, UsageError
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE
from train import methods, recipe
from train.clips.spec import ClipSpec, StreamSettings
from train.order import OrderSettings
from train.recipe import FOLDER, Recipe
from train.sampling.cluster import Cluster


def test_defaults_are_filled_in_and_come_back(tmp_path: Path) -> None:
    """RUN/recipe.yaml, which says everything, is the same recipe."""
    loaded = recipe.load(runs.write(tmp_path / "short.yaml", runs.settings(IN_BATCH, INFONCE)))
    assert (loaded.precision, loaded.splits, loaded.clips.crop) == ("32-true", ["train", ""], "whole")
    assert loaded.clips.size == (16, 16)
    resolved = loaded.as_dict()
    assert resolved["stages"][0] | {"epochs": 0} == resolved["stages"][0]
    (tmp_path / "resolved.yaml").write_text(yaml.safe_dump(resolved))
    assert recipe.load(tmp_path / "resolved.yaml") == loaded


def test_seed_replaces_the_files(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH, seed=4))
    assert (recipe.load(path).seed, recipe.load(path, 9).seed, recipe.load(path, 0).seed) == (4, 9, 0)
    with pytest.raises(UsageError, match="(?s)-1 is out of range.*seed"):
        recipe.load(path, -1)
    with pytest.raises(UsageError, match="(?s)out of range.*seed"):
        recipe.load(path, 2**32)


def test_whole_number_serves_as_fraction(tmp_path: Path) -> None:
    clips = {"length": 4, "stride": 1, "size": [16, 16], "crop": 1}
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH, clips=clips))
    assert recipe.load(path).clips.crop == 1


def test_equal_settings_have_one_place_in_a_dictionary_whatever_they_hold() -> None:
    """Lists, dictionaries and settings within."""
    streams = [("rgb", StreamSettings(size=[8, 9])), ("flow", StreamSettings())]
    one, two = (
        {"length": 2, "stride": 1, "size": [8, 8], "streams": dict(given)} for given in (streams, streams[::-1])
    )
    clips = [ClipSpec(**given) for given in (one, two, one | {"stride": 2})]
    shown = {"rgb": [StreamSettings(view="flow", input="u")]}
    samplings = [Cluster(replacements=shown, replaced=share) for share in (0.25, 0.25, 0.5)]
    for first, same, another in (clips, samplings):
        assert first == same and {first: 1, same: 2, another: 3} == {first: 2, another: 3}


def test_a_stage_has_the_recipes_batch_or_its_own(tmp_path: Path) -> None:
    """A queue is held against its stage's."""
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH, INFONCE | {"batch": 4}, batch=5))
    loaded = recipe.load(path)
    assert [loaded.batch_of(stage) for stage in loaded.stages] == [5, 4]
    assert [stage["batch"] for stage in loaded.as_dict()["stages"]] == [0, 4]
    assert recipe.load(runs.write(tmp_path / "written.yaml", loaded.as_dict())) == loaded


def test_a_stage_has_the_recipes_precision_or_its_own(tmp_path: Path) -> None:
    stages = IN_BATCH, INFONCE | {"precision": "32-true"}
    loaded = recipe.load(runs.write(tmp_path / "recipe.yaml", runs.settings(*stages, precision="bf16-mixed")))
    assert [loaded.precision_of(stage) for stage in loaded.stages] == ["bf16-mixed", "32-true"]


def test_order_is_read(tmp_path: Path) -> None:
    order = {"balanced": True, "repeat": 2, "limit": 100, "last": "keep"}
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH, order=order))
    assert recipe.load(path).order == OrderSettings(**order)
    assert recipe.load(path).as_dict()["order"] == {"block": 0, **order}


@pytest.mark.parametrize(("flow", "channels"), [("pixels", 2), ("signed", 2), ("image", 3), ("u", 3)])
def test_inputs_of_streams_decide_the_channels_of_networks(tmp_path: Path, flow: str, channels: int) -> None:
    clips = {"length": 4, "stride": 1, "size": [16, 16], "streams": {"flow": {"input": flow}}}
    loaded = recipe.load(runs.write(tmp_path / "recipe.yaml", runs.settings(INFONCE, clips=clips)))
    [stage] = loaded.stages
    assert loaded.channels["flow"] == channels
    [network] = methods.create("infonce", stage.settings, loaded.channels).networks.values()
    assert network.in_channels == channels


def at(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of a recipe: `value` at the place that `keys` lead to."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def without(*keys: str | int) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


SETTINGS = ("stages", 0, "settings")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # a wrong key, at each level
        (at("bacth", value=4), 'unknown key "bacth".*top level.*did you mean "batch"'),
        (at("clips", "lenght", value=4), 'unknown key "lenght".*clips.*did you mean "length"'),
        (at("augmentation", "nam", value="small"), 'unknown key "nam".*augmentation.*did you mean "name"'),
        (at("augmentation", "settings", value={"strenght": 1}), 'unknown setting "strenght".*did you mean "strength"'),
        (at("clips", "corp", value=0.5), 'unknown key "corp".*clips.*did you mean "crop"'),
        (
            at("clips", "streams", value={"flow": {"imput": "u"}}),
            'unknown key "imput".*clips.streams.flow.*mean "input"',
        ),
        (
            at("clips", "streams", value={"flow": {"input": "uv"}}),
            'unknown input "uv".*clips.*streams.flow.*known: pixels',
        ),
        (at("clips", "streams", value={"flow": {"mirror": "negate"}}), 'unknown value "negate".*streams.flow.mirror'),
        (at("clips", "streams", value={"flwo": {"input": "u"}}), 'unknown view "flwo".*did you mean "flow"'),
        (at("clips", "statistics", value="ucf101"), 'unknown value "ucf101".*clips.statistics.*kinetics'),
        (at("sampling", value={"name": "randon"}), 'unknown sampling "randon".*did you mean "random"'),
        (
            at("sampling", value={"name": "blocks", "shorter": 1}),
            'unknown key "shorter".*sampling.*did you mean "short"',
        ),
        (at("stages", 1, "epoch", value=4), r'unknown key "epoch".*stages\[1\].*did you mean "epochs"'),
        (at(*SETTINGS, "steam", value="rgb"), r'unknown key "steam".*stages\[0\].settings.*mean "stream"'),
        (at(*SETTINGS, "optimiser", "lrr", value=1), r'unknown key "lrr".*stages\[0\].*optimiser.*mean "lr"'),
        (
            at(*SETTINGS, "backbone_settings", "widht", value=1),
            r'unknown key "widht".*stages\[0\].*backbone "small".*mean "width"',
        ),
        (at(True, value=4), 'unknown key "True"'),
        # a wrong name
        (at("augmentation", "name", value="smal"), 'unknown augmentation "smal".*augmentation.*did you mean "small"'),
        (at("stages", 0, "method", value="infonse"), r'unknown method "infonse".*stages\[0\].*did you mean "infonce"'),
        (at(*SETTINGS, "backbone", value="smal"), r'unknown backbone "smal".*stages\[0\].*did you mean "small"'),
        (at(*SETTINGS, "stream", value="rbg"), r'unknown stream "rbg".*stages\[0\].*did you mean "rgb"'),
        (at("precision", value="bf16_mixed"), 'unknown value "bf16_mixed".*precision.*did you mean "bf16-mixed"'),
        (
            at("keep_best", value={"metric": "loss", "mode": "mim"}),
            'unknown value "mim".*keep_best.mode.*did you mean "min"',
        ),
        (at("splits", value=["train", "tets"]), 'unknown split "tets".*splits.*did you mean "test"'),
        (at("order", value={"blocks": 4}), 'unknown key "blocks".*order.*did you mean "block"'),
        (at("order", value={"last": "kept"}), 'unknown value "kept".*order.last.*did you mean "keep"'),
        (at("order", value={"repeat": 0}), "0 is out of range.*order.repeat"),
        (at("order", value={"balanced": True, "block": 4}), "balanced takes each batch.*order.balanced, block"),
        (at("sampling", value={"short": "skip"}), 'unknown value "skip".*sampling.short.*known: pad, drop'),
        (at("layer", value="heads"), 'unknown layer "heads".*layer.*known: backbone, head'),
        (at("layer", value="context"), 'unknown layer "context".*layer.*known: backbone, head'),
        (at(*SETTINGS, "backbone", value="s3d"), "4x16x16.*too small for the backbone s3d.*clips.*at least 5x17x17"),
        (at(*SETTINGS, "aggregation", value="gnu"), 'unknown aggregation "gnu".*did you mean "gru"'),
        (at(*SETTINGS, "aggregation", value="gru"), "clips of 4 frames are no whole number of blocks of 5.*clips"),
        (at(*SETTINGS, "aggregation_settings", value={"hidden": 4}), "settings of an aggregation without one"),
        (at(*SETTINGS, "head_settings", value={"hidden": 4}), 'unknown key "hidden"'),
        # something missing
        (without("title"), "title is missing.*top level"),
        (without("clips", "stride"), "stride is missing.*clips"),
        (without("stages", 1, "name"), r"name is missing.*stages\[1\]"),
        (without("stages"), "stages is missing"),
        (without(*SETTINGS, "stream"), r"stream is missing.*stages\[0\].settings"),
        # another type
        (at("batch", value="4"), "'4' is not a whole number.*batch"),
        (at("batch", value=4.0), "4.0 is not a whole number.*batch"),
        (at("batch", value=True), "True is not a whole number.*batch"),
        (at("batch", value=None), "None is not a whole number.*batch"),
        (at("seed", value=False), "False is not a whole number.*seed"),
        (at("order", value={"balanced": 1}), "1 is not true or false.*order.balanced"),
        (at("order", value={"repeat": True}), "True is not a whole number.*order.repeat"),
        (at("title", value=["a"]), "is not text.*title"),
        (at("title", value=True), "True is not text.*title"),
        (at("clips", value=[4, 1]), "is not a mapping.*clips"),
        (at("clips", "length", value="4 frames"), "'4 frames' is not a whole number.*clips.length"),
        (at("clips", "size", value=16), "16 is not a list.*clips.size"),
        (at("clips", "size", value=[16]), "is not a list of that length.*clips.size"),
        (at("clips", "size", value=[16, "16"]), "'16' is not a whole number.*clips.size"),
        (at("splits", value="train"), "'train' is not a list.*splits"),
        (at("splits", value=[1]), r"1 is not text.*splits\[0\]"),
        (at("stages", value={}), "is not a list.*stages"),
        (at("stages", 0, value="infonce"), r"'infonce' is not a mapping.*stages\[0\]"),
        (at("stages", 0, "settings", value=None), r"None is not a mapping.*stages\[0\].settings"),
        (at(*SETTINGS, 7, value=1), r'unknown key "7".*stages\[0\].settings'),
        (at("stages", 0, "steps", value=True), r"True is not a whole number.*stages\[0\].steps"),
        (at("sync_batchnorm", value="yes"), "'yes' is not true or false.*sync_batchnorm"),
        (at("sync_batchnorm", value=1), "1 is not true or false.*sync_batchnorm"),
        (at("clip_gradients", value=True), "True is not a number.*clip_gradients"),
        (at("clips", "crop", value=True), "True is not a number.*clips.crop"),
        (at(*SETTINGS, "queue", value=True), r"True is not a whole number.*stages\[0\].settings.queue"),
        (at(*SETTINGS, "temperature", value=True), r"True is not a number.*stages\[0\].settings.temperature"),
        (at(*SETTINGS, "optimiser", value="adam"), r"'adam' is not a mapping.*stages\[0\].settings.optimiser"),
        # out of range
        (at("batch", value=0), "0 is out of range.*batch"),
        (at("seed", value=-1), "-1 is out of range.*seed"),
        (at("clips", "stride", value=0), "0 is out of range.*clips.stride"),
        (at("clips", "size", value=[16, 0]), "0 is out of range.*clips.size"),
        (at("checkpoint_every", value=0), "0 is out of range.*checkpoint_every"),
        (at("log_every", value=-5), "-5 is out of range.*log_every"),
        (at("accumulate", value=0), "0 is out of range.*accumulate"),
        (at("keep_every", value=-1), "-1 is out of range.*keep_every"),
        (at("clip_gradients", value=-0.1), "-0.1 is out of range.*clip_gradients"),
        (at("augmentation", "settings", value={"flip": 2}), "2 is out of range.*augmentation: flip"),
        (at("clips", "crop", value=1.5), "1.5 is out of range.*clips.crop"),
        (at("clips", "crop", value="hole"), "'hole' is text.*clips.crop"),
        (at("stages", 0, "steps", value=-8), r"-8 is out of range.*stages\[0\].steps"),
        (at(*SETTINGS, "temperature", value=0), r"0 is out of range.*stages\[0\].settings.temperature"),
        # said elsewhere
        (at(*SETTINGS, "channels", value={"rgb": 1}), r'unknown key "channels".*stages\[0\].settings'),
        # what does not go together
        (
            lambda content: content.update(accumulate=2, order={"last": "keep"}),
            "no place for a smaller one.*order.last.*accumulate: 1",
        ),
        (at("keep_best", value={"metric": "loss"}), "metric and mode go together.*keep_best"),
        (at("keep_best", value={"mode": "min"}), "metric and mode go together.*keep_best"),
        (at("stages", 0, "epochs", value=1), r"either epochs or steps.*stages\[0\]"),
        (without("stages", 0, "steps"), r"either epochs or steps.*stages\[0\]"),
        (at("stages", 1, "batch", value=-2), r"-2 is out of range.*stages\[1\].batch"),
        (at("stages", 1, "batch", value="4"), r"'4' is not a whole number.*stages\[1\].batch"),
        (at("stages", 1, "batch", value=3), r"queue of 8 keys.*batch of 3.*stages\[1\].settings"),
        (at("stages", 0, "batch", value=1), r"at least two videos in a batch.*stages\[0\].settings"),
        (at("stages", value=[]), "a recipe needs stages.*stages"),
        (at("stages", 1, "name", value="pixels"), r"a name of its own.*stages.*\['pixels', 'pixels'\]"),
        (at(*SETTINGS, "queue", value=6), r"queue of 6 keys.*batch of 4.*stages\[0\].settings"),
        (at("batch", value=1), r"at least two videos in a batch.*stages\[0\].settings"),
    ],
)
def test_what_cannot_be_meant_fails(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    content = runs.settings(IN_BATCH, INFONCE)
    change(content)
    path = runs.write(tmp_path / "my recipe.yaml", content)
    with pytest.raises(UsageError, match=f"(?s){message}") as refusal:
        recipe.load(path)
    assert str(path) in refusal.value.where
    assert refusal.value.remedy


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/a", "a\\b", "a b", "ä", "a.b", "recipe.yaml", "features", "a\n"]
)
def test_names_of_stages_that_are_no_plain_folders_fail(tmp_path: Path, name: str) -> None:
    path = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"name": name}))
    with pytest.raises(UsageError, match=r"(?s)cannot be the name.*stages\[0\].name"):
        recipe.load(path)


def test_exponent_without_a_point_is_explained(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text."""
    path = tmp_path / "recipe.yaml"
    text = yaml.safe_dump(runs.settings(IN_BATCH))
    assert "lr: 0.003" in text
    path.write_text(text.replace("lr: 0.003", "lr: 3e-3"))
    with pytest.raises(UsageError, match=r"(?s)'3e-3' is text.*stages\[0\].settings.optimiser.lr.*write 1.0e-3"):
        recipe.load(path)
    path.write_text(text.replace("lr: 0.003", "lr: 3.0e-3"))
    assert recipe.load(path).stages[0].settings.optimiser.lr == 0.003


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a\ntitle: b\n", "'title' is given twice"),
        ("title: a\nclips: {length: 4, stride: 1, length: 8}\n", "'length' is given twice"),
        ("title: [a\n", "the recipe cannot be read"),
        ("title: !!python/object/apply:os.getcwd []\n", "the recipe cannot be read"),
        ("- title\n", "is not a mapping.*top level"),
        ("", "None is not a mapping.*top level"),
    ],
)
def test_files_that_are_no_recipes_fail(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"(?s){message}") as refusal:
        recipe.load(path)
    assert str(path) in refusal.value.where


def test_bytes_that_are_no_text_fail(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"title: \xff\xfe")
    with pytest.raises(UsageError, match="the recipe cannot be read"):
        recipe.load(tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="the recipe cannot be read"):
        recipe.load(tmp_path)


def test_merged_mappings_may_be_overridden(tmp_path: Path) -> None:
    content = yaml.safe_dump(runs.settings(IN_BATCH))
    path = tmp_path / "recipe.yaml"
    path.write_text(content.replace("clips:\n", "clips:\n  <<: {length: 9}\n"))
    assert recipe.load(path).clips.length == 4


def test_recipes_are_found_by_name_or_path(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "mine.yaml", runs.settings(IN_BATCH))
    assert recipe.find(str(path), "infonce") == path
    assert recipe.find("small", "infonce") == FOLDER / "small" / "infonce.yaml"
    with pytest.raises(UsageError, match="(?s)no such recipe.*nobody.yaml"):
        recipe.find(str(tmp_path / "nobody.yaml"), "infonce")
    with pytest.raises(Refusal, match='(?s)unknown recipe "smal".*did you mean "small"'):
        recipe.find("smal", "infonce")
    with pytest.raises(UsageError, match='(?s)unknown method in recipe small "infonse".*did you mean "infonce"'):
        recipe.find("small", "infonse")


def test_recipe_is_read_only() -> None:
    loaded: Recipe = recipe.load(FOLDER / "small" / "infonce.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        loaded.batch = 8  # type: ignore[misc]
