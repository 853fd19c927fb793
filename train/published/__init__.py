"""Checkpoints as the papers published them, in our names. A layout is one module here and one line in LAYOUTS."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import Refusal, refuse_unknown
from train.clips.spec import ClipSpec, StreamSettings
from train.published import files
from train.published.contents import State

# Each module has `recognises(state)`, `read(state, where)` and `write(published)`.
LAYOUTS = {
    "coclr": "train.published.coclr",
    "vicc": "train.published.vicc",
    "goca": "train.published.goca",
    "slic": "train.published.slic",
    "dpc": "train.published.dpc",
    "cocon": "train.published.cocon",
}
FLOW_AS_IMAGE = {"flow": StreamSettings(input="image", mirror="plain")}
CROP = 0.9333  # 224 of 240 pixels
# CoCLR's and ViCC's
CLIPS = ClipSpec(length=32, stride=1, size=(128, 128), crop=CROP, streams=FLOW_AS_IMAGE, pixels="published")


@dataclass(frozen=True)
class Published:
    """What a published checkpoint holds.

    layout: of the file. network: what `train.networks.network.Network` is made with beside `in_channels`, alike for all
    roles. backbones: role -> state dict of our backbone. heads: role -> tensors of what is behind it, head and
    aggregation, by their names in our network's state dict. layer: whose rows the paper compares videos by. prototypes:
    (K, D), or None. queue: name -> tensor, features as (K, D). extra: tensors that belong to none of these, by their
    published names. clips: what the networks were trained on, so that evaluation shows them the same.
    """

    layout: str
    network: dict[str, Any]
    backbones: dict[str, State]
    heads: dict[str, State]
    layer: str = "backbone"
    prototypes: Tensor | None = None
    queue: State = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    clips: ClipSpec = CLIPS

    def role(self, stream: str) -> str:
        """Whose network is a stream's: its own where the file tells streams apart, else the query's. Raises Refusal."""
        for role in (stream, "query"):
            if role in self.backbones:
                return role
        raise Refusal(
            f"the file has no {stream} network", where=self.layout, remedy=f"it has {', '.join(self.backbones)}"
        )

    def channels(self, role: str) -> int:
        """Channels of the clips that a network is for."""
        return next(iter(self.backbones[role].values())).shape[1]

    def state(self, role: str) -> State:
        """State dict of our network."""
        return {f"backbone.{name}": tensor for name, tensor in self.backbones[role].items()} | self.heads[role]


def import_published(path_or_state: str | Path | Mapping[str, Any], layout: str = "auto") -> Published:
    """Read a published checkpoint: a file, what `torch.load` made of it, or a bare state dict.

    layout: a name in LAYOUTS, or "auto" to tell it by the tensors' names. Prefixes `module.` are taken off; tensors
    that are stored twice are compared and kept once. Files that would run code are refused.

    Raises:
        Refusal: no such file or no checkpoint; tensors that are missing, of another shape or unequal to their copy, by
            their published names; a layout that cannot be told.
        UsageError: an unknown layout.
    """
    where = str(path_or_state) if isinstance(path_or_state, str | Path) else "state dict"
    loaded = (
        files.load(Path(path_or_state), remedy="download it first; nothing is fetched")
        if isinstance(path_or_state, str | Path)
        else path_or_state
    )
    state = _state(loaded, where)
    if layout == "auto":
        layout = _recognised(state, where)
    elif layout not in LAYOUTS:
        refuse_unknown("layout", layout, ["auto", *LAYOUTS])
    return importlib.import_module(LAYOUTS[layout]).read(state, where)


def published_state(published: Published) -> State:
    """The inverse of `import_published`: the tensors by their published names, copies included."""
    return importlib.import_module(LAYOUTS[published.layout]).write(published)


def _state(loaded: Any, where: str) -> State:
    """The tensors, without the prefix of DataParallel and the like."""
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(inner, Mapping):
        raise Refusal("this is no state dict", where=where, remedy="give a file with tensors by name")
    tensors = {
        str(name).removeprefix("module."): tensor for name, tensor in inner.items() if isinstance(tensor, Tensor)
    }
    if not tensors or len(tensors) != sum(isinstance(tensor, Tensor) for tensor in inner.values()):
        raise Refusal(
            "this is no state dict", where=where, remedy="give a file with tensors, each under a name of its own"
        )
    return tensors


def _recognised(state: State, where: str) -> str:
    fitting = [name for name, module in LAYOUTS.items() if importlib.import_module(module).recognises(state)]
    if len(fitting) != 1:
        raise Refusal(
            f"the layout of the checkpoint cannot be told ({', '.join(fitting) or 'none fits'})",
            where=where,
            remedy=f"name it: {', '.join(LAYOUTS)}; its first tensors are {', '.join(list(state)[:4])}",
        )
    return fitting[0]
