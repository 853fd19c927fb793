"""Schedules that follow the step, and LARC, as a recipe chooses them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from pipeline.errors import UsageError
from tests.train.steps import Recorder, Views, fit
from train.optim import LARC, ByStep, OptimiserSettings, configured, cosine, make_optimiser, one_cycle
from train.settings import read

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*log_every_n_steps")


class Line(LightningModule):
    """One weight."""

    def __init__(self, more_steps: tuple[int, ...] = (), **settings: Any) -> None:
        super().__init__()
        self.more_steps = more_steps
        self.settings = read(OptimiserSettings, settings, "optimiser")
        self.weight = nn.Parameter(torch.ones(2))

    def training_step(self, batch: Views, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": self.weight.pow(2).sum()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return configured(self.settings, self.parameters(), self.trainer, self.more_steps)


def batches(count: int) -> list[Views]:
    return [Views([torch.zeros(1)]) for _ in range(count)]


def trained(folder: Path, settings: dict[str, Any], per_epoch: int, **trainer: Any) -> Recorder:
    return fit(Line(**settings), batches(per_epoch), folder, **trainer)


WARM = {"name": "larc", "lr": 0.6, "schedule": "cosine", "warm_up": 2, "warm_up_from": 0.3, "final_lr": 0.0006}


def test_larc_has_the_momentum_of_sgd() -> None:
    made = make_optimiser(OptimiserSettings(name="larc", lr=0.6, weight_decay=1e-6), [nn.Parameter(torch.ones(2))])
    assert isinstance(made, LARC)
    expected = {"lr": 0.6, "momentum": 0.9, "weight_decay": 1e-6, "trust_coefficient": 1e-3, "clip": False}
    assert made.defaults == expected


def test_without_a_warm_up_the_rate_falls_from_the_first_step_and_ends_above_the_last() -> None:
    settings = OptimiserSettings(lr=0.6, schedule="cosine", final_lr=0.1)
    rates = [cosine(settings, step, 10, 0) for step in range(11)]
    assert rates[0] == 0.6
    assert rates[5] == pytest.approx(0.35)
    assert rates[10] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("start", [0.0, 0.3, 0.9])
def test_a_warm_up_is_a_line_to_the_full_rate(start: float) -> None:
    """Which is held for one step more. It may fall."""
    settings = OptimiserSettings(lr=0.6, schedule="cosine", warm_up=1, warm_up_from=start)
    rates = [cosine(settings, step, 12, 4) for step in range(12)]
    assert rates[:5] == pytest.approx([start, start + (0.6 - start) / 3, start + (0.6 - start) * 2 / 3, 0.6, 0.6])
    assert rates[5] < 0.6
    assert cosine(settings, 0, 2, 1) == start  # of a single step


@pytest.mark.parametrize(("accumulate", "per_epoch"), [(1, 3), (2, 3), (1, 2)])
def test_training_follows_it_step_by_step(tmp_path: Path, accumulate: int, per_epoch: int) -> None:
    """As stages train: up to a number of steps, which need not be whole epochs."""
    settings = {"max_epochs": -1, "max_steps": 11, "accumulate_grad_batches": accumulate}
    recorder = trained(tmp_path, WARM, per_epoch * accumulate, **settings)
    expected = [cosine(OptimiserSettings(**WARM), step, 11, 2 * per_epoch) for step in range(11)]
    assert recorder.learning_rates == pytest.approx(expected, rel=1e-12)


def test_training_by_epochs_follows_it_too(tmp_path: Path) -> None:
    recorder = trained(tmp_path, WARM, 3, max_epochs=4, max_steps=-1)
    assert recorder.learning_rates == pytest.approx([cosine(OptimiserSettings(**WARM), i, 12, 6) for i in range(12)])


class Stop(Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
@pytest.mark.parametrize("stopped", [1, 4, 8], ids=["in the first epoch", "in the warm-up", "after it"])
def test_a_resumed_run_goes_on_with_it(tmp_path: Path, stopped: int) -> None:
    recorder, loader = Recorder(), DataLoader(batches(3), batch_size=None)
    quiet = dict.fromkeys("logger enable_checkpointing enable_progress_bar enable_model_summary".split(), False)
    for stop, path in ((stopped, None), (12, tmp_path / "half.ckpt")):
        callbacks = [recorder, Stop(stop)]
        trainer = Trainer(accelerator="cpu", max_epochs=-1, max_steps=12, callbacks=callbacks, **quiet)
        trainer.fit(Line(**WARM), loader, ckpt_path=path)
        trainer.save_checkpoint(tmp_path / "half.ckpt")
    assert recorder.learning_rates == pytest.approx(
        [cosine(OptimiserSettings(**WARM), step, 12, 6) for step in range(12)]
    )


@pytest.mark.remedy("a shorter warm-up, or a longer run")
@pytest.mark.parametrize("steps", [1, 6])
def test_a_warm_up_as_long_as_the_run_fails(tmp_path: Path, steps: int) -> None:
    with pytest.raises(UsageError, match=rf"(?s)2 epochs does not end within {steps} steps.*optimiser.warm_up"):
        trained(tmp_path, WARM, 3, max_epochs=-1, max_steps=steps)
    for warm_up, longer in ((1, max(steps, 4)), (2, 7)):
        trained(tmp_path, WARM | {"warm_up": warm_up}, 3, max_epochs=-1, max_steps=longer)


@pytest.mark.remedy("give the number of epochs or steps")
def test_a_run_without_an_end_fails(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="(?s)cosine schedule on a run without an end.*optimiser.schedule"):
        trained(tmp_path, {"schedule": "cosine"}, 3, max_epochs=-1, max_steps=-1)
    for epochs, steps in ((1, -1), (-1, 2)):
        trained(tmp_path, {"schedule": "cosine"}, 3, max_epochs=epochs, max_steps=steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_up": 0.5}, "(?s)whole number.*optimiser: warm_up"),
        ({"warm_up": -1}, "(?s)out of range.*optimiser: warm_up"),
        ({"warm_up_from": -0.1}, "(?s)out of range.*optimiser: warm_up_from"),
        ({"warm_up_from": "1e-3"}, "(?s)text.*optimiser: warm_up_from"),
        ({"final_lr": math.nan}, "(?s)finite number"),
        ({"final_lr": 0.7}, "(?s)0.7 is out of range.*optimiser: final_lr.*at most 0.6"),
        ({"warm_up": 0}, "(?s)without a warm-up.*optimiser: warm_up_from"),
        ({"schedule": "constant"}, '(?s)schedule "constant" with warm_up 2.*optimiser: warm_up.*"cosine"'),
        ({"schedule": "one_cycle", "warm_up": 0}, '(?s)"one_cycle" with warm_up_from 0.3.*optimiser: warm_up_from'),
        ({"schedule": "one_cycle", "warm_up": 0, "warm_up_from": 0.0}, "(?s)with final_lr 0.0006.*optimiser: final_lr"),
        ({"schedule": "constant", "warm_up": 0, "warm_up_from": 0.0, "final_lr": 0.0, "horizon": 9}, "with horizon 9"),
        ({"name": "adam", "momentum": 0.5}, "(?s)adam with momentum 0.5.*optimiser: momentum"),
        ({"momentum": 1.0}, "(?s)1.0 is out of range.*optimiser: momentum.*less than 1"),
        ({"schedule": "cosin"}, '(?s)unknown value "cosin".*"cosine"'),
        ({"name": "lars"}, '(?s)unknown value "lars".*"larc"'),
    ],
)
def test_settings_that_cannot_be_meant_fail(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(OptimiserSettings, WARM | changes, "optimiser")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_cycle_is_torchs_and_every_prolongation_has_one_of_its_own(tmp_path: Path, name: str) -> None:
    settings = {"name": name, "lr": 0.6, "schedule": "one_cycle"}
    rates, momenta = [], []
    for length in (7, 20):
        optimiser = make_optimiser(OptimiserSettings(name=name, lr=0.6), [nn.Parameter(torch.ones(2))])  # type: ignore[arg-type]
        reference = OneCycleLR(optimiser, 0.6, total_steps=length + 1, pct_start=0.15)
        for _ in range(length):
            group = optimiser.param_groups[0]
            rates.append(group["lr"])
            momenta.append(group["betas"][0] if name == "adamw" else group["momentum"])
            optimiser.step()
            reference.step()
    assert [one_cycle(0.6, step, 7)[1] for step in range(7)] == momenta[:7]
    assert trained(tmp_path, settings | {"more_steps": (20,)}, 3, max_steps=27).learning_rates == rates
    group = make_optimiser(OptimiserSettings(**settings), [nn.Parameter(torch.ones(2))])
    schedule = ByStep(group, lambda own, step: one_cycle(own, step, 7))
    schedule.last_epoch = 3
    schedule.hold()
    found = group.param_groups[0]
    assert (found["lr"], found["betas"][0] if name == "adamw" else found["momentum"]) == (rates[3], momenta[3])


def test_a_prolonged_cosine_begins_again(tmp_path: Path) -> None:
    found = trained(tmp_path, WARM | {"more_steps": (8,)}, 3, max_steps=18).learning_rates
    settings = OptimiserSettings(**WARM)
    assert found == pytest.approx([cosine(settings, step, length, 6) for length in (10, 8) for step in range(length)])


@pytest.mark.remedy("a longer horizon, or 0 for the stage's own end")
def test_a_horizon_lies_behind_the_end(tmp_path: Path) -> None:
    """The rate falls as if training went on; with the horizon at the end it is the usual schedule."""
    longer = trained(tmp_path, WARM, 3, max_epochs=-1, max_steps=24).learning_rates
    assert trained(tmp_path, WARM | {"horizon": 8}, 3, max_epochs=-1, max_steps=12).learning_rates == longer[:12]
    usual = trained(tmp_path, WARM, 3, max_epochs=-1, max_steps=12).learning_rates
    assert (
        trained(tmp_path, WARM | {"horizon": 4}, 3, max_epochs=-1, max_steps=12).learning_rates == usual != longer[:12]
    )
    with pytest.raises(UsageError, match="(?s)schedule of 3 epochs ends before the stage, which has 12 steps.*horizon"):
        trained(tmp_path, WARM | {"horizon": 3}, 3, max_epochs=-1, max_steps=12)


def test_momentum_is_the_recipes() -> None:
    weight = [nn.Parameter(torch.ones(2))]
    for name in ("sgd", "larc"):
        made = make_optimiser(OptimiserSettings(name=name, momentum=0.5), weight)
        assert made.defaults["momentum"] == 0.5
