"""Backbones: shapes, sizes, names, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.errors import Refusal
from tests.patience import PATIENCE
from train import backbones
from train.backbones import BACKBONES


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "clip", "grid"),
    [
        ("s3d", (8, 64, 64), (1, 2, 2)),
        ("s3d", (5, 17, 40), (1, 1, 1)),
        ("s3dg", (8, 64, 64), (1, 2, 2)),
        ("r2plus1d-10", (16, 40, 32), (2, 3, 2)),
        ("r2plus1d-10", (1, 1, 1), (1, 1, 1)),
        ("r2plus1d-18", (16, 40, 32), (2, 3, 2)),
        ("r2plus1d-18", (1, 1, 1), (1, 1, 1)),
        ("r3d-18", (16, 32, 32), (2, 2, 2)),
        ("r3d-18", (1, 1, 1), (1, 1, 1)),
        ("resnet2d3d-18", (5, 64, 96), (2, 2, 3)),
        ("resnet2d3d-18", (1, 1, 1), (1, 1, 1)),
        ("resnet2d3d-34", (5, 64, 96), (2, 2, 3)),
        ("resnet2d3d-50", (6, 64, 64), (3, 2, 2)),
        ("resnet2d3d-50", (1, 1, 1), (1, 1, 1)),
        ("small", (8, 40, 40), (4, 5, 5)),
    ],
)
@pytest.mark.parametrize("in_channels", [2, 3])
def test_feature_map(name: str, clip: tuple[int, ...], grid: tuple[int, ...], in_channels: int) -> None:
    network = backbones.create(name, in_channels=in_channels, width=0.125)
    with torch.no_grad():
        features = network(torch.randn(2, in_channels, *clip))
    assert features.shape == (2, network.feature_size, *grid)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize(
    ("name", "time", "space"),
    [
        ("s3d", 16, 64),
        ("s3dg", 16, 64),
        ("r2plus1d-10", 16, 32),
        ("r2plus1d-18", 16, 32),
        ("r3d-18", 16, 32),
        ("resnet2d3d-18", 8, 64),
        ("resnet2d3d-34", 8, 64),
        ("resnet2d3d-50", 8, 64),
        ("small", 4, 16),
    ],
)
def test_strides_are_as_stated(name: str, time: int, space: int) -> None:
    network = backbones.create(name, width=0.125)
    with torch.no_grad():
        grid = network(torch.zeros(1, 3, time, space, space)).shape[2:]
    assert grid == (time // network.time_stride, space // network.space_stride, space // network.space_stride)


def test_sizes_at_width_one() -> None:
    sizes = {
        "s3d": (7_910_048, 1024),
        "s3dg": (9_098_000, 1024),
        "r2plus1d-10": (14_365_303, 512),
        "r2plus1d-18": (31_300_125, 512),
        "r3d-18": (34_520_896 - (512 * 2048 + 2048 + 2 * 2048 + 2048 * 128 + 128), 512),  # published with its head
        "resnet2d3d-18": (14_057_536, 256),
        "resnet2d3d-34": (32_422_208, 256),
        "resnet2d3d-50": (31_672_128, 2048),
        "small": (291_984, 128),
    }
    for name, wanted in sizes.items():
        with torch.device("meta"):
            network = backbones.create(name)
        assert (parameters(network), network.feature_size) == wanted, name
    with torch.device("meta"):
        flow = parameters(backbones.create("resnet2d3d-18", in_channels=2))
    gates, predictor = 3 * (512 * 256 + 256), 2 * (256 * 256 + 256)
    assert flow + gates + predictor == 14_579_968  # CoCon's network for flow, whole


@pytest.mark.parametrize("width", [0.01, 0.25, 0.5, 1.5])
def test_width_scales_channels_in_eights(width: float) -> None:
    network = backbones.create("s3d", width=width)
    channels = [layer.out_channels for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert min(channels) >= 8
    assert all(count % 8 == 0 for count in channels)
    assert channels[0] == max(8, 64 * width)
    assert backbones.create("small", width=width).feature_size == max(8, 128 * width)


def test_s3d_initialisation() -> None:
    torch.manual_seed(0)
    network = backbones.create("s3d")
    weights = torch.cat([layer.weight.flatten() for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)])
    assert weights.mean().abs() < 1e-4
    assert weights.std().item() == pytest.approx(0.01, rel=1e-2)
    assert weights.abs().max() > 0.04  # not truncated
    assert all(layer.bias is None for layer in network.modules() if isinstance(layer, torch.nn.Conv3d))


def test_a_gate_weighs_each_channel_by_all_channels_means() -> None:
    block = backbones.create("s3dg", width=0.25).get_submodule("Mixed_3b").eval()
    features = torch.randn(2, 48, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = block(features)
        parts = []
        for place in range(4):
            output, fc = block.get_submodule(f"branch{place}")(features), block.get_submodule(f"gating_b{place}.fc")
            for clip in output:
                means = [channel.mean() for channel in clip]
                sums = [sum(w * m for w, m in zip(row, means, strict=True)) for row in fc.weight]
                gates = [1 / (1 + torch.exp(-(total + bias))) for total, bias in zip(sums, fc.bias, strict=True)]
                parts.append(torch.stack([gate * channel for gate, channel in zip(gates, clip, strict=True)]))
        expected = torch.cat([torch.stack(parts[2 * place : 2 * place + 2]) for place in range(4)], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_gates_are_all_that_s3dg_has_beyond_s3d() -> None:
    plain, gated = (set(backbones.create(name).state_dict()) for name in ("s3d", "s3dg"))
    added = gated - plain
    assert plain < gated and len(added) == 9 * 4 * 2 and all(".gating_b" in name for name in added)


def test_unknown_names_fail_with_the_nearest_spelling() -> None:
    with pytest.raises(Refusal, match=r'unknown backbone "s3dd"(.|\n)*did you mean "s3d"(.|\n)*small'):
        backbones.create("s3dd")
    with pytest.raises(Refusal, match=r'unknown setting "widht"(.|\n)*backbone "s3d"(.|\n)*did you mean "width"'):
        backbones.create("s3d", widht=0.5)


@pytest.mark.parametrize("width", [0, -1.0, "1", True, float("nan")])
@pytest.mark.parametrize("name", BACKBONES.names)
def test_width_fails_out_of_range(name: str, width: object) -> None:
    with pytest.raises(ValueError, match="width"):
        backbones.create(name, width=width)


def test_backbones_are_imported_only_when_asked_for() -> None:
    code = """
import sys
from train import backbones
backbones.create("small")
assert "train.backbones.small" in sys.modules
assert "train.backbones.s3d" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE, cwd=Path(__file__).resolve().parents[2])
