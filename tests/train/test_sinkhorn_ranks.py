"""Assignments over two processes against one.

Also a program, because a rank is a process: `python test_sinkhorn_ranks.py OUT RANK` assigns this rank's rows of
fixed scores and saves what came out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from tests.train.two_ranks import results
from train.clustering.sinkhorn import assign

ROWS, COUNT = 7, 5
SPLITS = (5, 0, 1, 7)  # rows of the first rank; the second one has the others
PRIOR = {"epsilon": 0.02, "prior_epsilon": 0.03}


def scores() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    one, two = (2 * torch.rand(ROWS, COUNT, generator=generator, dtype=torch.float64) - 1 for _ in range(2))
    return one, two


def chained(one: Tensor, two: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """The second assignment, with the first one as its prior."""
    return assign(one, log_prior=assign(two, group=group), group=group, **PRIOR)


def main() -> None:
    out, rank = Path(sys.argv[1]), int(sys.argv[2])
    store = distributed.FileStore(str(out / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    mine = [slice(split) if rank == 0 else slice(split, None) for split in SPLITS]
    found = [chained(*(part[rows] for part in scores()), distributed.group.WORLD) for rows in mine]
    alone = distributed.new_group([0])
    if rank == 0:
        found.append(chained(*scores(), alone))
    else:
        with pytest.raises(ValueError, match="not part of the group"):
            assign(scores()[0], group=alone)
    torch.save(found, out / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow  # 8 s of one core, nearly all of it imports
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    first, second = results(__file__, tmp_path, lambda rank: {})
    wanted = chained(*scores())
    for split, one, two in zip(SPLITS, first, second, strict=False):
        assert (len(one), len(two)) == (split, ROWS - split)
        torch.testing.assert_close(torch.cat([one, two]), wanted)
    torch.testing.assert_close(first[-1], wanted)  # a group of the first rank, all rows its own


if __name__ == "__main__":
    main()
