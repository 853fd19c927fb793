"""Classification by labels: what learns and what stays, at which rates, and that it finds what there is to find."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import pytest
import torch

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, annotation, open_store
from pipeline.store.annotation import AnnotationSet, Said
from tests.train import batches, runs
from tests.train.steps import CHANNELS, Views, fit
from tests.train.stores import write_frames
from train import checkpoints, methods, recipe, stages
from train.backbones import BACKBONES
from train.methods.classify import Classify, ClassifySettings
from train.networks.dropout import Dropout

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*num_workers", "ignore:.*log_every_n_steps", "ignore:Found .* in eval mode"
)

NETWORK = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}}
STAGE = {
    "name": "classes",
    "method": "classify",
    "steps": 8,
    "settings": NETWORK | {"head_settings": {"dropout": 0.5}, "optimiser": {"name": "adamw", "lr": 0.02}},
}
WATCHED = {"held_out": {"every": 3, "share": 0.25}, "keep_best": {"metric": "held_out_top1", "mode": "max"}}


def classifier(**settings: Any) -> Classify:
    torch.manual_seed(0)
    return methods.create("classify", NETWORK | {"classes": ["a", "b", "c"]} | settings, CHANNELS)


def given(count: int = 3) -> list[Views]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(count, 6, 3, 2, 12, 12, generator=generator)
    return [Views([step], labels=torch.tensor([0, 1, 2, 0, 1, 2])) for step in clips]


def state(method: Classify) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def test_the_loss_is_the_cross_entropy_of_a_plain_loop() -> None:
    method, (batch,) = classifier(), given(1)
    with torch.no_grad():
        found = method.training_step(batch, 0)
        logits = method.logits(batch.view("rgb", 0)).double()
    wanted = [float(-row.log_softmax(0)[label]) for row, label in zip(logits, batch.labels, strict=True)]
    assert float(found["loss"]) == pytest.approx(sum(wanted) / 6, rel=1e-5)
    right = [int(row.argmax()) == int(label) for row, label in zip(logits, batch.labels, strict=True)]
    assert float(found["class_top1"]) == pytest.approx(sum(right) / 6)


def test_of_a_frozen_network_the_head_alone_learns(tmp_path: Path) -> None:
    probe = classifier(frozen=True, head_settings={"unit_input": True, "batch_norm": True})
    before = state(probe)
    recorder = fit(probe, given(), tmp_path)
    after = state(probe)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"network.head.{name}"
        for name in ("linear.weight", "linear.bias", "batch_norm.weight", "batch_norm.bias", "batch_norm.running_mean")
    } | {"network.head.batch_norm.running_var", "network.head.batch_norm.num_batches_tracked"}
    assert all(name.startswith("network.head.") for name in recorder.gradients[0])


def test_one_that_is_not_frozen_learns_in_all_parts(tmp_path: Path) -> None:
    method = classifier()
    before = state(method)
    fit(method, given(), tmp_path)
    assert all(not torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


@pytest.mark.parametrize("schedule", [{}, {"schedule": "one_cycle"}, {"schedule": "cosine", "final_lr": 0.001}])
def test_parts_learn_at_rates_of_their_own(schedule: dict[str, Any], tmp_path: Path) -> None:
    settings = {"optimiser": {"name": "sgd", "lr": 0.1} | schedule}
    slow, seen = classifier(rates={"backbone": 0.1}, **settings), []
    slow.on_train_batch_start = lambda *_: seen.append(
        [group["lr"] for group in slow.trainer.optimizers[0].param_groups]
    )
    fit(slow, given(4), tmp_path)
    for head, backbone in seen:
        assert backbone == pytest.approx(0.1 * head, rel=1e-9)
    same = classifier(**settings)
    alone = fit(same, given(4), tmp_path)
    assert [head for head, _ in seen] == pytest.approx(alone.learning_rates)


def test_a_part_whose_rate_is_nothing_keeps_its_weights_and_lives_on(tmp_path: Path) -> None:
    method = classifier(rates={"backbone": 0.0})
    weights = {name: tensor.clone() for name, tensor in method.network.backbone.named_parameters()}
    statistics = method.network.backbone.layers[1].running_mean.clone()
    fit(method, given(), tmp_path)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in method.network.backbone.named_parameters())
    assert not torch.equal(method.network.backbone.layers[1].running_mean, statistics)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": {"aggregation": 0.1}}, "no part 'aggregation'"),
        ({"rates": {"backbone": 0.1}, "frozen": True}, "rates of a network that is frozen"),
        ({"classes": ["a", "a"]}, "named twice"),
        ({"head": "coclr"}, 'unknown value "coclr"'),
    ],
)
def test_settings_that_cannot_be_meant_fail(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        classifier(**settings)


def test_the_number_of_logits_is_that_of_the_classes() -> None:
    settings = ClassifySettings(stream="rgb").of_classes(["walk", "run"])
    assert (settings.dim, settings.classes) == (2, ["walk", "run"])
    assert settings.of_classes(["other", "names", "now"]) is settings  # those that are said stay


def test_dropped_numbers_do_not_depend_on_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.rand(8, 5) + 1
    torch.manual_seed(4)
    whole = Dropout(0.5)(rows)
    assert set((whole / rows).flatten().tolist()) == {0.0, 2.0}
    monkeypatch.setattr("train.networks.dropout.world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(4)
        parts.append(Dropout(0.5)(rows[4 * rank : 4 * rank + 4]))
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(Dropout(0.5).eval()(rows), rows) and not Dropout(1.0)(rows).any()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """24 videos of three classes, which are three colours, in noise."""
    rng, videos = np.random.default_rng(0), {}
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    for number in range(24):
        rgb = np.clip(colours[number % 3] + rng.normal(0, 25, (6, 20, 24, 3)), 0, 255).astype(np.uint8)
        videos[f"v{number:02}"] = (rgb, rng.integers(0, 255, (5, 2, 12, 16), dtype=np.uint8))
    root = write_frames(tmp_path_factory.mktemp("planted") / "store", videos, chroma="4:4:4").root
    said(root, "extraction", [number % 3 for number in range(24)])
    return open_store(root, "extraction")


def said(root: Path, name: str, labels: list[int | None]) -> None:
    """Labels of its videos in their order; None: without."""
    rows = {
        f"v{number:02}": Said("" if label is None else f"class {label}", split="train")
        for number, label in enumerate(labels)
    }
    annotation.save(root, name, AnnotationSet([f"class {label}" for label in range(3)], rows))


def trained(store: VideoStore, folder: Path, stage: dict[str, Any] = STAGE, **changes: Any) -> recipe.Recipe:
    plain = {"augmentation": {"name": "classify", "settings": {"jitter": 0.0}}}
    loaded = runs.load(folder / "recipe.yaml", stage, **(plain | WATCHED | changes)).of_classes(store.classes)
    runs.run(loaded, store, folder / "run")
    return loaded


@pytest.mark.parametrize("frozen", [False, True], ids=["fine-tuning", "probe"])
def test_a_planted_signal_is_found_and_a_shuffled_label_is_not(
    planted: VideoStore, tmp_path: Path, frozen: bool
) -> None:
    head = {"unit_input": True, "batch_norm": True} if frozen else {}
    settings = NETWORK | {"frozen": frozen, "head_settings": head, "optimiser": {"name": "sgd", "lr": 0.05}}
    stage = STAGE | {"steps": 30, "settings": settings}
    more = {"batch": 8, "held_out": {"every": 10, "share": 0.35}, "keep_best": {"metric": "", "mode": ""}}
    shuffled = np.random.default_rng(3).permutation([number % 3 for number in range(24)])
    said(planted.root, "shuffled", shuffled.tolist())
    found = []
    for name in ("extraction", "shuffled"):
        folder = tmp_path / name
        folder.mkdir()
        trained(open_store(planted.root, name), folder, stage, **more)
        found.append(runs.lines(folder / "run", "classes")[-1]["held_out_top1"])
    assert found[0] == 1.0 and found[1] <= 0.7, found
    method = checkpoints.load_method(runs.last(tmp_path / "extraction" / "run", STAGE))
    counted = {int(t) for name, t in method.state_dict().items() if "backbone" in name and name.endswith("tracked")}
    assert counted == ({0} if frozen else {30})  # what is frozen saw no batch in training mode


def test_videos_without_a_class_are_left_out(planted: VideoStore) -> None:
    said(planted.root, "half", [number % 3 if number % 2 else None for number in range(24)])
    store = open_store(planted.root, "half")
    found = batches.training_set(store, needs_labels=True)
    assert (len(found), found.unlabelled) == (12, 12)
    assert found.told_of_unlabelled() == "12 of 24 videos have no class to learn, and are left out"
    assert len(batches.training_set(store)) == 24


def test_videos_of_which_none_has_a_class_fail(planted: VideoStore) -> None:
    said(planted.root, "none", [None] * 24)
    with pytest.raises(Refusal, match="(?s)none of 24 videos has a class to learn.*make annotate"):
        batches.training_set(open_store(planted.root, "none"), needs_labels=True)


@pytest.fixture(scope="module")
def undisturbed(planted: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[recipe.Recipe, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return trained(planted, folder), folder / "run"


@pytest.mark.parametrize("stops", [(1, 3), (4, 5, 7)], ids=str)
def test_a_stopped_fine_tuning_continues_bit_for_bit(
    undisturbed: tuple[recipe.Recipe, Path], planted: VideoStore, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    loaded, whole = undisturbed
    for done in stops:
        with runs.signalled(done - 1, signal.SIGTERM, also=(Classify,)), pytest.raises(stages.Stopped):
            runs.run(loaded, planted, tmp_path / "run")
    runs.run(loaded, planted, tmp_path / "run")
    runs.assert_same_runs(whole, tmp_path / "run", "classes")
    best = [
        torch.load(run / "classes" / "checkpoints" / "best.ckpt", weights_only=True)
        for run in (whole, tmp_path / "run")
    ]
    assert runs.flatten(best[0]) == runs.flatten(best[1])


def test_the_best_checkpoint_is_that_of_the_held_out_videos(undisturbed: tuple[recipe.Recipe, Path]) -> None:
    _, run = undisturbed
    lines = [line for line in runs.lines(run, "classes") if "held_out_top1" in line]
    assert [line["step"] for line in lines] == [3, 6, 8]
    best = max(lines, key=lambda line: (line["held_out_top1"], -line["step"]))
    assert checkpoints.metadata(run / "classes" / "checkpoints" / "best.ckpt")["step"] == best["step"]
    assert all(line["held_out_cross_entropy"] > 0 for line in lines)


def test_held_out_classes_of_a_recipe_that_learns_none_fail(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stage of the recipe classifies"):
        runs.load(tmp_path / "recipe.yaml", runs.IN_BATCH, held_out={"every": 2})


def test_a_plain_backbone_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES.entries, "plain", "tests.train.runs:Plain")
    assert classifier(backbone="plain", backbone_settings={}).network.size("head") == 3
