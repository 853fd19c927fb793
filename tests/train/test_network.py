"""The network: pooled features, head, centring, precision, momentum."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from pipeline.errors import Refusal, UsageError
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


def test_clips_of_another_kind_fail() -> None:
    with pytest.raises(ValueError, match=r"clips are \(2, 2, 4, 16, 16\).*\(B, 3, T, H, W\)"):
        made()(clips(channels=2))
    with pytest.raises(ValueError, match="clips are"):
        made()(clips()[0])


def test_clips_too_small_for_the_backbone_fail() -> None:
    with pytest.raises(Refusal, match=r"(?s)4x16x16.*too small.*S3D.*5x17x17"):
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


def test_its_settings_make_it_again() -> None:
    network = made(temporal_centring=True)
    again = Network(**network.settings)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(clips()), network.eval()(clips())) and again.settings == network.settings


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
