"""How a network uses its prototypes: what tells a method that learns from one that has collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.hardware.collectives import gather_rows
from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number

ENTROPY, LARGEST, EMPTY, AGREEMENT, COSINE = (
    "assignment_entropy",
    "largest_prototype",
    "empty_prototypes",
    "stream_agreement",
    "prototype_cosine",
)
REMEMBERED = 10  # clips for each prototype: of so many, used equally, hardly one in 20,000 has none
COMPARED = 1024  # prototypes that are compared with all others in a step: of 10,000 all would cost more than the loss


class Watch(nn.Module):
    """Figures of a step, all of them from 0 to 1, over the clips of all ranks. A clip's prototype is the nearest one,
    by the scores: balanced assignments use all of them even where the network tells no clip from another.

    * `assignment_entropy`: mean over clips of H(Q) / log K. 1: assignments say nothing.
    * `largest_prototype`: of the last 10 K clips, those whose prototype is the commonest one.
    * `empty_prototypes`: prototypes that are none of these clips'.
    * `stream_agreement`: with assignments of two streams, the clips whose assignments have the same prototype first.
    * `prototype_cosine`: mean over prototypes of the largest cosine with another one; of more than 1024, over so many
      a step, which change from step to step.

    Of several streams that are trained, each figure is the larger one, so that a stream that collapses is not hidden by
    the other; an agreement is one for both.

    What it remembers of clips are buffers, so a checkpoint restores it; without gradient it takes nothing in.

    Args:
        count: Number of prototypes K.
        streams: That are trained.

    Raises:
        ValueError: fewer than two prototypes, or no stream.
    """

    recent: Tensor
    slot: Tensor

    def __init__(self, count: int, streams: int = 1) -> None:
        super().__init__()
        check_number("count", count, whole=True, least=2)
        check_number("streams", streams, whole=True, least=1)
        self.count = count
        self.register_buffer("recent", torch.full((streams, REMEMBERED * count), -1))
        self.register_buffer("slot", torch.zeros((), dtype=torch.int64))

    @property
    def window(self) -> int:
        """How many clips it remembers."""
        return self.recent.shape[1]

    def forward(self, prototypes: Tensor, scores: Sequence[Tensor], log_q: Sequence[Tensor]) -> dict[str, Tensor]:
        """Scalars by name, without gradient.

        Args:
            prototypes: (K, D).
            scores: Of each stream that is trained, (B, K), of this rank's clips.
            log_q: Of these streams in the same order, and after them perhaps of a frozen one, their assignments (B, K)
                as `assign` gives them; two of them must be of the same clips.
        """
        if self.training and torch.is_grad_enabled():
            self._take_in([nearest.argmax(dim=1) for nearest in scores])
        with torch.no_grad():
            trained = log_q[: len(self.recent)]
            shares = torch.stack([self._shares(own) for own in self.recent])
            found = {
                ENTROPY: torch.stack([_entropy(q) for q in trained]).max() / math.log(self.count),
                LARGEST: shares.amax(),
                EMPTY: (shares == 0).to(shares.dtype).mean(dim=1).max(),
                COSINE: self._largest_cosine(prototypes),
            }
            if len(log_q) == 2:
                one, two = (q.argmax(dim=1) for q in log_q)
                found[AGREEMENT] = (one == two).to(shares.dtype).mean()
        return found

    @torch.no_grad()
    def _take_in(self, nearest: Sequence[Tensor]) -> None:
        rows = gather_rows(torch.stack(list(nearest), dim=1)).T[:, -self.window :]
        slots = (self.slot + torch.arange(rows.shape[1], device=rows.device)) % self.window
        self.recent[:, slots] = rows
        self.slot.copy_((self.slot + rows.shape[1]) % self.window)

    def _shares(self, recent: Tensor) -> Tensor:
        """(K,): of the clips that it remembers; 0 of none."""
        members = torch.zeros(1 + self.count, device=recent.device)
        members = members.scatter_add_(0, recent + 1, torch.ones_like(recent, dtype=members.dtype))[1:]
        return members / members.sum().clamp(min=1)

    @in_full_precision
    def _largest_cosine(self, prototypes: Tensor) -> Tensor:
        rows = functional.normalize(prototypes, dim=1)
        some = torch.arange(min(self.count, COMPARED), device=rows.device)
        some = (self.slot + some) % self.count
        cosines = rows[some] @ rows.T
        return cosines.scatter(1, some[:, None], -torch.inf).amax(dim=1).mean()


@in_full_precision
def _entropy(log_q: Tensor) -> Tensor:
    """Mean over clips, in nats."""
    return torch.special.entr(log_q.exp()).sum(dim=1).mean()
