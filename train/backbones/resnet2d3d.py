"""ResNet-50 with 2-D convolutions in its first half and 3-D ones, separated, in its second (specs/coclr.md section 1.2).

CoCLR's code has it under the name r50, after CVRL; no published result uses it. The ResNets of DPC and CoCon are others.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from train.backbones import Backbone, scaled
from train.settings import check_number

BLOCKS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
THROUGH_TIME = (1, 1, 3, 3)  # frames that the first convolution of a layer's blocks sees


class ResNet2D3D50(Backbone):
    """31.7 M weights and 2048 features at width 1; 32x128x128 -> 16x4x4. Time shrinks in the stem alone.

    `width` multiplies every channel count (rounded to multiples of 8).

    Raises:
        UsageError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 2
    space_stride: ClassVar[int] = 32
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    def __init__(self, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        check_number("backbone_settings.width", width, above=0)
        channels = scaled(64, width)
        self.conv1 = nn.Conv3d(in_channels, channels, (5, 7, 7), stride=2, padding=(2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        for number, (blocks, planes, frames) in enumerate(zip(BLOCKS, WIDTHS, THROUGH_TIME, strict=True), start=1):
            inner = scaled(planes, width)
            layer = []
            for place in range(blocks):
                stride = 2 if place == 0 and number > 1 else 1
                layer.append(Bottleneck(channels, inner, frames, stride, shortcut=place == 0))
                channels = inner * EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(*layer))
        self.feature_size = channels
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> (B, feature_size, t, h, w)."""
        features = self.maxpool(functional.relu(self.bn1(self.conv1(clips)), inplace=True))
        for number in range(1, len(BLOCKS) + 1):
            features = self.get_submodule(f"layer{number}")(features)
        return features


class Bottleneck(nn.Module):
    """(frames, 1, 1) to the inner width, (1, 3, 3) with the stride over space, 1x1x1 to four times the inner width."""

    def __init__(self, in_channels: int, inner: int, frames: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        outer = inner * EXPANSION
        self.conv1 = nn.Conv3d(in_channels, inner, (frames, 1, 1), padding=(frames // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outer)
        self.downsample = (
            nn.Sequential(nn.Conv3d(in_channels, outer, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(outer))
            if shortcut
            else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        inside = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        inside = functional.relu(self.bn2(self.conv2(inside)), inplace=True)
        return functional.relu(self.bn3(self.conv3(inside)) + self.downsample(features), inplace=True)
