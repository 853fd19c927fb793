"""Half precision at the papers' temperature: networks may round, losses do not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor, nn

from tests.train.steps import CHANNELS, Views
from train import methods
from train.hardware import convolutions
from train.networks.network import Network

QUEUE, BATCH, DIM = 8, 4, 8
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "queue": ("infonce", {"stream": "rgb"}),
    "in batch": ("infonce", {"stream": "rgb", "queue": 0}),
    "ubernce": ("ubernce", {"stream": "rgb"}),
    "cmc": ("cmc", {"streams": ["rgb", "flow"]}),
    "cmc in batch": ("cmc", {"streams": ["rgb", "flow"], "queue": 0}),
    "coclr": ("coclr", {"stream": "rgb", "sampler": {"stream": "flow"}, "top_k": 2, "self_drop": 1.0}),
}
# Slots 0 to 3 of the queue hold what is a positive by label, by source and by the sampler.
LABELS, SOURCES = torch.zeros(BATCH, dtype=torch.int64), torch.zeros(BATCH, dtype=torch.int64)
QUEUED = torch.arange(QUEUE) // 4


@pytest.fixture(autouse=True)
def convolutions_as_in_training() -> Iterator[None]:
    """Without oneDNN where its bfloat16 is wrong."""
    with convolutions.onednn(allowed=convolutions.right_as_they_are("bf16-mixed", torch.device("cpu"))):
        yield


def made(kind: str) -> Any:
    torch.manual_seed(0)
    name, settings = KINDS[kind]
    shared = {"backbone": "small", "backbone_settings": {"width": 0.25}, "dim": DIM, "queue": QUEUE, "momentum": 1.0}
    method = methods.create(name, shared | settings, CHANNELS)
    assert method.settings.temperature == 0.07
    method._trainer = SimpleNamespace(accumulate_grad_batches=1, global_step=0)
    for queue in queues(method):
        queue.labels, queue.sources, queue.filled = QUEUED.clone(), QUEUED.clone(), torch.ones(QUEUE, dtype=torch.bool)
    return method


def queues(method: Any) -> list[Any]:
    return [part for name, part in method.named_modules() if type(part).__name__ == "Queue"]


def batch() -> Views:
    clips = torch.randn(2, BATCH, 3, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    return Views({"rgb": list(clips), "flow": [clip[:, :2] for clip in clips]}, LABELS, SOURCES)


def always(network: Network, value: float) -> None:
    """Every clip's row becomes this value's sign over all dimensions, exactly, in any precision."""
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.data.zero_()
    last.bias.data.fill_(value)


def step(method: Any, dtype: torch.dtype | None = None) -> Tensor:
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        return method.training_step(batch(), 0)["loss"]


def assert_finite(method: Any, loss: Tensor) -> None:
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    loss.backward()
    gradients = [parameter.grad for parameter in method.parameters() if parameter.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_half_precision_has_the_float32_loss_of_its_features(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, again = made(kind), made(kind)
    rows: list[Tensor] = []
    forward = Network.forward

    def kept(network: Network, clips: Tensor) -> Tensor:
        rows.append(forward(network, clips))
        assert network.backbone(clips).dtype == dtype, "autocast was on"
        return rows[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Network, "forward", kept)
        loss = step(method, dtype)
    assert_finite(method, loss)
    played = iter(rows)
    monkeypatch.setattr(Network, "forward", lambda network, clips: next(played).detach())
    torch.testing.assert_close(step(again), loss.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_features_that_align_or_oppose_exactly_have_the_loss_of_the_formula(kind: str, dtype: torch.dtype) -> None:
    """Logits of 1 / .07 and -1 / .07, whose exponentials' ratio of e^29 no half precision holds: all positives opposed,
    all negatives aligned; and the reverse. In a batch all clips are alike, negatives too."""
    for sign in (-1.0, 1.0):
        method = made(kind)
        for name, part in method.named_modules():
            if isinstance(part, Network):
                always(part, sign if "key" in name else 1.0)
        rows = torch.ones(QUEUE, DIM) / math.sqrt(DIM)
        for queue in queues(method):
            queue.features.copy_(torch.where(positive_slots(kind)[:, None], sign * rows, -sign * rows))
        if kind == "coclr":  # the sampler finds the second half of what is a positive: see QUEUED
            method.sampled.features.copy_(torch.where(positive_slots(kind)[:, None], rows, -rows))
        loss = step(method, dtype)
        assert loss.item() == pytest.approx(expected(kind, sign), rel=1e-5, abs=1e-7)
        assert_finite(method, loss)


def positive_slots(kind: str) -> Tensor:
    """Own recording or class: slots 0 to 3; what the sampler finds: 4 and 5."""
    several = {"ubernce": 4, "coclr": 6}
    return torch.arange(QUEUE) < several.get(kind, 0)


def expected(kind: str, sign: float) -> float:
    """In double precision. CoCLR drops the own key, which is then a negative as far off as the positives."""
    if kind.endswith("in batch"):
        return 2 * math.log(BATCH) if kind == "cmc in batch" else math.log(2 * BATCH - 1)
    count = int(positive_slots(kind).sum())
    positive, negative = (1 + count) * math.exp(sign / 0.07), (QUEUE - count) * math.exp(-sign / 0.07)
    kept = {"coclr": count * math.exp(sign / 0.07)}.get(kind, math.exp(sign / 0.07))
    loss = math.log1p((positive - kept + negative) / kept)
    return 2 * loss if kind == "cmc" else loss
