"""DPC and CoCon against values that the released code gave on fixed inputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.conformance.reference import tensors
from train.losses.cross_view import FLOOR, cooperation, synchronisation
from train.losses.predictive import dense_predictive_nce
from train.networks.aggregations.gru import ConvGRU

OWN, OTHER_BLOCK, OTHER_PLACE, OTHER_SAMPLE = 1, -1, -3, 0


def test_the_own_target_and_the_negatives_lie_where_the_released_mask_has_them() -> None:
    """Each kind of pair gets a logit of its own: prediction i is unit vector i, so that the targets are the logits'
    columns."""
    mask = tensors("cocon_losses")["mask_B3P2S2"]  # (B, P, S * S) predictions x (B, P, S * S) targets
    samples, blocks, places = mask.shape[:3]
    count = samples * blocks * places
    logit = {OWN: 0.9, OTHER_BLOCK: 0.1, OTHER_PLACE: -0.4, OTHER_SAMPLE: 0.3}
    wanted = sum((mask == kind) * value for kind, value in logit.items())

    def maps(rows: Tensor) -> Tensor:
        """(B, P, S * S, D) -> (B, P, D, S, S)."""
        return rows.movedim(-1, 2).unflatten(-1, (2, 2))

    predicted = maps(torch.eye(count).view(samples, blocks, places, count))
    target = maps(wanted.flatten(0, 2).movedim(0, -1).float()).requires_grad_()
    loss = dense_predictive_nce(predicted, target)
    pairs = {kind: int((mask[0, 0, 0] == kind).sum()) for kind in logit}
    assert pairs == {OWN: 1, OTHER_BLOCK: 1, OTHER_PLACE: 6, OTHER_SAMPLE: 16}
    total = sum(pairs[kind] * math.exp(value) for kind, value in logit.items())
    assert loss.item() == pytest.approx(math.log(total) - logit[OWN], abs=2e-5)

    loss.backward()
    assert target.grad is not None
    for kind, value in logit.items():
        share = math.exp(value) / total - (kind == OWN)
        gradients = target.grad.flatten(3).movedim(2, -1).flatten(0, 2).T.view(mask.shape)[mask == kind]
        torch.testing.assert_close(gradients, torch.full_like(gradients, share / count), rtol=0, atol=1e-6)


def test_cooperation_and_synchronisation() -> None:
    values = {name.removeprefix("s4_s4_"): value for name, value in tensors("cocon_losses").items()}
    first, second = values["y0"], values["y1"]
    torch.testing.assert_close(cooperation(first, second), values["coop"], rtol=0, atol=2e-5)
    torch.testing.assert_close(synchronisation(first, second), values["sync"], rtol=0, atol=2e-5)
    # The released cosines among the blocks of each view, (B, N, B, N), give cooperation too.
    torch.testing.assert_close((values["cd0"] - values["cd1"]).abs().mean(), values["coop"], rtol=0, atol=2e-5)
    for view, cosines in ((first, values["cd0"]), (second, values["cd1"])):
        rows = view.flatten(0, 1)
        rows = rows / (rows.norm(dim=1, keepdim=True) + FLOOR)
        torch.testing.assert_close(rows @ rows.T, cosines.flatten(0, 1).flatten(1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("suffix", ["", "_h0"])
def test_convgru(suffix: str) -> None:
    values = tensors("dpc_convgru")
    gates = {name.removeprefix("w_"): value for name, value in values.items() if name.startswith("w_")}
    own = {name.removeprefix("ConvGRUCell_00."): value for name, value in gates.items() if "Cell" in name}
    for name, value in own.items():  # the file has every tensor under two names
        assert torch.equal(gates[f"cell_list.0.{name}"], value)
    network = ConvGRU(6, 6, kernel_size=1).eval()
    network.load_state_dict(own)
    with torch.no_grad():
        states = network(values["seq"], values["h0"] if suffix else None)
    torch.testing.assert_close(states, values[f"out{suffix}"], rtol=0, atol=2e-5)
    torch.testing.assert_close(states[:, -1:], values[f"last{suffix}"], rtol=0, atol=2e-5)
