"""Networks from clips to feature maps, chosen by name. A new one is one module and one line of BACKBONES."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from train.settings.arguments import check_number
from train.settings.registry import Registry

BACKBONES = Registry(
    "backbone",
    {
        "r2plus1d-10": "train.backbones.r2plus1d:R2Plus1D10",
        "r2plus1d-18": "train.backbones.r2plus1d:R2Plus1D18",
        "r3d-18": "train.backbones.r3d:R3D18",
        "resnet2d3d-18": "train.backbones.resnet2d3d:ResNet2D3D18",
        "resnet2d3d-34": "train.backbones.resnet2d3d:ResNet2D3D34",
        "resnet2d3d-50": "train.backbones.resnet2d3d:ResNet2D3D50",
        "s3d": "train.backbones.s3d:S3D",
        "s3dg": "train.backbones.s3d:S3DG",
        "small": "train.backbones.small:Small",
    },
)

Width = Annotated[float, Field(gt=0, le=64)]  # what every channel count is multiplied with, as recipes may say it


class Backbone(nn.Module):
    """Clips (B, C, T, H, W) -> feature map (B, feature_size, t, h, w).

    The grid shrinks by `time_stride` and `space_stride`; `smallest_clip` is the least (T, H, W) that leaves something.
    """

    feature_size: int
    time_stride: ClassVar[int]
    space_stride: ClassVar[int]
    smallest_clip: ClassVar[tuple[int, int, int]]


def create(name: str, in_channels: int = 3, **settings: Any) -> Backbone:
    """A freshly initialised backbone.

    Raises:
        UsageError: unknown name or setting, with the nearest spelling and the known ones.
    """
    return BACKBONES.create(name, in_channels=in_channels, **settings)


def scaled(channels: int, width: float) -> int:
    """`channels` x `width`, rounded to a multiple of 8 (what matrix units like), at least 8; exact at width 1.

    Raises:
        ValueError: a width that is not positive.
    """
    check_number("width", width, above=0)
    return channels if width == 1 else max(8, round(channels * width / 8) * 8)


def kaiming(network: nn.Module) -> None:
    """Kaiming-normal weights (He et al. 2015; fan-out, for ReLU) in every convolution, as most backbones here begin."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
