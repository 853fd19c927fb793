"""The network: pooled features, head, centring, precision, momentum."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional

from pipeline.errors import UsageError
from train import checkpoints
from train.networks.momentum import momentum_update
from train.networks.network import Network


def clips(channels: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def made(**settings: object) -> Network:
    torch.manual_seed(0)
    return Network("small", 3, {"width": 0.25}, **{"head_settings": {"dim": 12}} | settings)


def test_forward_is_backbone_pool_head_and_unit_rows() -> None:
    network = made().eval()
    pooled = network.backbone(clips()).flatten(2).mean(2)
    first, second = network.head[0], network.head[2]
    projected = functional.relu(pooled @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(network.embed(clips(), "backbone"), pooled)
    torch.testing.assert_close(network(clips()), projected / projected.norm(dim=1, keepdim=True))
    assert network(clips()).shape == (2, 12)
    assert {name.split(".")[0] for name in network.state_dict()} == {"backbone", "head"}


def test_published_heads_map_by_reshaping() -> None:
    network = made().eval()
    size = network.backbone.feature_size
    convolution = torch.nn.Conv3d(size, size, kernel_size=1)
    network.head[0].load_state_dict({"weight": convolution.weight.flatten(1), "bias": convolution.bias})
    pooled = network.embed(clips(), "backbone")
    torch.testing.assert_close(network.head[0](pooled), convolution(pooled[:, :, None, None, None]).flatten(1))


def test_temporal_centring_removes_what_stands_still() -> None:
    network, plain = made(temporal_centring=True).eval(), made().eval()
    still = torch.randn(2, 3, 1, 16, 16)
    torch.testing.assert_close(network(clips() + still), network(clips()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain(clips() + still), plain(clips()), atol=1e-2)
    centred = clips() - clips().mean(2, keepdim=True)
    torch.testing.assert_close(network(clips()), plain(centred))


def test_rows_are_float32_under_autocast() -> None:
    network = made()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.backbone(clips()).dtype == torch.bfloat16
        assert network.embed(clips(), "backbone").dtype == torch.float32
        rows = network(clips())
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_momentum_update_moves_parameters_only() -> None:
    query = made()
    key = copy.deepcopy(query)
    query(clips())  # moves the running statistics
    for parameter in query.parameters():
        parameter.data.add_(1.0)
    before = {name: tensor.clone() for name, tensor in key.state_dict().items()}
    momentum_update(key, query, 0.75)
    names = {name for name, _ in key.named_parameters()}
    for name, tensor in key.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * query.state_dict()[name] if name in names else before[name]
        torch.testing.assert_close(tensor, expected)


def test_momentum_update_of_another_network_fails() -> None:
    with pytest.raises(ValueError, match="a network of 1 parameters cannot follow one of 2"):
        momentum_update(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2), 0.5)


def test_clips_of_another_kind_fail() -> None:
    with pytest.raises(ValueError, match=r"clips are \(2, 2, 4, 16, 16\).*\(B, 3, T, H, W\)"):
        made()(clips(channels=2))
    with pytest.raises(ValueError, match="clips are"):
        made()(clips()[0])


def test_clips_too_small_for_the_backbone_fail() -> None:
    with pytest.raises(ValueError, match="4x16x16.*too small for S3D.*5x17x17"):
        Network("s3d", 3, {"width": 0.1})(clips())


def test_the_digest_follows_from_all_that_a_layer_follows_from() -> None:
    def digest(network: Network, layer: str = "backbone") -> str:
        return checkpoints.network_digest(network, layer)

    whole = digest(made())
    other_head, moved = made(), made()
    torch.nn.init.zeros_(other_head.head[0].weight)
    moved.backbone.layers[1].running_mean.add_(1)
    assert digest(other_head) == whole == digest(made()) == digest(made(head="none", head_settings={}))
    assert digest(other_head, "head") != digest(made(), "head") != whole
    # The same weights, used otherwise.
    assert digest(made(temporal_centring=True)) != whole
    assert digest(moved) != whole and digest(moved, "head") != digest(made(), "head")


def test_layers_have_names_sizes_and_rows() -> None:
    network = made().eval()
    assert network.layers == ("backbone", "head") and [network.size(name) for name in network.layers] == [32, 12]
    assert list(network.parts) == ["backbone", "head"] and network.parts["head"] is network.head
    for name in network.layers:
        assert network.embed(clips(), name).shape == (2, network.size(name))
    assert torch.equal(network.embed(clips(), "head"), network(clips()))
    for wrong in (network.size, lambda name: network.embed(clips(), name)):
        with pytest.raises(ValueError, match="no layer 'context'; it has backbone, head"):
            wrong("context")


def test_without_a_head_losses_compare_what_the_pool_gives() -> None:
    network = made(head="none", head_settings={}).eval()
    assert network.layers == ("backbone",) == tuple(network.parts) and not list(network.head.parameters())
    assert torch.equal(network(clips()), network.embed(clips(), "backbone"))


@pytest.mark.parametrize(
    "settings",
    [
        {"temporal_centring": True},
        {"pool": "1x2x2", "head": "goca", "head_settings": {"dim": 8, "hidden": 16}},
        {"head": "slic", "head_settings": {"dim": 8, "hidden": 16}},
        {"head": "classifier", "aggregation": "gru", "aggregation_settings": {"block_length": 2, "hidden": 4}},
    ],
)
def test_its_settings_make_it_again(settings: dict[str, Any]) -> None:
    network = made(**settings)
    again = Network(**network.settings)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(clips()), network.eval()(clips())) and again.settings == network.settings


def linear(layer: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return rows @ layer.weight.T + layer.bias


def normed(layer: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return (rows - layer.running_mean) / (layer.running_var + 1e-5).sqrt() * layer.weight + layer.bias


def with_statistics(network: Network) -> Network:
    """Batch norms of heads that do something."""
    generator = torch.Generator().manual_seed(5)
    for layer in network.head:
        if isinstance(layer, torch.nn.BatchNorm1d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def test_heads_of_slic_and_goca_are_linear_layers_with_batch_norm_between() -> None:
    slic = with_statistics(made(head="slic", head_settings={"dim": 6, "hidden": 10}))
    pooled = slic.embed(clips(), "backbone")
    rows = linear(slic.head[3], normed(slic.head[1], linear(slic.head[0], pooled)).clamp(min=0))
    assert slic.size("head") == 6 and slic.head[0].weight.shape == (10, 32)
    torch.testing.assert_close(slic(clips()), rows)  # which are not unit rows
    goca = with_statistics(made(head="goca", head_settings={"dim": 6, "hidden": 10}))
    for layer in (goca.head[0], goca.head[3], goca.head[6]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.4) and not layer.bias.any()
        layer.weight.data.mul_(30)
    rows = normed(goca.head[1], linear(goca.head[0], goca.embed(clips(), "backbone"))).clamp(min=0)
    rows = linear(goca.head[6], normed(goca.head[4], linear(goca.head[3], rows)).clamp(min=0))
    torch.testing.assert_close(goca(clips()), rows / rows.norm(dim=1, keepdim=True))
    assert goca.head[3].weight.shape == (10, 10) and goca.size("head") == 6


@pytest.mark.parametrize(("side", "halves"), [(32, ((0, 1), (2, 3))), (40, ((0, 1, 2), (2, 3, 4)))])
def test_the_pool_of_goca_keeps_quarters_of_the_picture(side: int, halves: tuple[tuple[int, ...], ...]) -> None:
    network = made(pool="1x2x2").eval()
    given = torch.randn(2, 3, 4, side, side, generator=torch.Generator().manual_seed(0))
    maps = network.backbone(given)
    rows = torch.empty(2, 32, 2, 2)
    for row, high in enumerate(halves):
        for column, wide in enumerate(halves):
            rows[:, :, row, column] = maps[:, :, :, list(high)][..., list(wide)].mean(dim=(2, 3, 4))
    assert network.size("backbone") == 4 * 32 and network.head[0].in_features == 128
    torch.testing.assert_close(network.embed(given, "backbone"), rows.flatten(1))


GRU = {"aggregation": "gru", "aggregation_settings": {"block_length": 2, "hidden": 5}}


@torch.no_grad()
@pytest.mark.parametrize("between", ["relu", "unit", "plain"])
def test_blocks_are_seen_alone_and_aggregated_in_order(between: str) -> None:
    settings = {"block_length": 2, "hidden": 5, "between": between}
    network = made(head="none", head_settings={}, aggregation="gru", aggregation_settings=settings).eval()
    assert network.layers == ("backbone", "context") and network.size("context") == 5
    assert list(network.parts) == ["backbone", "aggregation"]
    given = torch.randn(3, 3, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = [network.backbone(block) for block in given.split(2, dim=2)]
    torch.testing.assert_close(
        network.embed(given, "backbone"), torch.stack([m.mean(dim=(2, 3, 4)) for m in seen]).mean(0)
    )
    state = None
    for maps in seen:
        block = maps.mean(dim=2)
        if between == "relu":
            block = block.clamp(min=0)
        if between == "unit":
            block = block / (block.norm(dim=1, keepdim=True) + 1e-5)
        [[*_, state]] = [network.aggregation.gru(block[:, None], state).unbind(1)]
    if between == "unit":
        state = state / (state.norm(dim=1, keepdim=True) + 1e-5)
    torch.testing.assert_close(network.embed(given, "context"), state.mean(dim=(2, 3)))
    assert torch.equal(network(given), network.embed(given, "context"))


def test_a_head_follows_the_context_where_there_is_one() -> None:
    network = made(head="classifier", head_settings={"dim": 7}, **GRU).eval()
    assert network.layers == ("backbone", "context", "head") and [*network.parts] == ["backbone", "aggregation", "head"]
    torch.testing.assert_close(network(clips()), linear(network.head.linear, network.embed(clips(), "context")))
    digests = [checkpoints.network_digest(network, layer) for layer in network.layers]
    network.head.linear.bias.data.add_(1)
    assert [checkpoints.network_digest(network, layer) for layer in network.layers[:2]] == digests[:2]
    network.aggregation.gru.out_gate.bias.data.add_(1)
    assert checkpoints.network_digest(network, "backbone") == digests[0]
    assert checkpoints.network_digest(network, "context") != digests[1]


def test_a_part_of_a_block_fails() -> None:
    with pytest.raises(ValueError, match="clips of 5 frames are no whole number of blocks of 2"):
        made(**GRU)(torch.zeros(1, 3, 5, 16, 16))
    with pytest.raises(ValueError, match="2x16x16 .* are too small"):
        Network("s3d", 3, {"width": 0.1}, **GRU)(clips())


def test_context_and_head_are_float32_under_autocast() -> None:
    network = made(head="classifier", head_settings={"dim": 7}, **GRU).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(network.embed(clips(), layer).dtype == torch.float32 for layer in network.layers)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"head": "colcr"}, '(?s)unknown head "colcr".*did you mean "coclr"'),
        ({"pool": "globel"}, '(?s)unknown pool "globel".*did you mean "global"'),
        ({"head_settings": {"dims": 3}}, '(?s)unknown setting "dims".*head "coclr"'),
    ],
)
def test_parts_that_there_are_not_fail(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made(**{"head_settings": {}} | wrong)
