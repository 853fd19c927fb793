"""A backbone with a projection head: clips in, unit rows out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import Refusal, UsageError
from train import backbones
from train.precision import at_least_float32

STREAM_CHANNELS = {"rgb": 3, "flow": 2}
OF_ENCODERS = ("backbone", "backbone_settings", "dim", "temporal_centring")  # what a recipe says of an encoder


class Encoder(nn.Module):
    """Backbone -> global average pool -> linear F->F -> ReLU -> linear F->`dim` -> unit rows.

    The head of CoCLR, without batch norm. Evaluation drops it and uses `features`. The published heads are 1x1x1
    convolutions on the pooled feature: the same numbers in another shape.

    Args:
        backbone, backbone_settings: name and settings of `train.backbones.create`.
        in_channels: 3 for RGB, 2 for flow (`STREAM_CHANNELS`), 3 for flow that is given as an image.
        dim: length D of the rows that losses compare.
        temporal_centring: subtract each clip's own mean over time first. What stands still vanishes, and a small
            network on RGB learns motion; without it even supervised RGB stays at chance at the demo's size.
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int,
        dim: int = 128,
        backbone_settings: dict[str, Any] | None = None,
        temporal_centring: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.temporal_centring = in_channels, temporal_centring
        self.backbone = backbones.create(backbone, in_channels=in_channels, **(backbone_settings or {}))
        # All that `features` follow from, beside the weights.
        self.settings = {
            "backbone": backbone,
            "backbone_settings": backbone_settings or {},
            "in_channels": in_channels,
            "temporal_centring": temporal_centring,
        }
        size = self.backbone.feature_size
        self.head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, dim))
        # The layout that convolutions work in: a step takes .87 (small) or .77 (s3d) of the time on a CPU.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, clips: Tensor) -> Tensor:
        """Pooled backbone feature (B, F) of clips (B, C, T, H, W), not normalised.

        Raises:
            Refusal: clips of another number of channels, or too small for the backbone.
        """
        self._refuse_shape(clips)
        if self.temporal_centring:
            clips = clips - clips.mean(dim=2, keepdim=True)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return at_least_float32(self.backbone(clips)).mean(dim=(2, 3, 4))

    def forward(self, clips: Tensor) -> Tensor:
        """Unit rows (B, dim) of clips (B, C, T, H, W), float32 also under autocast."""
        return functional.normalize(at_least_float32(self.head(self.features(clips))), dim=1)

    def _refuse_shape(self, clips: Tensor) -> None:
        smallest = self.backbone.smallest_clip
        if clips.ndim != 5 or clips.shape[1] != self.in_channels:
            needed = f"(B, {self.in_channels}, T, H, W)"
            raise Refusal("clips of another kind than the network's", where=f"{tuple(clips.shape)}", remedy=needed)
        if any(side < least for side, least in zip(clips.shape[2:], smallest, strict=True)):
            raise Refusal(
                f"clips of {_grid(clips.shape[2:])} (frames x height x width) are too small for the backbone",
                where=type(self.backbone).__name__,
                remedy=f"at least {_grid(smallest)}, or another backbone",
            )


def check_fit(given: Encoder, started: Encoder, name: str) -> None:
    """Raises UsageError if an encoder cannot start as another one."""
    shapes = [
        {key: tuple(tensor.shape) for key, tensor in encoder.state_dict().items()} for encoder in (given, started)
    ]
    differing = [key for key in sorted(shapes[0].keys() | shapes[1].keys()) if shapes[0].get(key) != shapes[1].get(key)]
    if differing:
        found = f"{differing[0]}: {shapes[0].get(differing[0], 'nothing')} there, {shapes[1].get(differing[0], 'nothing')} here"
        raise UsageError(
            f"the network of {name!r} is another one: {found}",
            where=name,
            remedy="the same backbone, backbone_settings, dim and input in both",
        )


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """key <- momentum * key + (1 - momentum) * query, over parameters only: batch-norm statistics stay apart."""
    for kept, followed in zip(key.parameters(), query.parameters(), strict=True):
        kept.mul_(momentum).add_(followed, alpha=1 - momentum)


def _grid(sides: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in sides)
