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
from train import methods, recipe
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


@pytest.mark.parametrize("across", [False, True])
def test_views_and_what_they_are_compared_with(tmp_path: Path, across: bool) -> None:
    """Clips 1 and 2, then the other stream's 2 and 1: which clip is which shows in the queues."""
    method, given = made(queue_epoch=0, **(ACROSS if across else {})), batches(1)
    network = copy.deepcopy(method.network).train()
    views = [network(clip).detach() for clip in given[0].views("rgb")]
    if across:
        views += [method.other(clip).detach() for clip in reversed(given[0].views("flow"))]
    fit(method, given, tmp_path)
    assert len(method.queues) == len(views)
    for queue, view in zip(method.queues, views, strict=True):
        torch.testing.assert_close(queue.features[:BATCH], view)
        assert queue.filled.tolist() == [True] * BATCH + [False] * BATCH


def after_two_steps(folder: Path, **settings: Any) -> dict[str, Any]:
    """What shows of a training of two steps of an epoch each; learning rates are plain."""
    method = made(**({"optimiser": {"name": "sgd", "lr": 0.1}} | settings))
    recorder = fit(method, batches(1), folder, max_steps=2)
    state = method.state_dict()
    weights = {name: weight for name, weight in state.items() if name.startswith("network.backbone.")}
    return {
        "losses": torch.tensor([values["loss"] for values in recorder.values]),
        "backbone": torch.cat([weight.flatten().double() for weight in weights.values()]),
        "prototypes": state["prototypes.weight"],
        "queues": torch.cat([tensor.flatten() for name, tensor in state.items() if name.endswith(".features")]),
    }


# Setting, what it is with another value, and what that changes; of a cross stage.
SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "freeze_epochs": ({"freeze_epochs": 2}, {"freeze_epochs": 1}, {"prototypes"}),
    "own_stream": ({"own_stream": True}, {"own_stream": False}, {"losses", "backbone", "prototypes", "queues"}),
    "shared": ({}, {"shared_prototypes": False}, {"losses", "backbone", "prototypes", "queues"}),
    "gradient": ({}, {"gradient_views": "first"}, {"losses", "backbone", "prototypes", "queues"}),
    "epsilon": ({}, {"epsilon": 0.1}, {"losses", "backbone", "prototypes", "queues"}),
    "iterations": ({}, {"iterations": 1}, {"losses", "backbone", "prototypes", "queues"}),
    "temperature": ({}, {"temperature": 0.2}, {"losses", "backbone", "prototypes", "queues"}),
    "queue_epoch": ({"queue_epoch": 1}, {"queue_epoch": 2}, {"queues"}),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_what_it_says_and_nothing_else(tmp_path: Path, switch: str) -> None:
    one, other, expected = SWITCHES[switch]
    left, right = (after_two_steps(tmp_path, **(ACROSS | settings)) for settings in (one, other))
    assert {name for name, value in left.items() if not torch.equal(value, right[name])} == expected


def test_frozen_prototypes_stay_and_then_move(tmp_path: Path) -> None:
    """Also under an optimiser with momentum and weight decay."""
    optimiser = {"name": "sgd", "lr": 0.1, "weight_decay": 0.1}
    method, given = made(optimiser=optimiser, freeze_epochs=2), batches(2)
    before = method.prototypes.weight.detach().clone()
    fit(method, given, tmp_path, max_steps=4)
    torch.testing.assert_close(method.prototypes.weight.detach(), before)
    again = made(optimiser=optimiser, freeze_epochs=2)
    fit(again, given, tmp_path, max_steps=5)
    assert not torch.allclose(again.prototypes.weight.detach(), before, atol=1e-4)


def test_only_views_of_the_other_stream_predict(tmp_path: Path) -> None:
    """Eight terms of the twelve."""
    method, [batch] = made(**ACROSS, own_stream=False), batches(1)
    network, prototypes = copy.deepcopy(method.network).train(), method.prototypes.weight.detach()
    views = [network(clip).detach() for clip in batch.views("rgb")]
    views += [method.other(clip).detach() for clip in reversed(batch.views("flow"))]
    scores = [view @ prototypes.T for view in views]
    q = [balanced(own) for own in scores]
    pairs = [(i, v) for i in range(4) for v in range(4) if (i < 2) != (v < 2)]
    terms = [-(q[i] * (scores[v] / 0.1).log_softmax(dim=1)).sum(dim=1).mean().item() for i, v in pairs]
    assert len(terms) == 8
    assert fit(method, [batch], tmp_path).values[0]["loss"] == pytest.approx(sum(terms) / 8, rel=1e-5)


def test_prototypes_of_each_stream(tmp_path: Path) -> None:
    """The other stream's views are scored with a set of their own, which is trained, too, and frozen with the other."""
    method, [batch] = made(**ACROSS, shared_prototypes=False), batches(1)
    before = method.other_prototypes.weight.detach().clone()
    assert not torch.equal(before, method.prototypes.weight)
    fit(method, [batch], tmp_path)
    torch.testing.assert_close(method.other_prototypes.weight.detach(), before)
    fit(made(**ACROSS, shared_prototypes=False), [batch], tmp_path, max_steps=1)
    moved = made(**ACROSS, shared_prototypes=False, freeze_epochs=0)
    fit(moved, [batch], tmp_path)
    assert not torch.equal(moved.other_prototypes.weight.detach(), before)
    assert moved.starting["other"][0]["prototypes"] is moved.other_prototypes
    assert moved.parts == {"prototypes": moved.prototypes}


