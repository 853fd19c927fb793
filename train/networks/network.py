"""A network by its parts, each chosen by name: what losses compare, and the layers that evaluation looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import Refusal, UsageError
from train import backbones
from train.networks.heads import HEADS
from train.networks.pools import POOLS
from train.precision import at_least_float32


class Network(nn.Module):
    """Backbone -> pool -> head.

    Args:
        backbone, backbone_settings: name and settings of `train.backbones.create`.
        in_channels: of the clips, as the stream gives them.
        temporal_centring: subtract each clip's own mean over time first. What stands still vanishes, and a small
            network on RGB learns motion; without it even supervised RGB stays at chance at the demo's size.
        pool: a name in `train.networks.pools.POOLS`: how a feature map becomes a row.
        head, head_settings: a name in `train.networks.heads.HEADS`, and what it is made with, such as `dim`, the length of
            the rows that losses compare.

    Its layers, each of which gives one row per clip, are `backbone`, the pooled feature, and where there is a head `head`.

    Raises:
        UsageError: an unknown name or setting.
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int,
        backbone_settings: Mapping[str, Any] | None = None,
        temporal_centring: bool = False,
        pool: str = "global",
        head: str = "coclr",
        head_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Made again from them, and given the same weights, it is the same network.
        self.settings: dict[str, Any] = {
            "backbone": backbone,
            "in_channels": in_channels,
            "backbone_settings": dict(backbone_settings or {}),
            "temporal_centring": temporal_centring,
            "pool": pool,
            "head": head,
            "head_settings": dict(head_settings or {}),
        }
        self.in_channels, self.temporal_centring = in_channels, temporal_centring
        self.backbone = backbones.create(backbone, in_channels=in_channels, **(backbone_settings or {}))
        # The layout that convolutions work in: a step takes .87 (small) or .77 (s3d) of the time on a CPU.
        self.backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.pool = POOLS.create(pool)
        self._sizes = {"backbone": self.pool.cells * self.backbone.feature_size}
        self.head = HEADS.create(head, in_features=self._sizes["backbone"], **(head_settings or {}))
        if self.head.size:
            self._sizes["head"] = self.head.size

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of what `embed` gives, in the order in which a clip passes them."""
        return tuple(self._sizes)

    def size(self, layer: str) -> int:
        """Length of a layer's rows. Raises ValueError for a layer that there is not."""
        if layer not in self._sizes:
            raise ValueError(f"the network has no layer {layer!r}; it has {', '.join(self._sizes)}")
        return self._sizes[layer]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What has weights, by the names under which the state dict has them."""
        return {"backbone": self.backbone, **({"head": self.head} if "head" in self._sizes else {})}

    def origin(self, layer: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that a layer's rows follow from: settings, and weights under the names of the state dict."""
        self.size(layer)
        later = "head" if layer == "backbone" else "nothing"
        settings = {name: value for name, value in self.settings.items() if not name.startswith(later)}
        weights = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(later)}
        return settings, weights

    def embed(self, clips: Tensor, layer: str) -> Tensor:
        """A layer's rows (B, `size(layer)`) of clips (B, C, T, H, W), float32 also under autocast.

        Rows of the head are unit rows where the head says so; those of the backbone are as the pool gives them.

        Raises:
            ValueError: a layer that there is not, or clips of another number of channels.
            Refusal: clips that are too small for the backbone, as a recipe may ask for them.
        """
        self.size(layer)
        features = self.pool(at_least_float32(self._map(clips)))
        return features if layer == "backbone" else self._compared(features)

    def forward(self, clips: Tensor) -> Tensor:
        """What losses compare: the rows of the last layer, of clips (B, C, T, H, W)."""
        return self.embed(clips, self.layers[-1])

    def _map(self, clips: Tensor) -> Tensor:
        """The backbone's feature map (B, F, t, h, w)."""
        self._refuse_shape(clips)
        if self.temporal_centring:
            clips = clips - clips.mean(dim=2, keepdim=True)
        return self.backbone(clips.contiguous(memory_format=torch.channels_last_3d))

    def _compared(self, features: Tensor) -> Tensor:
        rows = at_least_float32(self.head(features))
        return functional.normalize(rows, dim=1) if self.head.unit else rows

    def _refuse_shape(self, clips: Tensor) -> None:
        smallest = self.backbone.smallest_clip
        if clips.ndim != 5 or clips.shape[1] != self.in_channels:
            raise ValueError(f"clips are {tuple(clips.shape)}, and the network's (B, {self.in_channels}, T, H, W)")
        if any(side < least for side, least in zip(clips.shape[2:], smallest, strict=True)):
            raise Refusal(
                f"clips of {_grid(clips.shape[2:])} (frames x height x width) are too small for the backbone",
                where=type(self.backbone).__name__,
                remedy=f"at least {_grid(smallest)}, or another backbone",
            )


def check_fit(given: Network, started: Network, name: str) -> None:
    """Raises UsageError if a network cannot start as another one."""
    shapes = [
        {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} for network in (given, started)
    ]
    differing = [key for key in sorted(shapes[0].keys() | shapes[1].keys()) if shapes[0].get(key) != shapes[1].get(key)]
    if differing:
        found = f"{differing[0]}: {shapes[0].get(differing[0], 'nothing')} there, {shapes[1].get(differing[0], 'nothing')} here"
        raise UsageError(
            f"the network of {name!r} is another one: {found}",
            where=name,
            remedy="the same backbone, backbone_settings, dim and input in both",
        )


def _grid(sides: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in sides)
