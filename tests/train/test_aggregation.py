"""The convolutional GRU against a plain loop over pixels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from train.networks.aggregations.gru import ConvGRU, Recurrent


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(*sizes: int, dropout: float = 0.1) -> ConvGRU:
    """With biases that are not zero."""
    network = ConvGRU(*sizes, dropout=dropout).double().eval()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = random(*parameter.shape, seed=number) / 2
    return network


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def gate(layer: torch.nn.Module, channels: list[Tensor], row: int, column: int) -> list[float]:
    """A convolution's values at one pixel of maps (S, S), which are zero outside."""
    weight, bias, reach = layer.weight, layer.bias, layer.weight.shape[-1] // 2
    values = []
    for out in range(len(weight)):
        total = bias[out].item()
        for c, plane in enumerate(channels):
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    y, x = row + i, column + j
                    if 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]:
                        total += (weight[out, c, i + reach, j + reach] * plane[y, x]).item()
        values.append(total)
    return values


def loop(network: ConvGRU, block: Tensor, state: Tensor) -> Tensor:
    """One step, of one sample: block (C, S, S), state (H, S, S)."""
    pixels = [(y, x) for y in range(block.shape[1]) for x in range(block.shape[2])]
    reset, new = torch.zeros_like(state), torch.zeros_like(state)
    for y, x in pixels:
        for h, value in enumerate(gate(network.reset_gate, [*block, *state], y, x)):
            reset[h, y, x] = sigmoid(value)
    for y, x in pixels:
        update = gate(network.update_gate, [*block, *state], y, x)
        proposed = gate(network.out_gate, [*block, *(reset * state)], y, x)
        for h, (u, o) in enumerate(zip(update, proposed, strict=True)):
            new[h, y, x] = (1 - sigmoid(u)) * state[h, y, x] + sigmoid(u) * math.tanh(o)
    return new


@pytest.mark.parametrize(("kernel", "side"), [(1, 1), (1, 2), (3, 3)])
@torch.no_grad()
def test_states_equal_a_loop(kernel: int, side: int) -> None:
    network = made(2, 3, kernel)
    blocks, start = random(2, 3, 2, side, side, seed=1), random(2, 3, side, side, seed=2)
    found = network(blocks, start)
    assert found.shape == (2, 3, 3, side, side)
    for b, sample in enumerate(blocks):
        state = start[b]
        for n, block in enumerate(sample):
            state = loop(network, block, state)
            torch.testing.assert_close(found[b, n], state)


def test_the_first_state_is_zero_and_a_run_may_go_on_from_any() -> None:
    network = made(4, 3)
    blocks = random(2, 5, 4, 2, 2, seed=1)
    whole = network(blocks)
    torch.testing.assert_close(whole, network(blocks, torch.zeros(2, 3, 2, 2, dtype=torch.float64)))
    torch.testing.assert_close(whole[:, 2:], network(blocks[:, 2:], whole[:, 1]))


def test_gradient_is_that_of_finite_differences() -> None:
    network = made(2, 2)
    blocks, state = random(1, 3, 2, 2, 1, seed=1), random(1, 2, 2, 1, seed=2)
    assert torch.autograd.gradcheck(network, (blocks.requires_grad_(), state.requires_grad_()))
    network(blocks)[:, -1].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_weights_start_orthogonal_and_biases_at_zero() -> None:
    network = ConvGRU(256, 256)
    assert network.dropout.share == 0.1
    gates = [network.reset_gate, network.update_gate, network.out_gate]
    assert sum(parameter.numel() for parameter in network.parameters()) == 3 * (256 * 512 + 256)
    for layer in gates:
        assert layer.weight.shape == (256, 512, 1, 1) and not layer.bias.any()
        rows = layer.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(256), rtol=0, atol=1e-5)
    assert not torch.equal(gates[0].weight, gates[1].weight)


def test_dropout_acts_on_each_state_and_the_next_step_sees_what_it_left() -> None:
    network = made(4, 16, dropout=0.5)
    blocks = random(3, 2, 4, 2, 2, seed=1)
    plain = network(blocks)
    torch.manual_seed(0)
    dropped = network.train()(blocks)
    kept = dropped != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(dropped[:, 0], 2 * plain[:, 0] * kept[:, 0])
    torch.testing.assert_close(dropped[:, 1], 2 * network.eval()(blocks[:, 1:], dropped[:, 0])[:, 0] * kept[:, 1])


@torch.no_grad()
def test_autocast_stays_near() -> None:
    network = made(8, 8).float()
    blocks = random(2, 8, 8, 2, 2, seed=1).float()
    expected = network(blocks)
    for features in (blocks, blocks.bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(features)
        assert found.dtype == features.dtype
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("blocks", "state"),
    [
        ((2, 3, 5, 2, 2), None),
        ((2, 0, 4, 2, 2), None),
        ((2, 4, 2, 2), None),
        ((2, 3, 4, 2, 2), (2, 4, 2, 2)),
        ((2, 3, 4, 2, 2), (1, 3, 2, 2)),
        ((2, 3, 4, 2, 2), (2, 3, 1, 2)),
        ((2, 3, 4, 2, 2), (1, 2, 3, 2, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(blocks: tuple[int, ...], state: tuple[int, ...] | None) -> None:
    with pytest.raises(ValueError, match=r"blocks \(2, .*not blocks \(B, N, 4, S, S\), state \(B, 3, S, S\)"):
        ConvGRU(4, 3)(torch.zeros(blocks), None if state is None else torch.zeros(state))


@pytest.mark.parametrize(
    "wrong", [{"input_size": 0}, {"hidden_size": 1.5}, {"kernel_size": 2}, {"kernel_size": -1}, {"dropout": 1.1}]
)
def test_sizes_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ConvGRU(**{"input_size": 4, "hidden_size": 3, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"between": "elu"}, "between is 'elu', and must be one of 'relu', 'unit', 'plain'"),
        ({"block_length": 0}, "block_length is 0"),
        ({"hidden": 0}, "hidden_size is 0"),
        ({"dropout": 2.0}, "dropout is 2.0"),
    ],
)
def test_settings_of_the_aggregation_are_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recurrent(4, **wrong)


def test_the_predictor_goes_from_a_state_to_a_block() -> None:
    network = Recurrent(4, hidden=6)
    assert network.predictor(torch.zeros(2, 6, 3, 3)).shape == (2, 4, 3, 3)
    assert not any(layer.bias.any() for layer in (network.predictor[0], network.predictor[2]))
    last = network.predictor[2].weight.detach().flatten(1)
    torch.testing.assert_close(last @ last.T, torch.eye(4), rtol=0, atol=1e-5)
    without = {name for name in network.state_dict() if not name.startswith("predictor.")}
    assert set(Recurrent(4, hidden=6, predicts=False).state_dict()) == without
