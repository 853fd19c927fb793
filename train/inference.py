"""Features of clips from a network as it is: read ahead while it computes, in evaluation mode, without gradients."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from train.augment import ClipPlan, colour_maps
from train.encoder import Encoder
from train.reader import Executor
from train.reader.affine import normalise

BATCH = 32  # clips at once


@torch.no_grad()
def unit_features(
    encoder: Encoder, stream: str, plans: Iterable[ClipPlan], reader: Executor
) -> Iterator[tuple[Tensor, Tensor]]:
    """For every batch of clips: their places among the plans, int64 (B,), and their backbone features as unit rows (B, F).

    Both on the CPU. Batch norm uses its running statistics; afterwards the encoder is in the mode that it was in.
    """
    device = next(encoder.parameters()).device
    with _evaluating(encoder):
        for places, clips in clips_ahead(plans, stream, reader, device):
            yield places, functional.normalize(encoder.features(clips), dim=1).cpu()


def clips_ahead(
    plans: Iterable[ClipPlan], stream: str, reader: Executor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """(places (B,), clips (B, D, T, h, w) float on `device`); the next batch is read while the caller computes."""

    def read(batch: Sequence[tuple[int, ClipPlan]]) -> tuple[Tensor, Tensor, Tensor]:
        places, chosen = zip(*batch, strict=True)
        return torch.tensor(places), reader.run(stream, list(chosen)), colour_maps(chosen, stream)

    numbered = enumerate(plans)
    batches = iter(lambda: list(itertools.islice(numbered, BATCH)), [])
    upcoming = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        for batch in itertools.chain(batches, [None]):
            ready, upcoming = upcoming, pool.submit(read, batch) if batch else None
            if ready is not None:
                places, clips, affine = ready.result()
                yield places, normalise(clips.to(device), affine.to(device))


@contextlib.contextmanager
def _evaluating(encoder: Encoder) -> Iterator[None]:
    was_training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(was_training)
