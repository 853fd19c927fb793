"""Optimisers and learning-rate schedules, chosen by a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR

from pipeline.errors import UsageError, refuse_unknown
from train.settings import check_choice, check_number

OptimiserName = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "step", "one_cycle"]

SGD_MOMENTUM = 0.9
STEP_FACTOR = 0.1  # at every milestone
ONE_CYCLE_RISE = 0.15  # share of the steps on which the learning rate rises (specs of the small recipes)


@dataclass(frozen=True)
class OptimiserSettings:
    """What a recipe may say under `optimiser`. The defaults are CoCLR's first 250 epochs of InfoNCE.

    Args:
        name: "adam" (weight decay coupled, as an L2 term), "adamw" (decoupled) or "sgd" (momentum 0.9, coupled).
        lr: learning rate; the highest one of a one-cycle schedule. It is not scaled with the batch.
        weight_decay: on all weights, biases and batch norm included.
        schedule: "constant"; "step": x 0.1 at each of `milestones`; "one_cycle": cosine up for 15 % of all steps from
            lr / 25, then cosine down to nothing, with the momentum going the other way.
        milestones: epochs at whose start the "step" schedule drops.

    Raises:
        UsageError: a value of another type or out of range, or milestones without "step" and the reverse.
    """

    name: OptimiserName = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Schedule = "constant"
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("optimiser.name", self.name, OptimiserName)
        check_choice("optimiser.schedule", self.schedule, Schedule)
        check_number("optimiser.lr", self.lr, above=0)
        check_number("optimiser.weight_decay", self.weight_decay, least=0)
        if not isinstance(self.milestones, list | tuple) or not all(_is_epoch(epoch) for epoch in self.milestones):
            raise _refusal("milestones", f"{self.milestones!r} are not epochs", "a list such as [250, 280]")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if (self.schedule == "step") != bool(self.milestones):
            problem = f'schedule "{self.schedule}" with milestones {list(self.milestones)}'
            raise _refusal("milestones", problem, 'milestones go with schedule "step", and with no other')

    @classmethod
    def of(cls, settings: OptimiserSettings | Mapping[str, Any] | None) -> OptimiserSettings:
        """Settings from a recipe's mapping; the defaults for None.

        Raises:
            UsageError: an unknown key, with the nearest spelling; and what the class raises.
        """
        if isinstance(settings, OptimiserSettings):
            return settings
        settings = {} if settings is None else settings
        if not isinstance(settings, Mapping):
            raise UsageError(f"{settings!r} is not a mapping", where="optimiser", remedy="keys such as name and lr")
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                refuse_unknown("key", key, known, where="optimiser")
        return cls(**settings)


def make_optimiser(settings: OptimiserSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser of `settings` over `parameters`."""
    if settings.name == "sgd":
        return SGD(parameters, lr=settings.lr, momentum=SGD_MOMENTUM, weight_decay=settings.weight_decay)
    kind = {"adam": Adam, "adamw": AdamW}[settings.name]
    return kind(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def with_schedule(settings: OptimiserSettings, optimiser: Optimizer, trainer: Trainer) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns: the optimiser and, unless constant, its schedule.

    Args:
        trainer: knows the steps of the whole run, which "one_cycle" needs.

    Raises:
        UsageError: a one-cycle schedule on a run without a known end.
    """
    if settings.schedule == "constant":
        return optimiser
    if settings.schedule == "step":
        by_epoch = MultiStepLR(optimiser, list(settings.milestones), gamma=STEP_FACTOR)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": by_epoch, "interval": "epoch"}}
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise _refusal("schedule", "a one-cycle schedule on a run without an end", "give the number of epochs or steps")
    # One more than there are steps: the last of them keeps a learning rate above the final one.
    by_step = OneCycleLR(optimiser, settings.lr, total_steps=int(steps) + 1, pct_start=ONE_CYCLE_RISE)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}


def _is_epoch(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _refusal(key: str, what: str, remedy: str) -> UsageError:
    return UsageError(what, where=f"optimiser.{key}", remedy=remedy)