def test_without_gradient_nothing_is_kept() -> None:
    method, [batch] = made(queue_epoch=0, **ACROSS), batches(1)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with torch.no_grad():
        method.eval().training_step(batch, 0)
    torch.testing.assert_close(method.state_dict(), before)


def test_what_it_says_of_a_step(tmp_path: Path) -> None:
    method, [batch] = made(**ACROSS), batches(1)
    network, prototypes = copy.deepcopy(method.network).train(), method.prototypes.weight.detach()
    first, second = (network(clip).detach() @ prototypes.T for clip in batch.views("rgb"))
    flow = method.other(batch.view("flow", 0)).detach() @ prototypes.T
    values = fit(method, [batch], tmp_path).values[0]
    assigned = balanced(first).argmax(dim=1)
    assert values["predicted_top1"] == pytest.approx((second.argmax(dim=1) == assigned).double().mean().item())
    assert values["stream_agreement"] == pytest.approx(
        (balanced(flow).argmax(dim=1) == assigned).double().mean().item()
    )
    nearest = first.argmax(dim=1).bincount(minlength=5)
    assert values["largest_prototype"] == pytest.approx(nearest.max().item() / BATCH)
    assert values["empty_prototypes"] == pytest.approx((nearest == 0).double().mean().item())
    assert set(values) == {"loss", "assignment_entropy", "prototype_cosine"} | {
        *("predicted_top1", "stream_agreement", "largest_prototype", "empty_prototypes")
    }
    assert set(made().meters(BATCH)) == {"predicted_top1"}
    assert set(method.meters(BATCH)) == {"predicted_top1", "stream_agreement"}
    assert "guessing gives 20 %" in method.meters(BATCH)["predicted_top1"].meaning


@pytest.mark.parametrize("across", [False, True])
def test_it_comes_back_from_its_settings(across: bool) -> None:
    first = made(**(ACROSS if across else {}))
    again = methods.create("vicc", **first.hparams)
    assert {name: t.shape for name, t in again.state_dict().items()} == {
        name: t.shape for name, t in first.state_dict().items()
    }
    assert dict(again.hparams) == dict(first.hparams)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_assignments_of_a_networks_rows_do_not_round(dtype: torch.dtype) -> None:
    """At the published numbers of prototypes and of queued rows. What the network rounds itself is another matter: in
    bfloat16 it moves some shares by up to 2e-3."""
    method = made(**ACROSS, prototypes=300, dim=128, queue=1920, queue_epoch=0)
    for queue in method.queues:
        queue.filled.fill_(True)
    [batch] = batches(1, size=48)
    allowed = convolutions.right_as_they_are("bf16-mixed", torch.device("cpu"))
    with convolutions.onednn(allowed=allowed), torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        assert method.network.backbone(batch.view("rgb", 0)).dtype == dtype
        rows = method._rows(batch)
        found = [method._assigned(view, method.prototypes(own)) for view, own in enumerate(rows)]
    wanted = [method._assigned(view, method.prototypes(own)) for view, own in enumerate(rows)]
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.exp(), two.exp(), rtol=0, atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "same stream": ({"other": {"stream": "rgb"}}, "other.stream"),
    "no other prototypes": ({"shared_prototypes": False}, "shared_prototypes"),
    "no other predictions": ({"own_stream": False}, "own_stream"),
    "epoch of no queue": ({"queue": 0, "queue_epoch": 2}, "queue_epoch"),
    "rows that are not unit": ({"head": "slic"}, "head"),
    "rows that are not unit there": ({"other": {"stream": "flow", "head": "slic"}}, "other.head"),
    "one prototype": ({"prototypes": 1}, "prototypes"),
    "words": ({"gradient_views": "second"}, "gradient_views"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_be_meant_are_refused(case: str) -> None:
    settings, where = REFUSED[case]
    with pytest.raises(UsageError) as refused:
        made(**settings)
    assert where in str(refused.value)


@pytest.mark.remedy("at most {} prototypes (SET={}), queue {} or longer, or a larger batch")
def test_a_batch_smaller_than_the_prototypes_works_by_the_queue(tmp_path: Path) -> None:
    """Or is refused with the reason; and what the refusal says to do works."""
    given = batches(2)
    with pytest.raises(UsageError) as refused:
        fit(made(prototypes=10, queue=4, queue_epoch=0), given, tmp_path)
    said = str(refused.value)
    assert "10 prototypes share 8 clips (a batch of 4 over all ranks, and a queue of 4)" in said
    assert "at most 8 prototypes (SET='stages.*.settings.prototypes=8'), queue 8 or longer, or a larger batch" in said
    for remedy in ({"queue": 8}, {"prototypes": 8}):
        fit(made(**({"prototypes": 10, "queue": 4, "queue_epoch": 0} | remedy)), given, tmp_path)
    smaller = (recipe.find("small-real", "vicc"), None, ["batch=8"])
    with pytest.raises(UsageError, match=r"at most 8 prototypes \(SET='stages\.\*\.settings\.prototypes=8'\)"):
        recipe.load(*smaller)
    recipe.load(*smaller[:2], [*smaller[2], "stages.*.settings.prototypes=8"])
    with pytest.raises(UsageError, match=r"5 prototypes share 4 clips.*queue of 0"):
        made(queue=0, queue_epoch=0).settings.check_batch(BATCH)
    made(queue=0, queue_epoch=0).settings.check_batch(5)
    with pytest.raises(UsageError, match="queue of 8 keys is not a multiple of the batch of 3"):
        made().settings.check_batch(3)
