"""ResNet-18 with 3-D convolutions throughout, in the form that SLIC trained (docs/methods.md 3.3).

Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", 2018, with a stem of seven
frames and, other than there, no pooling behind it. torchvision's r3d_18 has a stem of three frames.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from train.backbones import Width, scaled
from train.backbones.residual import ResNet, basic_layer

WIDTHS = (64, 128, 256, 512)


class R3D18(ResNet):
    """33.2 M weights and 512 features at width 1; 16x128x128 -> 2x8x8.

    `width` multiplies every channel count (rounded to multiples of 8).

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 8
    space_stride: ClassVar[int] = 16
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    def __init__(self, in_channels: int = 3, width: Width = 1.0) -> None:
        channels = scaled(64, width)
        stem = nn.Conv3d(in_channels, channels, 7, stride=(1, 2, 2), padding=3, bias=False)
        layers = []
        for number, planes in enumerate(WIDTHS):
            stride = (2, 2, 2) if number else (1, 1, 1)
            layers.append(basic_layer(channels, scaled(planes, width), 2, (3, 3, 3), stride))
            channels = scaled(planes, width)
        super().__init__(stem, nn.Identity(), layers)
        self.feature_size = channels
