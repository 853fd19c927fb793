"""ResNets with 2-D convolutions in their first half and 3-D ones in their second, of which there are two kinds.

-18 and -34 are DPC's and CoCon's (docs/methods.md 3.4): Han et al., "Video Representation Learning by Dense
Predictive Coding", 2019. -50 is what CoCLR's code has under the name r50, after CVRL (docs/methods.md 3.4), where
3-D convolutions are separated and time shrinks in the stem alone; no published result uses it.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from train.backbones import Width, scaled
from train.backbones.residual import ResNet, basic_layer

WIDTHS_18 = (64, 128, 256, 256)
BLOCKS_50 = (3, 4, 6, 3)
WIDTHS_50 = (64, 128, 256, 512)
EXPANSION = 4
THROUGH_TIME = (1, 1, 3, 3)  # frames that the first convolution of a layer's blocks sees


class ResNet2D3D18(ResNet):
    """14.1 M weights and 256 features at width 1; 5x128x128 -> 2x4x4.

    Features are not cut off at zero: the last block has no ReLU.

    Args:
        in_channels: of the clips. Published: 3 for RGB, 2 for flow, 17 for key-points, 1 for segmentation.
        width: multiplies every channel count (rounded to multiples of 8).
        running_statistics: whether batch norm keeps statistics for evaluation (CoCon). Without them it uses those of
            the batch also there, so that a clip's features depend on the clips beside it (DPC's released weights).

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 4
    space_stride: ClassVar[int] = 32
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)
    blocks: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)

    def __init__(self, in_channels: int = 3, width: Width = 1.0, running_statistics: bool = True) -> None:
        channels = scaled(64, width)
        stem = nn.Conv3d(in_channels, channels, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        layers = []
        for number, (blocks, planes) in enumerate(zip(self.blocks, WIDTHS_18, strict=True), start=1):
            kernel = (1, 3, 3) if number < 3 else (3, 3, 3)
            stride = {1: (1, 1, 1), 2: (1, 2, 2)}.get(number, (2, 2, 2))
            layers.append(basic_layer(channels, scaled(planes, width), blocks, kernel, stride, running_statistics))
            channels = scaled(planes, width)
        layers[-1][-1].relu = False
        super().__init__(stem, _pool(), layers, running_statistics)
        self.feature_size = channels


class ResNet2D3D34(ResNet2D3D18):
    """The same with more blocks a layer, 32.4 M weights: DPC's and CoCon's for RGB at 224x224; 5x224x224 -> 2x7x7."""

    blocks: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)


class ResNet2D3D50(ResNet):
    """31.7 M weights and 2048 features at width 1; 32x128x128 -> 16x4x4. Time shrinks in the stem alone.

    `width` multiplies every channel count (rounded to multiples of 8).

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 2
    space_stride: ClassVar[int] = 32
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    def __init__(self, in_channels: int = 3, width: Width = 1.0) -> None:
        channels = scaled(64, width)
        stem = nn.Conv3d(in_channels, channels, (5, 7, 7), stride=2, padding=(2, 3, 3), bias=False)
        layers = []
        for number, (blocks, planes, frames) in enumerate(
            zip(BLOCKS_50, WIDTHS_50, THROUGH_TIME, strict=True), start=1
        ):
            inner = scaled(planes, width)
            layer = []
            for place in range(blocks):
                stride = 2 if place == 0 and number > 1 else 1
                layer.append(Bottleneck(channels, inner, frames, stride, shortcut=place == 0))
                channels = inner * EXPANSION
            layers.append(layer)
        super().__init__(stem, _pool(), layers)
        self.feature_size = channels


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


def _pool() -> nn.MaxPool3d:
    return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
