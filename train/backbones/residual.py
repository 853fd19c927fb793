"""What the ResNets here are built of, under the names that all published ones use."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from train.backbones import Backbone, kaiming

Sides = tuple[int, int, int]  # of a kernel, or of its stride: frames, height, width


class ResNet(Backbone):
    """Stem `conv1` -> batch norm -> ReLU -> `maxpool` -> `layer1` to `layer4`; Kaiming-normal weights.

    running_statistics: see `batch_norm`.
    """

    def __init__(
        self,
        stem: nn.Conv3d,
        maxpool: nn.Module,
        layers: Sequence[Sequence[nn.Module]],
        running_statistics: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = stem
        self.bn1 = batch_norm(stem.out_channels, running_statistics)
        self.maxpool = maxpool
        self.layers = [f"layer{number}" for number in range(1, len(layers) + 1)]
        for name, blocks in zip(self.layers, layers, strict=True):
            self.add_module(name, nn.Sequential(*blocks))
        kaiming(self)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> (B, feature_size, t, h, w)."""
        features = self.maxpool(functional.relu(self.bn1(self.conv1(clips)), inplace=True))
        for name in self.layers:
            features = self.get_submodule(name)(features)
        return features


class BasicBlock(nn.Module):
    """Two convolutions of one kernel, the first with the stride, beside a shortcut; then ReLU, unless `relu` is False.

    The shortcut is a convolution 1x1x1 with batch norm where the block changes the grid or the number of channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Sides, stride: Sides, running_statistics: bool = True
    ) -> None:
        super().__init__()
        around = tuple(side // 2 for side in kernel)
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel, stride, around, bias=False)  # type: ignore[arg-type]
        self.bn1 = batch_norm(out_channels, running_statistics)
        self.conv2 = nn.Conv3d(out_channels, out_channels, kernel, 1, around, bias=False)  # type: ignore[arg-type]
        self.bn2 = batch_norm(out_channels, running_statistics)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels or max(stride) > 1:
            shortcut = nn.Conv3d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, batch_norm(out_channels, running_statistics))
        self.relu = True

    def forward(self, features: Tensor) -> Tensor:
        inside = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        total = self.bn2(self.conv2(inside)) + self.downsample(features)
        return functional.relu(total, inplace=True) if self.relu else total


def basic_layer(
    in_channels: int, out_channels: int, blocks: int, kernel: Sides, stride: Sides, running_statistics: bool = True
) -> list[BasicBlock]:
    """The blocks of a layer, of which the first one has the stride."""
    first = BasicBlock(in_channels, out_channels, kernel, stride, running_statistics)
    others = [BasicBlock(out_channels, out_channels, kernel, (1, 1, 1), running_statistics) for _ in range(blocks - 1)]
    return [first, *others]


def batch_norm(channels: int, running_statistics: bool) -> nn.BatchNorm3d:
    """Batch norm which, without running statistics, uses those of the batch in evaluation too."""
    return nn.BatchNorm3d(channels, track_running_stats=running_statistics)
