"""LARC against a plain loop, and as an optimiser among torch's."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from pipeline.errors import UsageError
from train.optim import LARC

SHAPES = [(4, 3), (5,), (2, 3, 1, 1), (1,), (3,)]  # the last one starts at zero
SETTINGS = {"lr": 0.6, "momentum": 0.9, "weight_decay": 1e-2, "trust_coefficient": 1e-2}


def weights(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]
    made[-1].zero_()
    return [nn.Parameter(weight) for weight in made]


def gradients(step: int) -> list[Tensor | None]:
    """None for one tensor in every other step; zero for another one in every step but the first."""
    generator = torch.Generator().manual_seed(100 + step)
    made: list[Tensor | None] = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    made[1] = made[1] if step % 2 else None
    made[3] = torch.zeros(1, dtype=torch.float64) if step else made[3]
    return made


def give(parameters: list[nn.Parameter], step: int) -> None:
    for weight, gradient in zip(parameters, gradients(step), strict=True):
        weight.grad = None if gradient is None else gradient.to(weight.dtype)


def loop(
    steps: int, lr: float, momentum: float, weight_decay: float, trust_coefficient: float, clip: bool
) -> list[Any]:
    """Weights after each step, number by number."""
    values = [weight.flatten().tolist() for weight in weights()]
    buffers = [[0.0] * len(value) for value in values]
    for step in range(steps):
        for value, buffer, gradient in zip(values, buffers, gradients(step), strict=True):
            if gradient is None:
                continue
            slope = gradient.flatten().tolist()
            length, steepness = (math.sqrt(sum(x * x for x in part)) for part in (value, slope))
            if length and steepness:
                local = trust_coefficient * length / (steepness + weight_decay * length + 1e-8)
                local = min(local / lr, 1.0) if clip else local
                slope = [local * (g + weight_decay * w) for g, w in zip(slope, value, strict=True)]
            for i, g in enumerate(slope):
                buffer[i] = momentum * buffer[i] + g
                value[i] -= lr * buffer[i]
    return values


def train(optimiser: LARC, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        give(parameters, step)
        optimiser.step()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}, {"weight_decay": 0.0}, {"lr": 1e-4}, {"lr": 30.0}])
def test_steps_equal_a_loop(changes: dict[str, float], clip: bool) -> None:
    parameters, settings = weights(), SETTINGS | changes
    train(LARC(parameters, **settings, clip=clip), parameters, range(5))
    for weight, wanted in zip(parameters, loop(5, **settings, clip=clip), strict=True):
        torch.testing.assert_close(weight.detach().flatten(), torch.tensor(wanted, dtype=torch.float64))


def test_a_step_is_in_proportion_to_the_weight_and_not_to_the_gradient() -> None:
    moved = []
    for size in (1.0, 1e4):
        weight = nn.Parameter(torch.full((4,), 2.0))
        weight.grad = size * torch.tensor([1.0, 0.0, 0.0, 0.0])
        LARC([weight], lr=0.5, trust_coefficient=0.01).step()
        moved.append((2.0 - weight.detach()).norm().item())
    assert moved == pytest.approx([0.5 * 0.01 * 4.0] * 2, rel=1e-5)


def test_clipped_rates_do_not_exceed_those_of_sgd() -> None:
    """At a learning rate far below all local ones LARC with clipping is SGD."""
    ours, theirs = weights(), weights()
    give(ours, 1)
    give(theirs, 1)
    LARC(ours, lr=1e-8, trust_coefficient=1.0, clip=True).step()
    SGD(theirs, lr=1e-8, momentum=0.9).step()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-15)


def test_a_zero_gradient_moves_nothing_and_does_not_decay() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.zeros(3)
    LARC([weight], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(weight.detach(), torch.ones(3))


def test_a_gradient_that_is_not_a_number_shows() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([0.0, math.nan, 1.0])
    LARC([weight], lr=1.0).step()
    assert weight.isnan().all()


def test_gradients_stay_as_they_are() -> None:
    parameters = weights()
    give(parameters, 1)
    LARC(parameters, **SETTINGS).step()
    for weight, gradient in zip(parameters, gradients(1), strict=True):
        assert weight.grad is not None and gradient is not None
        assert torch.equal(weight.grad, gradient)


def test_groups_have_settings_of_their_own() -> None:
    together, apart = weights(), weights()
    own = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.0, "trust_coefficient": 0.5, "clip": True}
    train(LARC([{"params": together[:2]}, {"params": together[2:]} | own], **SETTINGS), together, range(3))
    first, second = LARC(apart[:2], **SETTINGS), LARC(apart[2:], **own)
    for step in range(3):
        give(apart, step)
        first.step()
        second.step()
    assert all(torch.equal(one, two) for one, two in zip(together, apart, strict=True))


def test_a_saved_state_continues_bit_for_bit() -> None:
    whole, parameters = weights(torch.float32), weights(torch.float32)
    train(LARC(whole, **SETTINGS), whole, range(6))
    first = LARC(parameters, **SETTINGS)
    train(first, parameters, range(3))
    state = copy.deepcopy(first.state_dict())
    resumed = LARC(parameters, lr=99.0)
    resumed.load_state_dict(state)
    train(resumed, parameters, range(3, 6))
    assert all(torch.equal(one, two) for one, two in zip(whole, parameters, strict=True))


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimiser = LARC([weight], lr=1.0)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = weight.pow(2).sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 3.0
    assert (weight < 1).all()
    assert LARC([weight], lr=1.0).step() is None


def test_schedulers_set_its_learning_rate_and_momentum() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimiser = LARC([weight], lr=0.4, trust_coefficient=0.1, momentum=0.0)
    scheduler = StepLR(optimiser, step_size=1, gamma=0.5)
    for lr in (0.4, 0.2, 0.1):
        before = weight.detach().norm().item()
        optimiser.step()
        scheduler.step()
        assert before - weight.detach().norm().item() == pytest.approx(lr * 0.1 * before, rel=1e-4)
    cycle = OneCycleLR(optimiser, max_lr=1.0, total_steps=4)
    assert optimiser.param_groups[0]["momentum"] == 0.95
    optimiser.step()
    cycle.step()


def test_a_gradient_scaler_changes_nothing_and_skips_what_overflowed() -> None:
    plain, scaled = (nn.Parameter(torch.ones(3)) for _ in range(2))
    one, two = (LARC([weight], **SETTINGS) for weight in (plain, scaled))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    for factor in (1.0, math.inf, 3.0):
        for weight, optimiser in ((plain, one), (scaled, two)):
            optimiser.zero_grad()
            loss = (factor * weight * torch.tensor([1.0, 2.0, 3.0])).sum()
            if weight is scaled:
                scaler.scale(loss).backward()
                scaler.step(optimiser)
                scaler.update()
            elif math.isfinite(factor):
                loss.backward()
                optimiser.step()
    assert torch.equal(plain, scaled)
    assert (plain < 1).all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"lr": -0.1}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"momentum": -0.9}, "momentum"),
        ({"weight_decay": -1e-6}, "weight_decay"),
        ({"trust_coefficient": 0.0}, "trust_coefficient"),
        ({"clip": 1}, "clip"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"where: {name}"):
        LARC(weights(), **({"lr": 0.6} | changes))


@pytest.mark.gpu
def test_a_step_on_a_gpu_does_not_wait_and_equals_that_on_a_cpu() -> None:
    here, there = weights(torch.float32), [nn.Parameter(weight.cuda()) for weight in weights(torch.float32)]
    optimiser = LARC(there, **SETTINGS)
    for step in range(4):
        give(here, step)
        for weight, given in zip(there, here, strict=True):
            weight.grad = None if given.grad is None else given.grad.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimiser.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    train(LARC(other := weights(torch.float32), **SETTINGS), other, range(4))
    for weight, wanted in zip(there, other, strict=True):
        torch.testing.assert_close(weight.cpu(), wanted, rtol=0, atol=2e-6)
