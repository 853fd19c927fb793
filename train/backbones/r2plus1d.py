"""R(2+1)D: ResNets whose 3-D convolutions are factorised, over space and then over time, with batch norm and ReLU
between.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", 2018. Between the two halves there
are so many channels that both together have as many weights as the 3-D convolution (`middle`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from train.backbones import Backbone, Width, kaiming, scaled
from train.backbones.residual import Sides

WIDTHS = (64, 128, 256, 512)


class R2Plus1D10(Backbone):
    """One block a stage, as ViCC trained it under the name r21d (docs/methods.md 3.2).

    14.4 M weights and 512 features at width 1; 16x112x112 -> 2x7x7. With which weights ViCC's begins is
    not known; here they are Kaiming-normal.

    `width` multiplies every channel count (rounded to multiples of 8) but those between two halves, which follow.

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 8
    space_stride: ClassVar[int] = 16
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    def __init__(self, in_channels: int = 3, width: Width = 1.0) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.conv1 = Factorised(in_channels, channels, (3, 7, 7), (1, 2, 2))
        self.bn1 = nn.BatchNorm3d(channels)
        self.stages = [f"conv{number}" for number in range(2, 2 + len(WIDTHS))]
        for number, (stage, planes) in enumerate(zip(self.stages, WIDTHS, strict=True)):
            block = FactorisedBlock(channels, scaled(planes, width), strided=number > 0)
            self.add_module(stage, nn.Sequential(OrderedDict(block1=block)))
            channels = scaled(planes, width)
        self.feature_size = channels
        kaiming(self)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> (B, feature_size, t, h, w)."""
        features = functional.relu(self.bn1(self.conv1(clips)), inplace=True)
        for stage in self.stages:
            features = self.get_submodule(stage)(features)
        return features


class R2Plus1D18(Backbone):
    """Two blocks a stage: the architecture, and the names, of torchvision's r2plus1d_18, as GOCA trained it.

    31.3 M weights and 512 features at width 1; 16x112x112 -> 2x7x7. GOCA's published feature is what the pool `1x2x2`
    makes of it, 2048 numbers (docs/methods.md 3.2).

    `width` multiplies every channel count (rounded to multiples of 8) but those between two halves, which follow.

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 8
    space_stride: ClassVar[int] = 16
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    def __init__(self, in_channels: int = 3, width: Width = 1.0) -> None:
        super().__init__()
        channels, inside = scaled(64, width), scaled(45, width)  # not `middle`, which would be 83
        self.stem = nn.Sequential(
            *_halves(in_channels, inside, channels, (3, 7, 7), (1, 2, 2)),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )
        for number, planes in enumerate(WIDTHS, start=1):
            outer = scaled(planes, width)
            blocks = TorchvisionBlock(channels, outer, strided=number > 1), TorchvisionBlock(outer, outer)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = outer
        self.feature_size = channels
        kaiming(self)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> (B, feature_size, t, h, w)."""
        features = clips
        for stage in self.children():  # in the order of their definition
            features = stage(features)
        return features


class Factorised(nn.Module):
    """Convolution over space -> batch norm -> ReLU -> convolution over time."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Sides, stride: Sides) -> None:
        super().__init__()
        inside = middle(in_channels, out_channels, kernel)
        self.spatial_conv, self.bn, _, self.temporal_conv = _halves(in_channels, inside, out_channels, kernel, stride)

    def forward(self, features: Tensor) -> Tensor:
        return self.temporal_conv(functional.relu(self.bn(self.spatial_conv(features)), inplace=True))


class FactorisedBlock(nn.Module):
    """Two factorised convolutions 3x3x3 beside a shortcut, which is factorised too where the block halves the grid."""

    def __init__(self, in_channels: int, out_channels: int, strided: bool) -> None:
        super().__init__()
        stride = (2, 2, 2) if strided else (1, 1, 1)
        self.strided = strided
        if strided:
            self.downsampleconv = Factorised(in_channels, out_channels, (1, 1, 1), stride)
            self.downsamplebn = nn.BatchNorm3d(out_channels)
        self.conv1 = Factorised(in_channels, out_channels, (3, 3, 3), stride)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = Factorised(out_channels, out_channels, (3, 3, 3), (1, 1, 1))
        self.bn2 = nn.BatchNorm3d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        inside = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        shortcut = self.downsamplebn(self.downsampleconv(features)) if self.strided else features
        return functional.relu(self.bn2(self.conv2(inside)) + shortcut, inplace=True)


class TorchvisionBlock(nn.Module):
    """Two factorised convolutions 3x3x3 beside a shortcut, which is a plain convolution where the block halves the
    grid.

    Both convolutions have as many channels between their halves as the first one needs.
    """

    def __init__(self, in_channels: int, out_channels: int, strided: bool = False) -> None:
        super().__init__()
        inside = middle(in_channels, out_channels, (3, 3, 3))
        stride = (2, 2, 2) if strided else (1, 1, 1)
        first = _halves(in_channels, inside, out_channels, (3, 3, 3), stride)
        second = _halves(out_channels, inside, out_channels, (3, 3, 3), (1, 1, 1))
        self.conv1 = nn.Sequential(nn.Sequential(*first), nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(nn.Sequential(*second), nn.BatchNorm3d(out_channels))
        self.downsample: nn.Module = nn.Identity()
        if strided:
            shortcut = nn.Conv3d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.conv2(self.conv1(features)) + self.downsample(features), inplace=True)


def middle(in_channels: int, out_channels: int, kernel: Sides) -> int:
    """Channels between the halves, so that both have as many weights as the whole: t h w I O / (h w I + t O)."""
    frames, height, width = kernel
    area = height * width
    return frames * area * in_channels * out_channels // (area * in_channels + frames * out_channels)


def _halves(
    in_channels: int, inside: int, out_channels: int, kernel: Sides, stride: Sides
) -> tuple[nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.Conv3d]:
    around = tuple(side // 2 for side in kernel)
    return (
        nn.Conv3d(in_channels, inside, (1, *kernel[1:]), (1, *stride[1:]), (0, *around[1:]), bias=False),  # type: ignore[arg-type]
        nn.BatchNorm3d(inside),
        nn.ReLU(inplace=True),
        nn.Conv3d(inside, out_channels, (kernel[0], 1, 1), (stride[0], 1, 1), (around[0], 0, 0), bias=False),
    )
