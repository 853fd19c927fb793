"""A network by its parts, each chosen by name: what losses compare, and the layers that evaluation looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from train import backbones
from train.hardware.precision import at_least_float32
from train.networks.aggregations import AGGREGATIONS, Aggregation
from train.networks.heads import HEADS
from train.networks.pools import POOLS

LAYERS = {"backbone": "backbone", "context": "aggregation", "head": "head"}  # layer -> the part that gives it, in order
CLASSES = "classes"  # what a classifier makes of its logits


class Network(nn.Module):
    """Backbone -> pool -> head; with an aggregation blocks of the clip -> backbone -> aggregation -> head.

    Args:
        backbone, backbone_settings: name and settings of `train.backbones.create`.
        in_channels: of the clips, as the stream gives them.
        temporal_centring: subtract each clip's own mean over time first. What stands still vanishes, and a small
            network on RGB learns motion; without it even supervised RGB stays at chance at the demo's size.
        pool: a name in `train.networks.pools.POOLS`: how a feature map becomes a row.
        head, head_settings: a name in `train.networks.heads.HEADS`, and what it is made with, such as `dim`, the length
            of the rows that losses compare.
        aggregation, aggregation_settings: a name in `train.networks.aggregations.AGGREGATIONS`, and what it is made
            with. A clip is then N blocks of `block_length` frames, of which the backbone sees each alone.

    Its layers, each of which gives one row per clip, are:
        backbone: the pooled feature; of several blocks their mean.
        context: what the aggregation makes of the blocks, where there is one.
        head: what the head makes of the context, or else of the pooled feature, where there is one.
    Where the head is a classifier, `embed` also gives `classes`: probabilities, the softmax of its logits.

    Raises:
        UsageError: an unknown name or setting.
        ValueError: a setting out of range.
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
        aggregation: str | None = None,
        aggregation_settings: Mapping[str, Any] | None = None,
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
            "aggregation": aggregation,
            "aggregation_settings": dict(aggregation_settings or {}),
        }
        self.in_channels, self.temporal_centring = in_channels, temporal_centring
        self.backbone = backbones.create(backbone, in_channels=in_channels, **(backbone_settings or {}))
        # The layout that convolutions work in: a step takes .87 (small) or .77 (s3d) of the time on a CPU.
        self.backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        features = self.backbone.feature_size
        self.pool = POOLS.create(pool)
        self._sizes = {"backbone": self.pool.cells * features}
        self.aggregation: Aggregation | None = None
        if aggregation is not None:
            self.aggregation = AGGREGATIONS.create(aggregation, in_features=features, **(aggregation_settings or {}))
            self._sizes["context"] = self.aggregation.size
        self.head = HEADS.create(head, in_features=self._sizes[self.layers[-1]], **(head_settings or {}))
        if self.head.size:
            self._sizes["head"] = self.head.size
        self._frozen = False

    def frozen(self) -> Self:
        """The same network, whose weights and batch statistics stay what they are from now on."""
        self._frozen = True
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode, where it is frozen."""
        return super().train(mode and not self._frozen)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of what `embed` gives, in the order in which a clip passes them."""
        return tuple(self._sizes)

    def size(self, layer: str) -> int:
        """Length of a layer's rows. Raises ValueError for a layer that there is not."""
        if layer == CLASSES and self.head.classifies:
            return self.head.size
        if layer not in self._sizes:
            raise ValueError(f"the network has no layer {layer!r}; it has {', '.join(self._sizes)}")
        return self._sizes[layer]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What has weights, by the names under which the state dict has them."""
        return {LAYERS[layer]: self.get_submodule(LAYERS[layer]) for layer in self.layers}

    def origin(self, layer: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that a layer's rows follow from: settings, and weights under the names of the state dict."""
        self.size(layer)
        layer = "head" if layer == CLASSES else layer
        settings = {name: value for name, value in self.settings.items() if layer == "head" or "head" not in name}
        passed = tuple(LAYERS[name] for name in self.layers[: self.layers.index(layer) + 1])
        return settings, {name: tensor for name, tensor in self.state_dict().items() if name.startswith(passed)}

    def embed(self, clips: Tensor, layer: str) -> Tensor:
        """A layer's rows (B, `size(layer)`) of clips (B, C, T, H, W), float32 also under autocast.

        Rows of the head are unit rows where the head says so; others are as they come.

        Raises:
            ValueError: a layer that there is not, clips of another number of channels, too small for the backbone, or
                of no whole number of blocks.
        """
        self.size(layer)
        if layer == CLASSES:
            return self.embed(clips, "head").softmax(dim=1)
        if layer == "backbone" or self.aggregation is None:
            rows = self.pool(self._maps(clips)).unflatten(0, (-1, self._blocks(clips))).mean(dim=1)
        else:
            rows = at_least_float32(self.aggregation(self.block_maps(clips)))
        if layer == "head":
            rows = at_least_float32(self.head(rows))
            rows = functional.normalize(rows, dim=1) if self.head.unit else rows
        return rows

    def forward(self, clips: Tensor) -> Tensor:
        """What losses compare: the rows of the last layer, of clips (B, C, T, H, W)."""
        return self.embed(clips, self.layers[-1])

    def block_maps(self, clips: Tensor) -> Tensor:
        """The backbone's map of each block (B, N, F, h, w), the mean over its time, float32. Raises ValueError as
        `embed`."""
        return self._maps(clips).mean(dim=2).unflatten(0, (-1, self._blocks(clips)))

    def _blocks(self, clips: Tensor) -> int:
        return clips.shape[2] // self.aggregation.block_length if self.aggregation else 1

    def _maps(self, clips: Tensor) -> Tensor:
        """The backbone's maps (B * N, F, t, h, w) of each clip's N blocks, float32."""
        self._refuse_shape(clips)
        if self.temporal_centring:
            clips = clips - clips.mean(dim=2, keepdim=True)
        if self.aggregation:
            clips = clips.unflatten(2, (-1, self.aggregation.block_length)).transpose(1, 2).flatten(0, 1)
        return at_least_float32(self.backbone(clips.contiguous(memory_format=torch.channels_last_3d)))

    def _refuse_shape(self, clips: Tensor) -> None:
        if clips.ndim != 5 or clips.shape[1] != self.in_channels:
            raise ValueError(f"clips are {tuple(clips.shape)}, and the network's (B, {self.in_channels}, T, H, W)")
        frames = self.aggregation.block_length if self.aggregation else clips.shape[2]
        if not clips.shape[2] or clips.shape[2] % frames:
            raise ValueError(f"clips of {clips.shape[2]} frames are no whole number of blocks of {frames}")
        seen, smallest = (frames, *clips.shape[3:]), self.backbone.smallest_clip
        if any(side < least for side, least in zip(seen, smallest, strict=True)):
            raise ValueError(
                f"clips of {grid(seen)} (frames x height x width) are too small for {type(self.backbone).__name__},"
                f" which needs {grid(smallest)}"
            )


def grid(sides: tuple[int, ...]) -> str:
    """Sides in words: 8x112x112."""
    return "x".join(str(side) for side in sides)
