"""ViCC and GOCA against values the released code gave on fixed inputs: assignments, losses, LARC, learning rates."""

from __future__ import annotations

from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.conformance.reference import arrays, tensors
from train import methods
from train.clustering.prototypes import separation
from train.clustering.sinkhorn import assign
from train.losses.prototypes import swapped_prediction
from train.optim import LARC, OptimiserSettings, cosine

ASSIGNMENT, GRADIENT, WEIGHT = ({"rtol": 0, "atol": atol} for atol in (2e-5, 1e-4, 2e-6))


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_assignments(iterations: int) -> None:
    values = tensors("vicc_sinkhorn")
    found = assign(values["scores"], values["epsilon"].item(), iterations).exp()
    torch.testing.assert_close(found, values[f"Q_it{iterations}"], **ASSIGNMENT)


@pytest.mark.parametrize("kind", ["def", "script"])
def test_assignments_with_a_prior(kind: str) -> None:
    """Each stream's assignment is the prior of the other one's, once and twice; as released, and pulling."""
    values = tensors("goca_sinkhorn_prior")
    epsilons = {name: values[f"{kind}_{name}"].item() for name in ("epsilon", "epsilon2")}
    scores = {stream: values[f"scores_{stream}"] for stream in ("rgb", "flow")}

    def guided(priors: dict[str, Tensor], sign: int) -> dict[str, Tensor]:
        weights = {"prior_epsilon": epsilons["epsilon2"], "prior_sign": sign}
        rgb = assign(scores["rgb"], epsilons["epsilon"], log_prior=priors["flow"], **weights)
        return {"rgb": rgb, "flow": assign(scores["flow"], epsilons["epsilon"], log_prior=priors["rgb"], **weights)}

    plain = {stream: assign(scores[stream], epsilons["epsilon"]) for stream in scores}
    repelled = guided(plain, -1)
    found = {"P_{}": plain, "Q_{}": repelled, "Q_{}_cycle2": guided(repelled, -1)}
    for name, assignments in (found | {"Qplus_{}_NOTOFFICIAL": guided(plain, 1)}).items():
        for stream, log_q in assignments.items():
            wanted = values[f"{kind}_{name.format(stream)}"]
            torch.testing.assert_close(log_q.exp(), wanted, **ASSIGNMENT)


@pytest.mark.parametrize("gradient", ["nosync", "shuffle"])
def test_loss_of_one_stream(gradient: str) -> None:
    values = tensors("vicc_single_loss")
    raw, prototypes = values["features_raw"].requires_grad_(), values["prototypes"].requires_grad_()
    views = list(functional.normalize(raw, dim=2).unbind(dim=1))
    if gradient == "shuffle":
        views[1] = views[1].detach()
    scores = [view @ prototypes.T for view in views]
    torch.testing.assert_close(torch.cat(scores), values["scores"], **ASSIGNMENT)
    assigned = {view: assign(scores[view], values["epsilon"].item(), int(values["iters"])).exp() for view in (0, 1)}
    for view, found in assigned.items():
        torch.testing.assert_close(found, values[f"q_view{view}"], **ASSIGNMENT)
    loss = swapped_prediction(scores, assigned, values["temperature"].item())
    loss.backward()
    torch.testing.assert_close(loss.detach(), values[f"{gradient}_loss"], **ASSIGNMENT)
    torch.testing.assert_close(raw.grad, values[f"{gradient}_grad_features_raw"], **GRADIENT)
    torch.testing.assert_close(prototypes.grad, values[f"{gradient}_grad_prototypes"], **GRADIENT)


