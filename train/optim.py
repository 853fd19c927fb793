"""Optimisers and learning-rate schedules, chosen by a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from pipeline.errors import UsageError
from train.larc import LARC
from train.settings import Settings, cannot_be

OptimiserName = Literal["adam", "adamw", "sgd", "larc"]
Schedule = Literal["constant", "step", "one_cycle", "cosine", "plateau"]

SGD_MOMENTUM = 0.9
RATE = "rate"  # of a group of parameters: what its learning rate is multiplied by
STEP_FACTOR = 0.1  # at every milestone, and where a loss has come to a plateau
ONE_CYCLE_RISE = 0.15  # share of the steps on which the learning rate rises (specs of the small recipes)
ONE_CYCLE_FROM, ONE_CYCLE_TO = 1 / 25, 1e-4  # where it begins, of the highest one, and ends, of that where it began
ONE_CYCLE_MOMENTUM = 0.95, 0.85  # at both ends, and where the learning rate is highest
# What becomes of a stage's learning rate in the steps by which it is prolonged.
PROLONGED: dict[Schedule, str] = {
    "constant": "the learning rate stays as it is",
    "step": "the learning rate falls at the milestones that are still to come",
    "plateau": "the learning rate follows the loss of held-out videos on",
    "one_cycle": "the learning rate goes through a cycle of their own",
    "cosine": "the learning rate goes through its schedule again, over these steps, warm-up included",
}
ON_TO_HORIZON = "the learning rate goes on towards its horizon"

OF_SCHEDULES = {
    "warm_up": ("cosine",),
    "warm_up_from": ("cosine",),
    "horizon": ("cosine",),
    "final_lr": ("cosine", "plateau"),
}


class OptimiserSettings(Settings):
    """What a recipe may say under `optimiser`. The defaults are CoCLR's first 250 epochs of InfoNCE.

    Args:
        name: "adam" (weight decay coupled, as an L2 term), "adamw" (decoupled), "sgd" (coupled) or "larc"
            (sgd with a rate of each tensor's own, trust coefficient 0.001, without clipping: ViCC and GOCA).
        lr: learning rate; the highest one of a one-cycle schedule. It is not scaled with the batch.
        momentum: of "sgd" and "larc".
        weight_decay: on all weights, biases and batch norm included.
        schedule: "constant"; "step": x 0.1 at each of `milestones`; "one_cycle": cosine up for 15 % of all steps from
            lr / 25, then cosine down to nothing, with the momentum going the other way; "cosine": cosine down to
            `final_lr`, step by step, after a linear warm-up; "plateau": x 0.1, but not below `final_lr`, where the loss
            of held-out videos has not become lower for more than `patience` epochs (`train.between_epochs.Plateau`).
        milestones: epochs at whose start the "step" schedule drops.
        warm_up: epochs that the "cosine" schedule takes, at its start, from `warm_up_from` to lr; up or down.
        warm_up_from: learning rate of the first step of a warm-up.
        horizon: epochs after which the "cosine" schedule comes to its end, warm-up included, of a stage that ends
            before (ViCC: 500, of which 300 were used); 0: the stage's own end.
        patience: epochs without a lower loss that the "plateau" schedule waits for.
        final_lr: learning rate at the end of a "cosine" schedule, whose last step is a little above; the lowest one of
            a "plateau" schedule.
    """

    name: OptimiserName = "adam"
    lr: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=SGD_MOMENTUM, ge=0, lt=1)
    weight_decay: float = Field(default=1e-5, ge=0)
    schedule: Schedule = "constant"
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = ()
    warm_up: int = Field(default=0, ge=0)
    warm_up_from: float = Field(default=0.0, ge=0)
    horizon: int = Field(default=0, ge=0)
    patience: int = Field(default=10, ge=0)
    final_lr: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _of_the_schedule(self) -> OptimiserSettings:
        if (self.schedule == "step") != bool(self.milestones):
            problem = f'schedule "{self.schedule}" with milestones {list(self.milestones)}'
            raise cannot_be(problem, 'milestones go with schedule "step", and with no other', "milestones")
        for key, schedules in OF_SCHEDULES.items():
            if getattr(self, key) and self.schedule not in schedules:
                problem = f'schedule "{self.schedule}" with {key} {getattr(self, key)}'
                listed = " or ".join(f'"{name}"' for name in schedules)
                raise cannot_be(problem, f"{key} goes with schedule {listed}, and with no other", key)
        if self.momentum != SGD_MOMENTUM and self.name not in ("sgd", "larc"):
            raise cannot_be(f"{self.name} with momentum {self.momentum}", "momentum goes with sgd and larc", "momentum")
        if self.final_lr > self.lr:
            raise cannot_be(f"{self.final_lr} is out of range", f"at most {self.lr:g}", "final_lr")
        if self.warm_up_from and not self.warm_up:
            raise cannot_be("a first learning rate without a warm-up", "give warm_up, in epochs", "warm_up_from")
        return self


Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]  # or groups of them, as `at_rate` makes them


def at_rate(settings: OptimiserSettings, parameters: Iterable[nn.Parameter], rate: float) -> dict[str, Any]:
    """A group of parameters whose learning rate is that of `settings`, at every step, times `rate`."""
    return {"params": list(parameters), "lr": rate * settings.lr, RATE: rate}


def make_optimiser(settings: OptimiserSettings, parameters: Parameters) -> Optimizer:
    """The optimiser of `settings` over `parameters`."""
    if settings.name == "adam":
        return Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.name == "adamw":
        return AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    kind = {"sgd": SGD, "larc": LARC}[settings.name]
    return kind(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def configured(
    settings: OptimiserSettings, parameters: Parameters, trainer: Trainer, more_steps: Sequence[int] = ()
) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns: the optimiser over `parameters` and, unless constant, its schedule.

    Args:
        trainer: knows the steps of the whole run, which "one_cycle" and "cosine" need.
        more_steps: by which a stage was prolonged, one time after the other: the last ones of the run's steps. What
            becomes of the learning rate there says `PROLONGED`.

    Raises:
        UsageError: one of these two on a run without a known end; once training has begun, a warm-up that is as long as
            the schedule, or a schedule that is shorter than the run.
    """
    optimiser = make_optimiser(settings, parameters)
    if settings.schedule in ("constant", "plateau"):
        return optimiser
    if settings.schedule == "step":
        by_epoch = MultiStepLR(optimiser, list(settings.milestones), gamma=STEP_FACTOR)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": by_epoch, "interval": "epoch"}}
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        problem = f"a {settings.schedule.replace('_', '-')} schedule on a run without an end"
        raise _refusal("schedule", problem, "give the number of epochs or steps")
    lengths = (int(steps) - sum(more_steps), *more_steps)
    values = _of_cosine(settings, trainer, lengths) if settings.schedule == "cosine" else _of_one_cycle(lengths)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": ByStep(optimiser, values), "interval": "step"}}


Values = Callable[[float, int], tuple[float, float | None]]


class ByStep(LRScheduler):
    """Learning rates, and momentum where it is moved, that follow from the step.

    It saves the step and nothing else: how long the run is may have changed when it goes on.

    Args:
        values: of a group's own learning rate and a step, from 0: its learning rate there, and momentum.
    """

    def __init__(self, optimiser: Optimizer, values: Values) -> None:
        self.values = values
        super().__init__(optimiser)

    def get_lr(self) -> list[float | Tensor]:
        rates: list[float | Tensor] = []
        for group, own in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            rate, momentum = self.values(float(own), self.last_epoch)
            rates.append(rate)
            if momentum is not None:
                group |= {"betas": (momentum, *group["betas"][1:])} if "betas" in group else {"momentum": momentum}
        return rates

    def hold(self) -> None:
        """Give the optimiser the values of the step that comes; those that it was saved with may be of an earlier
        end."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("last_epoch", "_step_count")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]


def one_cycle(highest: float, step: int, steps: int) -> tuple[float, float]:
    """Learning rate and momentum of step `step`, from 0, of `steps`: torch's `OneCycleLR` of one step more, so that the
    last one still has a learning rate above the final one."""
    first, between = ONE_CYCLE_MOMENTUM
    begin, top = ONE_CYCLE_RISE * (steps + 1) - 1, highest
    lowest = highest * ONE_CYCLE_FROM
    if step <= begin:
        return _half_cosine(lowest, top, step / begin), _half_cosine(first, between, step / begin)
    done = (step - begin) / (steps - begin)
    return _half_cosine(top, lowest * ONE_CYCLE_TO, done), _half_cosine(between, first, done)


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


def _of_one_cycle(lengths: Sequence[int]) -> Values:
    return lambda own, step: one_cycle(own, *_within(lengths, step))


def _within(lengths: Sequence[int], step: int) -> tuple[int, int]:
    """The step within the part of a run that it belongs to, and the part's steps; the last part has its end, too."""
    *before, last = lengths
    for length in before:
        if step < length:
            return step, length
        step -= length
    return step, last


def cosine(settings: OptimiserSettings, step: int, steps: int, warm_up: int) -> float:
    """Learning rate of step `step`, from 0, of `steps`, the first `warm_up` of which are the warm-up.

    The warm-up's last step has the full learning rate, and so has the first step after it (ViCC, GOCA).
    """
    if step < warm_up:
        return settings.warm_up_from + (settings.lr - settings.warm_up_from) * step / max(warm_up - 1, 1)
    done = (step - warm_up) / (steps - warm_up)
    return settings.final_lr + (settings.lr - settings.final_lr) * (1 + math.cos(math.pi * done)) / 2


def _of_cosine(settings: OptimiserSettings, trainer: Trainer, lengths: Sequence[int]) -> Values:
    def values(own: float, step: int) -> tuple[float, None]:
        if not step:  # there is no loader yet, and it is all the same how many steps an epoch has
            return own * ((settings.warm_up_from if settings.warm_up else settings.lr) / settings.lr), None
        epoch, steps = _steps_of_epoch(trainer), sum(lengths)
        warm_up, end = settings.warm_up * epoch, settings.horizon * epoch
        if 0 < end < steps:
            problem = f"a schedule of {settings.horizon} epochs ends before the stage, which has {steps} steps"
            raise _refusal("horizon", problem, "a longer horizon, or 0 for the stage's own end")
        if not end:
            step, end = _within(lengths, step)
        if warm_up >= end:
            problem = f"a warm-up of {settings.warm_up} epochs does not end within {end} steps"
            raise _refusal("warm_up", problem, "a shorter warm-up, or a longer run")
        return own * (cosine(settings, step, end, warm_up) / settings.lr), None

    return values


def _steps_of_epoch(trainer: Trainer) -> int:
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def _refusal(key: str, what: str, remedy: str) -> UsageError:
    return UsageError(what, where=f"optimiser.{key}", remedy=remedy)
