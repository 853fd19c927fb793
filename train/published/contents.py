"""A published state dict as it is taken apart: copies compared, shapes checked, and what is left over known by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import Refusal, spelled_out

State = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


class Contents:
    """The tensors of a file by their published names."""

    def __init__(self, state: State, where: str) -> None:
        self.state, self.where = state, where
        self._taken: set[str] = set()

    @property
    def left(self) -> tuple[str, ...]:
        """Names of what was not taken."""
        return tuple(name for name in self.state if name not in self._taken)

    def has(self, prefix: str) -> bool:
        """Whether anything is there below a prefix."""
        return any(name.startswith(prefix) for name in self.state)

    def side(self, *names: str, axis: int = 0) -> int:
        """Length along an axis of the first tensor that is there; 0 where none is, which is for `take` to refuse."""
        found = (self.state[name] for name in names if name in self.state)
        return next((tensor.shape[axis] for tensor in found if tensor.ndim > axis), 0)

    def below(self, prefix: str) -> State:
        """All tensors below a prefix, without it; they count as taken."""
        found = below(self.state, prefix)
        self._taken.update(prefix + name for name in found)
        return found

    def take(self, prefix: str, wanted: Shapes, copies: Mapping[str, str] | None = None) -> State:
        """The tensors `wanted` (name -> shape) below a prefix, without it.

        copies: name of a module under which tensors of another one are stored again -> name of the other one.
        Raises Refusal with the published names of what is missing, misshapen or unequal to its copy.
        """
        found = below(self.state, prefix)
        own = {name: original(name, copies or {}) for name in found}
        unequal = [
            f"{prefix}{name} is not equal to {prefix}{first}"
            for name, first in own.items()
            if name != first and first in found and not torch.equal(found[name], found[first])
        ]
        refuse(unequal, self.where)
        # Some files hold a copy alone; what stands under its own name comes last, and stays.
        kept = {own[name]: found[name] for name in sorted(found, key=lambda name: name == own[name])}
        problems = [f"missing {prefix}{name}" for name in wanted if name not in kept]
        problems += [
            f"{prefix}{name} is {tuple(kept[name].shape)}, not {tuple(shape)}"
            for name, shape in wanted.items()
            if name in kept and kept[name].shape != shape
        ]
        refuse(problems, self.where)
        self._taken.update(prefix + name for name, first in own.items() if first in wanted)
        return {name: kept[name] for name in wanted}


def below(state: State, prefix: str) -> State:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def original(name: str, copies: Mapping[str, str]) -> str:
    """A tensor's own name: `block4.2.branch0.0.bn.bias` is one of Mixed_4c's."""
    for copy, module in copies.items():
        if name.startswith(f"{copy}."):
            return module + name.removeprefix(copy)
    return name


def with_copies(state: State, copies: Mapping[str, str]) -> State:
    """The tensors under their own names, and again under those of the copies."""
    again = [
        (copy + name.removeprefix(module), tensor)
        for copy, module in copies.items()
        for name, tensor in state.items()
        if name.startswith(f"{module}.")
    ]
    return state | dict(again)


def refuse(problems: list[str], where: str) -> None:
    """Raises Refusal if there are any."""
    if problems:
        raise Refusal(
            f"the checkpoint is not of this layout, or damaged:{spelled_out(problems, most=8)}",
            where=where,
            remedy="give the file as it was published; nothing was loaded",
        )