@pytest.mark.parametrize("main", ["fwd", "rev"])
@pytest.mark.parametrize("gradient", ["nosync", "shuffle"])
def test_loss_across_streams(main: str, gradient: str) -> None:
    """Views are the main stream's clips 1 and 2, and the other stream's clips 2 and 1, which carry no gradient."""
    values, case = tensors("vicc_cross_loss"), f"{main}_{gradient}"
    blocks = [values[f"block{clip}"].requires_grad_() for clip in (1, 2)]
    prototypes = values["prototypes"].requires_grad_()
    one, two = (functional.normalize(block, dim=2) for block in blocks)
    stream = 0 if main == "fwd" else 1
    views = [one[:, stream], two[:, stream], two[:, 1 - stream].detach(), one[:, 1 - stream].detach()]
    if gradient == "shuffle":
        views[1] = views[1].detach()
    scores = [view @ prototypes.T for view in views]
    torch.testing.assert_close(torch.cat(scores), values[f"{case}_scores"], **ASSIGNMENT)
    assigned = {view: assign(scores[view]).exp() for view in range(4)}
    if gradient == "nosync":
        for view, found in assigned.items():
            torch.testing.assert_close(found, values[f"{case}_q{view}"], **ASSIGNMENT)
    loss = swapped_prediction(scores, assigned)
    loss.backward()
    torch.testing.assert_close(loss.detach(), values[f"{case}_loss"], **ASSIGNMENT)
    torch.testing.assert_close(prototypes.grad, values[f"{case}_grad_prototypes"], **GRADIENT)
    for clip, block in enumerate(blocks):
        found = torch.zeros_like(block) if block.grad is None else block.grad
        torch.testing.assert_close(found, values[f"{case}_grad_block{clip + 1}"], **GRADIENT)


@pytest.mark.parametrize("case", ["rgbonly_v2", "prior_v2", "prior_v2_cycle2", "prior_v2_before_start"])
def test_loss_of_two_guided_streams(case: str) -> None:
    """The released step halves the loss once more, and its gradients are of that half."""
    values = tensors("goca_loss")
    streams = ["rgb"] if case.startswith("rgbonly") else ["rgb", "flow"]
    raw = {stream: values[f"emb_{stream}_v2"].requires_grad_() for stream in streams}
    prototypes = values["prototypes"].requires_grad_()
    scores = {stream: (raw[stream] @ prototypes.T).chunk(2) for stream in streams}
    log_q = {stream: {view: assign(scores[stream][view]) for view in (0, 1)} for stream in streams}
    for _ in range({"prior_v2": 1, "prior_v2_cycle2": 2}.get(case, 0)):
        priors = {"rgb": log_q["flow"], "flow": log_q["rgb"]}
        log_q = {
            stream: {
                view: assign(scores[stream][view], log_prior=priors[stream][view], prior_epsilon=0.01, prior_sign=-1)
                for view in (0, 1)
            }
            for stream in streams
        }
    losses = [
        swapped_prediction(scores[stream], {view: log.exp() for view, log in log_q[stream].items()})
        for stream in streams
    ]
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(loss.detach(), values[f"{case}_loss_compute_ot"], **ASSIGNMENT)
    half = loss / 2
    half.backward()
    torch.testing.assert_close(half.detach(), values[f"{case}_loss_after_fwpass"], **ASSIGNMENT)
    torch.testing.assert_close(prototypes.grad, values[f"{case}_grad_prototypes"], **GRADIENT)
    for stream in streams:
        torch.testing.assert_close(raw[stream].grad, values[f"{case}_grad_{stream}"], **GRADIENT)


