"""A loss, gradient or weight that is not finite ends a run by name; the last checkpoint from before stays."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from pipeline.store import VideoStore
from tests.patience import PATIENCE
from tests.train import runs
from tests.train.runs import IN_BATCH, last
from train import checkpoints
from train.callbacks.divergence import Diverged, Divergence
from train.callbacks.metrics import Metrics
from train.methods.infonce import InfoNCE

ROOT = Path(__file__).resolve().parents[2]
NAN = float("nan")
OTHER_WAYS = (("32-true", 2), ("bf16-mixed", 1))


@contextmanager
def planted(spoil: Callable[[InfoNCE, dict[str, Tensor]], None], step: int, batch_idx: int = -1) -> Iterator[None]:
    """What the passes of a step (from 1), or one pass of it, come to is spoilt."""
    usual = InfoNCE.training_step

    def training_step(method: InfoNCE, batch: Any, number: int) -> dict[str, Tensor]:
        values = usual(method, batch, number)
        if method.global_step == step - 1 and batch_idx in (-1, number):
            spoil(method, values)
        return values

    with mock.patch.object(InfoNCE, "training_step", training_step):
        yield


def spoil_loss(method: InfoNCE, values: dict[str, Tensor]) -> None:
    values["loss"] = values["loss"] * NAN


def spoil_gradient(method: InfoNCE, values: dict[str, Tensor]) -> None:
    values["loss"].register_hook(lambda gradient: gradient * math.inf)


def spoil_statistics(method: InfoNCE, values: dict[str, Tensor]) -> None:
    """Training does not look at them, evaluation does."""
    [first, *_] = [part for part in method.modules() if isinstance(part, nn.BatchNorm3d)]
    first.running_var = torch.full((first.num_features,), math.inf)


def spoil_scale(method: InfoNCE, values: dict[str, Tensor]) -> None:
    values["loss"].register_hook(lambda gradient: gradient * 1e18)


def spoil_half(method: InfoNCE, values: dict[str, Tensor]) -> None:
    if torch.is_autocast_enabled("cpu"):
        spoil_loss(method, values)


@pytest.fixture(scope="module")
def whole(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A recipe, and the undisturbed run of it."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = runs.load(folder / "recipe.yaml", IN_BATCH, log_every=3, checkpoint_every=2)
    runs.run(recipe, store, folder / "run")
    return recipe, folder / "run"


def diverged(recipe: Any, store: VideoStore, folder: Path) -> Diverged:
    with pytest.raises(Diverged) as ended:
        runs.run(recipe, store, folder)
    assert ended.value.exit_code == 1
    return ended.value


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_loss, "its loss is not finite"),
        (spoil_gradient, "the norm of its gradient is not finite"),
        (spoil_statistics, "the norm of its weights, statistics and queues is not finite"),
    ],
)
def test_first_step_is_named_and_the_checkpoint_before_continues(
    whole: tuple[Any, Path], store: VideoStore, tmp_path: Path, spoil: Any, said: str
) -> None:
    recipe, undisturbed = whole
    with planted(spoil, step=5):
        ended = diverged(recipe, store, tmp_path / "run")
    # Step 6 has a line and a checkpoint: weights are looked at there for the first time.
    step = 6 if spoil is spoil_statistics else 5
    assert ended.what == f"training diverged in step {step} of stage pixels: {said}"
    assert ended.where == str(tmp_path / "run" / "pixels")
    assert "lr" in ended.remedy and "temperature" in ended.remedy and "32-true" in ended.remedy
    assert str(last(tmp_path / "run")) in ended.remedy
    assert checkpoints.metadata(last(tmp_path / "run"))["step"] == 4
    assert [path.name for path in last(tmp_path / "run").parent.iterdir()] == ["last.ckpt"]
    runs.run(recipe, store, tmp_path / "run")
    runs.assert_same_runs(undisturbed, tmp_path / "run", "pixels")


@pytest.mark.remedy("a recipe with a lower learning rate (optimiser.lr), clip_gradients, a larger temperature, or")
@pytest.mark.parametrize(
    ("settings", "spoil", "wrong", "right"),
    [
        ({}, None, {"optimiser": {"lr": 1e30}}, {"optimiser": {"lr": 1e-3}}),
        ({"optimiser": {"name": "sgd", "lr": 1e3}}, spoil_scale, {}, {"clip_gradients": 1.0}),
        ({}, None, {"temperature": 1e-300}, {"temperature": 0.1}),
        ({}, spoil_half, {"precision": "bf16-mixed"}, {"precision": "32-true"}),
    ],
    ids=["lr", "clip_gradients", "temperature", "precision"],
)
def test_another_recipe_and_run_train(
    store: VideoStore, tmp_path: Path, settings: dict[str, Any], spoil: Any, wrong: Any, right: Any
) -> None:
    def recipe(changes: dict[str, Any]) -> Any:
        of_recipe = {name: changes[name] for name in ("clip_gradients", "precision") if name in changes}
        given = {key: value for key, value in changes.items() if key not in of_recipe}
        stage = IN_BATCH | {"steps": 2, "settings": IN_BATCH["settings"] | {"optimiser": {}} | settings | given}
        return runs.load(tmp_path / "recipe.yaml", stage, **of_recipe)

    with planted(spoil, step=1) if spoil else nullcontext():
        diverged(recipe(wrong), store, tmp_path / "run")
        runs.run(recipe(right), store, tmp_path / "another")


def test_no_checkpoint_of_any_name_has_what_is_not_finite(store: VideoStore, tmp_path: Path) -> None:
    """Lines every step, so that the best one and the numbered ones are due as well; no line has NaN."""
    recipe = runs.load(
        tmp_path / "recipe.yaml", IN_BATCH, keep_every=1, keep_best={"metric": "loss", "mode": "max"}, log_every=1
    )
    with planted(spoil_gradient, step=3):
        diverged(recipe, store, tmp_path / "run")
    written = {path.name: checkpoints.metadata(path)["step"] for path in last(tmp_path / "run").parent.iterdir()}
    assert written.pop("best.ckpt") <= 2
    assert written == {"step-1.ckpt": 1, "step-2.ckpt": 2, "last.ckpt": 2}
    assert [line["step"] for line in runs.lines(tmp_path / "run", "pixels")] == [1, 2]
    assert all(math.isfinite(value) for line in runs.lines(tmp_path / "run", "pixels") for value in line.values())


@pytest.mark.parametrize(
    ("precision", "accumulate"),
    [("32-true", 1), ("bf16-mixed", 2), *(pytest.param(*one, marks=pytest.mark.slow) for one in OTHER_WAYS)],
)
@pytest.mark.parametrize(
    ("change", "first"),
    [({"optimiser": {"name": "adamw", "lr": 1e30}}, "step 2"), ({"temperature": 1e-300}, "step 1")],
    ids=["lr", "temperature"],
)
def test_settings_that_cannot_work_end_the_run(
    store: VideoStore, tmp_path: Path, change: dict[str, Any], first: str, accumulate: int, precision: str
) -> None:
    stage = IN_BATCH | {"settings": IN_BATCH["settings"] | change}
    batches = {"batch": 4 // accumulate, "accumulate": accumulate, "checkpoint_every": 4, "log_every": 3}
    recipe = runs.load(tmp_path / "recipe.yaml", stage, precision=precision, **batches)
    ended = diverged(recipe, store, tmp_path / "run")
    assert ended.what == f"training diverged in {first} of stage pixels: its loss is not finite"
    assert "There is no checkpoint yet" in ended.remedy
    assert list((tmp_path / "run" / "pixels").rglob("*.*ckpt*")) == []
    assert not (tmp_path / "run" / "pixels" / "metrics.jsonl").exists()


def test_weights_that_will_not_work_are_no_checkpoint(store: VideoStore, tmp_path: Path) -> None:
    """One step at lr 1e30 leaves weights whose every loss is NaN; its own loss and gradient were finite."""
    stage = IN_BATCH | {"settings": IN_BATCH["settings"] | {"optimiser": {"name": "adamw", "lr": 1e30}}}
    recipe = runs.load(tmp_path / "recipe.yaml", stage, checkpoint_every=1)
    ended = diverged(recipe, store, tmp_path / "run")
    assert (
        ended.what
        == "training diverged in step 1 of stage pixels: the norm of its weights, statistics and queues is not finite"
    )
    assert not last(tmp_path / "run").exists()


def test_pass_in_the_middle_of_a_step_is_of_that_step(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, batch=2, accumulate=2, log_every=8, checkpoint_every=8)
    with planted(spoil_loss, step=3, batch_idx=4):
        assert diverged(recipe, store, tmp_path / "run").what.startswith("training diverged in step 3 of stage pixels")


def test_last_step_of_a_stage_ends_it_too(store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, log_every=100, checkpoint_every=100)
    with planted(spoil_loss, step=8):
        ended = diverged(recipe, store, tmp_path / "run")
    assert "in step 8" in ended.what and not last(tmp_path / "run").exists()


@pytest.mark.slow
def test_command_fails_on_all_devices_and_tells_it_once(store: VideoStore, tmp_path: Path) -> None:
    stage = IN_BATCH | {"settings": IN_BATCH["settings"] | {"temperature": 1e-300}}
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(stage, log_every=4))
    command = [sys.executable, "-m", "train", "pretrain", "--method", "infonce", "--store", str(store.root)]
    command += ["--run", str(tmp_path / "run"), "--recipe", str(recipe), "--hardware.reader", "opencv"]
    command += ["--hardware.accelerator", "cpu", "--hardware.threads", "1", "--hardware.devices", "2"]
    ended = subprocess.run(command, cwd=ROOT, timeout=PATIENCE, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert (
        ended.stderr.count("train pretrain: training diverged in step 1 of stage pixels: its loss is not finite") == 1
    )
    assert "pre-trained" not in ended.stderr and "Traceback" not in ended.stderr


def scaled(scale: float) -> Any:
    """A trainer in 16-mixed after 7 steps."""
    return SimpleNamespace(
        scaler=SimpleNamespace(get_scale=lambda: scale), global_step=7, max_steps=9, accumulate_grad_batches=1
    )


def after_a_step(scale: float, gradient: float, loss: float) -> None:
    layer = nn.Linear(1, 1)
    layer.register_parameter("seen", nn.Parameter(torch.zeros(1)))
    layer.device = torch.device("cpu")  # type: ignore[assignment]
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    watching: Callback = Divergence(Path("run") / "pixels", Metrics(Path("unused"), every=1))
    trainer: Any = scaled(scale)
    watching.on_train_start(trainer, layer)  # type: ignore[arg-type]
    watching.on_before_optimizer_step(trainer, layer, None)  # type: ignore[arg-type]
    watching.on_train_batch_end(trainer, layer, {"loss": torch.tensor(loss)}, None, 0)  # type: ignore[arg-type]


def test_scaled_gradients_may_overflow() -> None:
    """The scaler leaves such a step out and halves its scale; it does not help a loss, nor without an end."""
    after_a_step(scale=65536.0, gradient=math.inf, loss=2.0)
    with pytest.raises(Diverged, match="in step 7 of stage pixels: its loss is not finite"):
        after_a_step(scale=65536.0, gradient=math.inf, loss=math.inf)
    with pytest.raises(Diverged, match="in step 7 of stage pixels: its gradients are not finite at any scale"):
        after_a_step(scale=2.0**-14, gradient=math.inf, loss=2.0)
