"""Features of clips from networks as they are: read ahead while they compute, in evaluation mode, without gradients."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from train.augment import ClipPlan, colour_maps
from train.networks.network import Network
from train.reader import Executor
from train.reader.affine import normalise
from train.reader.streams import used_here

BATCH = 32  # clips at once


@torch.no_grad()
def clip_features(
    networks: Sequence[Network],
    plans: Iterable[ClipPlan],
    reader: Executor,
    layer: str,
    batch: int,
    unit: bool = True,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For every `batch` of clips, which is read once for all networks: the clips' places among the plans, int64 (B,),
    and each network's rows of its `layer` (B, D), as unit rows or as they are.

    All on the CPU. Batch norm uses its running statistics; afterwards the networks, which are on one device, are in the
    mode that they were in.
    """
    device = next(networks[0].parameters()).device
    with _evaluating(networks):
        for places, clips in clips_ahead(plans, reader, device, batch):
            rows = [network.embed(clips, layer) for network in networks]
            yield places, [(functional.normalize(row, dim=1) if unit else row).cpu() for row in rows]


def clips_ahead(
    plans: Iterable[ClipPlan], reader: Executor, device: torch.device, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of plans of one stream, `batch` at once: (places (B,), clips (B, D, T, h, w) float on `device`); the next ones
    are read while the caller computes."""

    def read(taken: Sequence[tuple[int, ClipPlan]]) -> tuple[Tensor, Tensor, Tensor]:
        places, chosen = zip(*taken, strict=True)
        stream = chosen[0].stream
        return torch.tensor(places), reader.run(stream.view, list(chosen), stream.size), colour_maps(chosen)

    numbered = enumerate(plans)
    batches = iter(lambda: list(itertools.islice(numbered, batch)), [])
    upcoming = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        for taken in itertools.chain(batches, [None]):
            ready, upcoming = upcoming, pool.submit(read, taken) if taken else None
            if ready is not None:
                places, clips, affine = ready.result()
                yield places, normalise(used_here(clips.to(device)), affine.to(device))


@contextlib.contextmanager
def _evaluating(networks: Sequence[Network]) -> Iterator[None]:
    modes = {module: module.training for network in networks for module in network.modules()}  # some may be frozen
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
