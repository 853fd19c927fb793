"""What the numbers of a recipe ask of memory."""

from __future__ import annotations

import math
import os

import torch
from rich.filesize import decimal

from pipeline.errors import Refusal
from train import checkpoints
from train.recipe import Recipe, StageSettings


def check(recipe: Recipe, stage: StageSettings) -> None:
    """Raises Refusal where the networks, or a batch of clips, alone need more memory than there is; none is taken."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    pixels = sum(
        len(clips) * recipe.channels[name] * math.prod(recipe.clips.stream(name).size)
        for name, clips in stage.settings.reads.items()
    )
    batch = recipe.batch_of(stage) * recipe.clips.length * pixels  # a byte each
    try:
        with torch.device("meta"):
            method = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
        held = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
        told = f"need {decimal(held)}"
    except (RuntimeError, OverflowError) as error:  # more bytes than can be counted
        held, told = memory + 1, f"are larger than any memory: {error}"
    if held > memory:
        raise Refusal(
            f"the networks of stage {stage.name!r} {told}; this machine has {decimal(memory)}",
            where=f"{stage.name}: settings",
            remedy="smaller numbers in the recipe: dim, queue, and the settings of the parts",
        )
    if batch > memory:
        raise Refusal(
            f"a batch of clips of stage {stage.name!r} needs {decimal(batch)}; this machine has {decimal(memory)}",
            where="batch, clips",
            remedy="smaller numbers in the recipe: batch, length and size of its clips",
        )
