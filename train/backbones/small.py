"""A network of four layers that learns motion from 8x40x40 clips in minutes on two CPU cores."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from train.backbones import Backbone, Width, kaiming, scaled


class Small(Backbone):
    """A flat 5x5 stem, then three 3-D convolutions: 0.29 M weights and 128 features at width 1; 8x40x40 -> 4x5x5.

    `width` multiplies every channel count (rounded to multiples of 8).

    Raises:
        ValueError: a width that is not positive.
    """

    time_stride: ClassVar[int] = 2
    space_stride: ClassVar[int] = 8
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    def __init__(self, in_channels: int = 3, width: Width = 1.0) -> None:
        super().__init__()
        first, second, third, self.feature_size = (scaled(count, width) for count in (16, 32, 64, 128))
        self.layers = nn.Sequential(
            *_layer(in_channels, first, (1, 5, 5), stride=(1, 2, 2)),
            *_layer(first, second, (3, 3, 3), stride=(1, 2, 2)),
            *_layer(second, third, (3, 3, 3), stride=(2, 2, 2)),
            *_layer(third, self.feature_size, (3, 3, 3), stride=(1, 1, 1)),
        )
        kaiming(self)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> (B, feature_size, t, h, w)."""
        return self.layers(clips)


def _layer(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> tuple[nn.Module, ...]:
    around = tuple(side // 2 for side in kernel)
    convolution = nn.Conv3d(in_channels, out_channels, kernel, stride, around, bias=False)  # type: ignore[arg-type]
    return convolution, nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True)
