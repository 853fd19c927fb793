"""What happens beside training, a Lightning callback each: figures, the bar, stopping, checkpoints, the profile.

`train.stages` lists them in the order in which they see the end of a step. Lightning calls them at the end of every
pass; what belongs to an optimiser step asks `ends_step` first.
"""

from __future__ import annotations

from lightning.pytorch import Trainer

from train.batches.loader import ClipLoader


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the optimiser moved after this pass: with `accumulate` it does after every so many."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def loader_of(trainer: Trainer) -> ClipLoader:
    """The loader that a stage reads from."""
    loader = trainer.train_dataloader
    assert isinstance(loader, ClipLoader)
    return loader
