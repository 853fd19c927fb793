"""torch.compile of a method's networks."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.errors import UsageError
from train.networks.network import Network


def compile_backbones(method: nn.Module, device: torch.device) -> None:
    """Compile the backbone of every network in place: weights keep their names, so checkpoints fit with and without.

    The first step takes minutes longer, and so does each other shape of clips.

    Raises:
        UsageError: nothing can be compiled on this machine.
    """
    try:
        torch.compile(torch.sigmoid)(torch.zeros(1, device=device))
    except RuntimeError as error:  # of dynamo and inductor, all of them; the first line names the cause
        raise UsageError(
            f"torch.compile does not work here: {str(error).strip().splitlines()[0]}",
            where="hardware.compile",
            remedy="install a C++ compiler (g++) with Python's headers, or leave --hardware.compile out",
        ) from error
    for part in method.modules():
        if isinstance(part, Network):
            part.backbone.compile()
