"""S3D, without and with gating: Inception v1 with every 3-D convolution separated into space and time.

Xie et al., "Rethinking Spatiotemporal Feature Learning", 2018, in the form that CoCLR and ViCC trained: the stem also
strides over time, batch norm has PyTorch's defaults, and modules carry the names of the published checkpoints.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.backbones import Backbone, Width, scaled

# Output channels of the units of a mixed block: branch 0, branch 1 (1x1x1, separated 3), branch 2 (likewise), branch 3.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class S3D(Backbone):
    """S3D: 7.9 M weights and 1024 features at width 1; 32x128x128 -> 4x4x4.

    `width` multiplies every channel count (rounded to multiples of 8).

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 8
    space_stride: ClassVar[int] = 32
    smallest_clip: ClassVar[tuple[int, int, int]] = (5, 17, 17)  # the last pooling drops an odd row, the others keep it
    gated: ClassVar[bool] = False

    def __init__(self, in_channels: int = 3, width: Width = 1.0) -> None:
        super().__init__()
        stem, middle = scaled(64, width), scaled(192, width)
        self.Conv_1a = Separated(in_channels, stem, kernel=7, stride=2)
        self.pool_2a = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.Conv_2b = Unit(stem, stem)
        self.Conv_2c = Separated(stem, middle, kernel=3)
        self.pool_3a = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        channels = self._add_mixed(middle, "Mixed_3b", "Mixed_3c", width=width)
        self.pool_4a = nn.MaxPool3d(3, stride=2, padding=1)
        channels = self._add_mixed(channels, "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", width=width)
        self.pool_5a = nn.MaxPool3d(2, stride=2)
        self.feature_size = self._add_mixed(channels, "Mixed_5b", "Mixed_5c", width=width)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=0.01)

    def _add_mixed(self, channels: int, *names: str, width: float) -> int:
        for name in names:
            block = Mixed(channels, tuple(scaled(count, width) for count in MIXED[name]), self.gated)
            self.add_module(name, block)
            channels = block.out_channels
        return channels

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> (B, feature_size, t, h, w)."""
        features = clips
        for stage in self.children():  # in the order of their definition
            features = stage(features)
        return features


class S3DG(S3D):
    """S3D with a gate behind every branch of the mixed blocks: 9.1 M weights at width 1. No published checkpoint has
    it."""

    gated: ClassVar[bool] = True


class Unit(nn.Module):
    """Convolution 1x1x1 -> batch norm -> ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(features)), inplace=True)


class Separated(nn.Module):
    """Convolution over space -> batch norm -> ReLU -> convolution over time -> batch norm -> ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        around = kernel // 2
        self.conv1 = nn.Conv3d(
            in_channels, out_channels, (1, kernel, kernel), (1, stride, stride), (0, around, around), bias=False
        )
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, (kernel, 1, 1), (stride, 1, 1), (around, 0, 0), bias=False)
        self.bn2 = nn.BatchNorm3d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        return functional.relu(self.bn2(self.conv2(features)), inplace=True)


class Mixed(nn.Module):
    """Inception block: four branches, each with its gate if `gated`, concatenated."""

    def __init__(self, in_channels: int, counts: tuple[int, ...], gated: bool) -> None:
        super().__init__()
        alone, reduce1, out1, reduce2, out2, pooled = counts
        self.branch0 = nn.Sequential(Unit(in_channels, alone))
        self.branch1 = nn.Sequential(Unit(in_channels, reduce1), Separated(reduce1, out1, kernel=3))
        self.branch2 = nn.Sequential(Unit(in_channels, reduce2), Separated(reduce2, out2, kernel=3))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), Unit(in_channels, pooled))
        widths = (alone, out1, out2, pooled)
        for branch, width in enumerate(widths if gated else ()):
            self.add_module(f"gating_b{branch}", Gate(width))
        self.gated = gated
        self.out_channels = sum(widths)

    def forward(self, features: Tensor) -> Tensor:
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        outputs = [branch(features) for branch in branches]
        if self.gated:
            outputs = [self.get_submodule(f"gating_b{place}")(output) for place, output in enumerate(outputs)]
        return torch.cat(outputs, dim=1)


class Gate(nn.Module):
    """Every channel times a weight in 0..1, which a square linear layer makes of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        weights = torch.sigmoid(self.fc(features.mean(dim=(2, 3, 4))))
        return features * weights[:, :, None, None, None]
