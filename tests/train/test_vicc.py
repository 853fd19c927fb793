"""ViCC: training against a plain loop, what every switch changes, and what it refuses."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from tests.train.steps import CHANNELS, Views, fit
from train import methods
from train.hardware import convolutions
from train.methods.vicc import ViCC

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode")  # the frozen network, on purpose

BATCH, EPOCH = 4, 2  # videos in a batch, batches in an epoch
OPTIMISER = {"name": "larc", "lr": 0.6, "final_lr": 0.0006, "weight_decay": 1e-3, "schedule": "cosine", "horizon": 5}
SETTINGS: dict[str, Any] = {
    "stream": "rgb",
    "backbone": "small",
    "backbone_settings": {"width": 0.25},
    "dim": 8,
    "prototypes": 5,
    "queue": 8,
    "queue_epoch": 1,
    "freeze_epochs": 1,
    "optimiser": OPTIMISER,
}
ACROSS = {"other": {"stream": "flow", "temporal_centring": True}}


def made(**settings: Any) -> ViCC:
    torch.manual_seed(0)
    method = methods.create("vicc", SETTINGS | settings, CHANNELS)
    assert isinstance(method, ViCC)
    return method


def batches(count: int, size: int = BATCH, seed: int = 1) -> list[Views]:
    drawn = torch.randn(count, 2, size, 3, 2, 12, 12, generator=torch.Generator().manual_seed(seed))
    return [Views({"rgb": list(step), "flow": [1 - clip[:, :2] for clip in step]}) for step in drawn]


def balanced(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """As the spec says it, of probabilities."""
    q = (scores / epsilon).exp()
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
    return q / q.sum(dim=1, keepdim=True)


def plain_loop(method: ViCC, given: list[Views], across: bool, first: bool) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of two epochs, with nothing of ours but the network's layers: ViCC on one device."""
    network, prototypes = copy.deepcopy(method.network).train(), copy.deepcopy(method.prototypes.weight.detach())
    other = copy.deepcopy(method.other).eval() if across else nn.Identity()
    weights = {name: weight for name, weight in network.named_parameters()} | {"prototypes": prototypes}
    momentum = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    queues: list[list[Tensor]] = [[] for _ in range(4 if across else 2)]
    losses = []
    for step in range(2 * len(given)):
        epoch, batch = step // len(given), given[step % len(given)]
        prototypes = functional.normalize(prototypes.detach(), dim=1).requires_grad_()
        weights["prototypes"] = prototypes
        one, two = batch.views("rgb")
        views = [network(one)]
        if first:
            with torch.no_grad():
                views.append(network(two))
        else:
            views.append(network(two))
        if across:
            with torch.no_grad():
                views += [other(clip) for clip in reversed(batch.views("flow"))]
        scores = [view @ prototypes.T for view in views]
        assignments = []
        for view, queue in zip(scores, queues, strict=True):
            rows = view.detach()
            if len(queue) == 2:  # of 8 rows
                rows = torch.cat([torch.cat(queue) @ prototypes.detach().T, rows])
            assignments.append(balanced(rows)[-BATCH:])
        if epoch >= 1:
            for view, queue in zip(views, queues, strict=True):
                queue[:] = [view.detach(), *queue][:2]
        pairs = [(i, v) for i in range(len(views)) for v in range(len(views)) if v != i]
        terms = [-(assignments[i] * (scores[v] / 0.1).softmax(dim=1).log()).sum(dim=1).mean() for i, v in pairs]
        loss = sum(terms, torch.zeros(())) / len(terms)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        done = step / (5 * len(given))
        lr = 0.0006 + (0.6 - 0.0006) * (1 + math.cos(math.pi * done)) / 2
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is None or (name == "prototypes" and epoch < 1):
                continue
            length, steepness = weight.detach().norm(), gradient.norm()
            if length > 0 and steepness > 0:
                gradient = (gradient + 1e-3 * weight.detach()) * 1e-3 * length / (steepness + 1e-3 * length + 1e-8)
            momentum[name] = 0.9 * momentum[name] + gradient
            weight.data -= lr * momentum[name]
    return losses, {name: weight.detach() for name, weight in weights.items()}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_training_equals_a_plain_loop(tmp_path: Path, across: bool, first: bool) -> None:
    """Two epochs of three steps: the prototypes move from the fourth on, and in the sixth the queue is full."""
    settings = (ACROSS if across else {}) | {"gradient_views": "first" if first else "both"}
    method, given = made(**settings).double(), batches(3)
    for batch in given:
        batch.clips = {stream: [clip.double() for clip in batch.views(stream)] for stream in ("rgb", "flow")}
    frozen = {n: t.clone() for n, t in method.other.state_dict().items()} if across else {}
    losses, weights = plain_loop(method, given, across, first)
    before = method.prototypes.weight.detach().clone()
    recorder = fit(method, given, tmp_path, max_steps=6)
    assert [values["loss"] for values in recorder.values] == pytest.approx(losses, rel=1e-9)
    for name, parameter in method.network.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name])
    torch.testing.assert_close(method.prototypes.weight.detach(), weights["prototypes"])
    assert not torch.allclose(before, weights["prototypes"], atol=1e-6)
    assert ["prototypes.weight" in gradients for gradients in recorder.gradients] == [True] * 6
    if across:
        torch.testing.assert_close(method.other.state_dict(), frozen)
