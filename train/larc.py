"""LARC: momentum SGD with a learning rate of each tensor's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from train.settings import check_flag, check_number

EPSILON = 1e-8  # in the denominator, as published


class LARC(Optimizer):
    """SGD with momentum whose step on each tensor w is in proportion to the tensor's norm (You et al. 2017, LARS).

    With a gradient g, `local = trust_coefficient |w| / (|g| + weight_decay |w| + 1e-8)` and u = local (g + weight_decay
    w); then `buffer = momentum buffer + u` and `w -= lr buffer`. As ViCC and GOCA use it (docs/methods.md 6.1): where
    |w| is 0, u = g, so that biases that start at 0 move; where |g| is 0, u = 0, without weight decay. A tensor without
    a gradient stays as it is, buffer included. No tensor is excluded.

    Args:
        params: parameters, or groups of them with settings of their own, as of any torch optimiser. Those of a group
            share a device.
        lr: learning rate. It multiplies the local ones, and is therefore larger than SGD's: .6 (ViCC), 3.8 (GOCA).
        momentum: share of the buffer that stays.
        weight_decay: L2 term, inside the local rate.
        trust_coefficient: length of a step relative to |w|, at lr = 1.
        clip: local becomes min(local / lr, 1), so that lr is the highest rate of every tensor (LARC's name: clipping).

    Raises:
        UsageError: a number out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        clip: bool = False,
    ) -> None:
        check_number("lr", lr, least=0)
        check_number("momentum", momentum, least=0)
        check_number("weight_decay", weight_decay, least=0)
        check_number("trust_coefficient", trust_coefficient, above=0)
        check_flag("clip", clip)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "clip": clip,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; with a `closure`, which computes loss and gradients anew, the loss it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._move(weights, group)
        return loss

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        updates = _updates(weights, group)
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(weights, buffers, alpha=-group["lr"])


def _updates(weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """u of each tensor. All norms are one tensor, so that the device is not asked for them and is given little work."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]  # none of them is None
    weight_norms, gradient_norms = (torch.stack(torch._foreach_norm(part)) for part in (weights, gradients))
    decay = group["weight_decay"]
    local = group["trust_coefficient"] * weight_norms / (gradient_norms + decay * weight_norms + EPSILON)
    if group["clip"]:
        local = (local / group["lr"]).clamp(max=1)
    factors = torch.where(weight_norms != 0, torch.where(gradient_norms != 0, local, 0.0), 1.0)  # a NaN stays one
    updates = torch._foreach_add(gradients, weights, alpha=decay)
    torch._foreach_mul_(updates, list(factors.unbind()))
    return list(updates)