@pytest.mark.parametrize("case", ["rgbonly_v2", "prior_v2", "prior_v2_cycle2", "prior_v2_before_start"])
def test_the_method_has_the_released_loss(case: str) -> None:
    """The same, by the method itself; which does not halve."""
    values = tensors("goca_loss")
    streams = ["rgb"] if case.startswith("rgbonly") else ["rgb", "flow"]
    weight = values["prototypes"]
    settings: dict[str, Any] = {
        "streams": streams,
        "backbone": "small",
        "pool": "global",
        "dim": weight.shape[1],
        "clips": 2,
        "coupling": "none" if len(streams) == 1 else "prior",
        "prior_sign": -1,
        "prior_cycles": 2 if case.endswith("cycle2") else 1,
        "prior_start": 1 if case.endswith("before_start") else 0,
        "prototypes": len(weight),
        "prototype_kind": "learned",
    }
    method: Any = methods.create("goca", settings, {"rgb": 3, "flow": 2})
    method.prototypes.weight.data.copy_(weight)
    raw = {stream: values[f"emb_{stream}_v2"].requires_grad_() for stream in streams}
    labels = torch.zeros(len(values["emb_rgb_v2"]) // 2, dtype=torch.int64)
    loss = method.compare([raw[stream].chunk(2) for stream in streams], labels)["loss"]
    torch.testing.assert_close(loss.detach(), values[f"{case}_loss_compute_ot"], **ASSIGNMENT)
    (loss / 2).backward()
    torch.testing.assert_close(method.prototypes.weight.grad, values[f"{case}_grad_prototypes"], **GRADIENT)
    for stream in streams:
        torch.testing.assert_close(raw[stream].grad, values[f"{case}_grad_{stream}"], **GRADIENT)


def test_separation_of_prototypes() -> None:
    values = tensors("goca_prototype_reg")
    prototypes = values["small_prototypes"].requires_grad_()
    unit = functional.normalize(prototypes.detach(), dim=1).requires_grad_()
    loss = separation(unit)
    loss.backward()
    torch.testing.assert_close(loss.detach(), values["small_loss"], **ASSIGNMENT)
    torch.testing.assert_close(unit.grad, values["small_grad"], **GRADIENT)
    cosines = unit.detach() @ unit.detach().T - 2 * torch.eye(len(unit))
    torch.testing.assert_close(cosines.max() + 1, values["small_max"], **ASSIGNMENT)


def test_larc() -> None:
    """Four steps: a weight, a bias without a gradient in the second one, and a bias that starts at zero."""
    values = tensors("vicc_larc_sgd")
    settings = {name: values[name].item() for name in ("lr", "momentum", "weight_decay")}
    weights = [values[f"p{place}_init"].clone().requires_grad_() for place in range(3)]
    optimiser = LARC(weights, **settings, trust_coefficient=values["trust"].item())
    for step, lr in enumerate(values["lr_per_step"].tolist()):
        optimiser.param_groups[0]["lr"] = lr
        for place, weight in enumerate(weights):
            gradient = values[f"s{step}_g{place}"]
            weight.grad = gradient if len(gradient) else None
        optimiser.step()
        for place, weight in enumerate(weights):
            torch.testing.assert_close(weight.detach(), values[f"s{step}_p{place}"], **WEIGHT)


def learning_rates(settings: dict[str, float], epochs: int, per_epoch: int, warm_up: int) -> np.ndarray:
    """Of every step."""
    made = OptimiserSettings(name="larc", schedule="cosine", warm_up=int(warm_up), **settings)
    steps = int(epochs * per_epoch)
    return np.array([cosine(made, step, steps, int(warm_up * per_epoch)) for step in range(steps)])


@pytest.mark.parametrize(("case", "every"), [("single", "epoch"), ("cross", "epoch"), ("warm", "step")])
def test_learning_rates_of_vicc(case: str, every: str) -> None:
    values = arrays("vicc_lr_schedule")
    per_epoch, epochs, warm_up, lr, final = values[f"{case}_cfg"]
    found = learning_rates({"lr": lr, "final_lr": final}, epochs, per_epoch, warm_up)
    assert len(found) == values[f"{case}_len"]
    np.testing.assert_allclose(found[:: 1 if every == "step" else int(per_epoch)], values[case], rtol=1e-12)


@pytest.mark.parametrize("case", ["script", "small"])
def test_learning_rates_of_goca(case: str) -> None:
    values = arrays("goca_lr_schedule")
    per_epoch, batch, world, epochs, base, start, warm_up, final = values[f"{case}_cfg"]
    settings = {"lr": base * np.sqrt(batch * world).item(), "warm_up_from": start, "final_lr": final}
    found = learning_rates(settings, epochs, per_epoch, warm_up)
    assert len(found) == values[f"{case}_len"]
    np.testing.assert_allclose(found[:: int(per_epoch)], values[case], rtol=1e-12)
