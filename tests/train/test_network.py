"""The encoder: pooled features, head, centring, precision, momentum."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from pipeline.errors import Refusal
from train import checkpoints
from train.networks.network import Encoder, momentum_update


def clips(channels: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def encoder(**settings: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder("small", 3, dim=12, backbone_settings={"width": 0.25}, **settings)


def test_forward_is_backbone_pool_head_and_unit_rows() -> None:
    network = encoder().eval()
    pooled = network.backbone(clips()).flatten(2).mean(2)
    first, second = network.head[0], network.head[2]
    projected = functional.relu(pooled @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(network.features(clips()), pooled)
    torch.testing.assert_close(network(clips()), projected / projected.norm(dim=1, keepdim=True))
    assert network(clips()).shape == (2, 12)
    assert {name.split(".")[0] for name in network.state_dict()} == {"backbone", "head"}


def test_published_heads_map_by_reshaping() -> None:
    network = encoder().eval()
    size = network.backbone.feature_size
    convolution = torch.nn.Conv3d(size, size, kernel_size=1)
    network.head[0].load_state_dict({"weight": convolution.weight.flatten(1), "bias": convolution.bias})
    pooled = network.features(clips())
    torch.testing.assert_close(network.head[0](pooled), convolution(pooled[:, :, None, None, None]).flatten(1))


def test_temporal_centring_removes_what_stands_still() -> None:
    network, plain = encoder(temporal_centring=True).eval(), encoder().eval()
    still = torch.randn(2, 3, 1, 16, 16)
    torch.testing.assert_close(network(clips() + still), network(clips()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain(clips() + still), plain(clips()), atol=1e-2)
    centred = clips() - clips().mean(2, keepdim=True)
    torch.testing.assert_close(network(clips()), plain(centred))


def test_rows_are_float32_under_autocast() -> None:
    network = encoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.backbone(clips()).dtype == torch.bfloat16
        assert network.features(clips()).dtype == torch.float32
        rows = network(clips())
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_momentum_update_moves_parameters_only() -> None:
    query = encoder()
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
    with pytest.raises(Refusal, match=r"(?s)another kind.*\(2, 2, 4, 16, 16\).*\(B, 3, T, H, W\)"):
        encoder()(clips(channels=2))
    with pytest.raises(Refusal, match="another kind"):
        encoder()(clips()[0])


def test_clips_too_small_for_the_backbone_fail() -> None:
    with pytest.raises(Refusal, match=r"(?s)4x16x16.*too small.*S3D.*5x17x17"):
        Encoder("s3d", 3, backbone_settings={"width": 0.1})(clips())


def test_the_digest_follows_from_all_that_features_follow_from() -> None:
    whole = checkpoints.encoder_digest(encoder())
    other_head, moved = encoder(), encoder()
    torch.nn.init.zeros_(other_head.head[0].weight)
    moved.backbone.layers[1].running_mean.add_(1)
    assert checkpoints.encoder_digest(other_head) == whole == checkpoints.encoder_digest(encoder())
    # The same weights, used otherwise.
    assert checkpoints.encoder_digest(encoder(temporal_centring=True)) != whole
    assert checkpoints.encoder_digest(moved) != whole
