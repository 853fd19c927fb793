"""Checkpoints as the papers published them, in our names. A layout is one module here and one line in LAYOUTS."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import Refusal, refuse_unknown
from train import files

State = dict[str, Tensor]

# Each module has `recognises(names)`, `read(state, where)` and `write(published)`.
LAYOUTS = {"coclr": "train.published.coclr"}


@dataclass(frozen=True)
class Published:
    """What a published checkpoint holds.

    backbones: role -> state dict of our backbone. heads: role -> state dict of our head. prototypes: (K, D), or None. queue:
    name -> tensor, features as (K, D). backbone: our name of the backbone. layout: of the file. extra: tensors that belong to
    none of these, by their published names.
    """

    layout: str
    backbone: str
    backbones: dict[str, State]
    heads: dict[str, State] = field(default_factory=dict)
    prototypes: Tensor | None = None
    queue: State = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @property
    def classifier(self) -> State:
        """What a linear probe or a fine-tuned network has in place of a projection head; empty for other files."""
        head = self.heads["query"]
        return {} if "head.0.weight" in head else head

    def encoder(self, role: str) -> State:
        """State dict of our encoder: backbone, its statistics, and head. Of a network with a classifier: without a head."""
        backbone = {f"backbone.{name}": tensor for name, tensor in self.backbones[role].items()}
        return backbone if self.classifier else backbone | self.heads[role]


def import_published(path_or_state: str | Path | Mapping[str, Any], layout: str = "auto") -> Published:
    """Read a published checkpoint: a file, what `torch.load` made of it, or a bare state dict.

    layout: a name in LAYOUTS, or "auto" to tell it by the tensors' names. Prefixes `module.` are taken off; tensors that are
    stored twice are compared and kept once. Files that would run code are refused.

    Raises:
        Refusal: no such file or no checkpoint; tensors that are missing, of another shape or unequal to their copy, by their
            published names; a layout that cannot be told.
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


def take(state: State, prefix: str) -> State:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def fit(found: State, wanted: Mapping[str, Tensor], prefix: str, where: str) -> State:
    """The tensors named in `wanted`, which give the shapes. Raises Refusal naming what is missing or misshapen."""
    problems = [f"missing {prefix}{name}" for name in wanted if name not in found]
    problems += [
        f"{prefix}{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    refuse(problems, where)
    return {name: found[name] for name in wanted}


def refuse(problems: list[str], where: str) -> None:
    """Raises Refusal if there are any."""
    if problems:
        shown = "\n    ".join(problems[:8]) + (f"\n    and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise Refusal(
            f"the checkpoint is not of this layout, or damaged:\n    {shown}",
            where=where,
            remedy="give the file as it was published; nothing was loaded",
        )


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
