"""Two DDP processes against one: same weights, gradients, queue and logs.

Also a program, because a rank is a process: `python test_ranks.py OUT` trains InfoNCE for a few steps on this rank's
share of fixed batches and saves what came out. Rank and world size come from the environment that torchrun sets.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import train  # noqa: F401  lets lightning be imported beside a CPU build of torch

# isort: split
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.train.losses import one_thread
from tests.train.steps import CHANNELS, Recorder, Views
from tests.train.two_ranks import lightning, results
from train import methods
from train.backbones import BACKBONES, Backbone
from train.callbacks.divergence import Diverged, Divergence
from train.callbacks.metrics import Metrics
from train.callbacks.stopping import TIME_IS_UP, Stopping
from train.clustering.prototypes import FixedPrototypes
from train.hardware.collectives import encode_shuffled, mean_over_pools, mean_over_ranks, world_size

STEPS, BATCH = 3, 4
OPTIMISER = {"name": "sgd", "lr": 0.5}


class Tiny(Backbone):
    """Without batch norm, which alone would tell ranks apart."""

    smallest_clip = (1, 1, 1)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.feature_size = 6
        self.conv = nn.Conv3d(in_channels, self.feature_size, kernel_size=(2, 3, 3))

    def forward(self, clips: Tensor) -> Tensor:
        return torch.tanh(self.conv(clips))


# Without batch norm either.
CLUSTERED = {"streams": ["rgb", "flow"], "clips": 2, "pool": "global", "head": "coclr", "prototypes": 6}
VICC = {"stream": "rgb", "prototypes": 5, "queue": 8}
# name: method and what it is given; CoCLR's queue is full before the third step, in which it mines, and ViCC's before
# the third or second, whose assignments it shares
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "queue": ("infonce", {"stream": "rgb", "queue": 8}),
    "in batch": ("infonce", {"stream": "rgb", "queue": 0}),
    "ubernce": ("ubernce", {"stream": "rgb", "queue": 8}),
    "coclr": ("coclr", {"stream": "rgb", "sampler": {"stream": "flow"}, "queue": 8, "top_k": 2}),
    "coclr at once": (
        "coclr",
        {
            "stream": "flow",
            "sampler": {"stream": "rgb"},
            "queue": 4,
            "top_k": 1,
            "self_drop": 0.0,
            "fill_first": False,
        },
    ),
    "cmc": ("cmc", {"streams": ["rgb", "flow"], "queue": 8}),
    "classify": (
        "classify",
        {
            "stream": "rgb",
            "classes": ["a", "b", "c", "d"],
            "head_settings": {"dropout": 0.5},
            "rates": {"backbone": 0.2},
        },
    ),
    "probe": ("classify", {"stream": "flow", "classes": ["a", "b", "c", "d"], "frozen": True}),
    "cmc in batch": ("cmc", {"streams": ["rgb", "flow"], "queue": 0}),
    "vicc": ("vicc", VICC),
    "vicc across": ("vicc", VICC | {"other": {"stream": "flow"}, "queue": 4, "gradient_views": "first"}),
    "goca": ("goca", {**CLUSTERED, "queue": 8}),
    "goca as released, learned": (
        "goca",
        {**CLUSTERED, "queue": 0, "prior_sign": -1, "prior_cycles": 2, "prototype_kind": "learned", "separation": 1.0},
    ),
}

POOLS = (0, 1, 2, BATCH)


def batches(rank: int, ranks: int) -> list[Views]:
    generator = torch.Generator().manual_seed(5)
    clips = torch.randn(STEPS, 2, BATCH, 3, 4, 6, 6, generator=generator)
    labels, sources = (torch.randint(0, 4, (STEPS, BATCH), generator=generator) for _ in range(2))
    mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    return [
        Views({"rgb": list(step[:, mine]), "flow": list(step[:, mine, :2])}, label[mine], source[mine])
        for step, label, source in zip(clips, labels, sources, strict=True)
    ]


def run(kind: str, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    """State, gradients and logs after STEPS steps."""
    torch.manual_seed(0)
    name, settings = KINDS[kind]
    shared = {"backbone": "tiny", "dim": 8, "momentum": 0.5, "temperature": 0.5, "optimiser": OPTIMISER}
    known = methods.settings_of(name).model_fields
    given = {key: value for key, value in shared.items() if key in known}
    method = methods.create(name, given | settings, CHANNELS)
    if isinstance(getattr(method, "prototypes", None), FixedPrototypes):
        method.prototypes.place(seed=0)  # Lightning seeds ranks anew where a run of this session has left a seed
    recorder = Recorder()
    trainer = make_trainer(ranks, recorder)
    seed_everything(0, verbose=False)  # as stages do, for what draws while it trains
    trainer.fit(method, DataLoader(batches(rank, ranks), batch_size=None))
    return {"state": method.state_dict(), "gradients": recorder.gradients, "values": recorder.values}


def make_trainer(ranks: int, callback: Callback) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_epochs=1,
        use_distributed_sampler=False,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main() -> None:
    out, rank, ranks = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    BACKBONES.entries["tiny"] = f"{__name__}:Tiny"
    found: dict[str, Any] = {kind: run(kind, rank, ranks) for kind in KINDS}
    assert world_size() == ranks
    found["shuffle"] = shuffle(rank)
    found["pools"] = {pool: pooled(rank, ranks, pool) for pool in POOLS}
    found["mean"] = mean_over_ranks(torch.tensor([rank, 3.0]))
    found["stopped"] = stop_alone(rank, ranks)
    found["diverged"] = diverge_alone(rank, ranks)
    torch.save(found, out / f"rank{rank}.pt")


def pooled(rank: int, ranks: int, pool: int) -> tuple[Tensor, Tensor]:
    """A loss whose rows compete within groups, and its gradient, averaged over ranks as DDP does."""
    rows = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(2)).double()
    mine = rows[rank * BATCH // ranks : (rank + 1) * BATCH // ranks].requires_grad_()
    loss = mean_over_pools(competing, pool, mine, mine.detach())
    loss.backward()
    assert mine.grad is not None
    return loss.detach(), mine.grad / ranks


def competing(rows: Tensor, others: Tensor) -> Tensor:
    return (rows @ others.T).logsumexp(dim=1).mean()


def stop_alone(rank: int, ranks: int) -> tuple[int, int]:
    """Steps and exit code when the time is up for the last rank alone."""
    stopping = Stopping(deadline=0.0 if rank == ranks - 1 else math.inf)
    settings = {"stream": "rgb", "backbone": "tiny", "dim": 8, "queue": 0, "optimiser": OPTIMISER}
    method = methods.create("infonce", settings, CHANNELS)
    trainer = make_trainer(ranks, stopping)
    trainer.fit(method, DataLoader(batches(rank, ranks), batch_size=None))
    return trainer.global_step, stopping.exit_code


def diverge_alone(rank: int, ranks: int) -> str:
    """What a rank says when the second loss of the last rank alone is not finite, and every third step is looked at."""
    given = batches(rank, ranks)
    if rank == ranks - 1:
        given[1].clips["rgb"] = [clips * math.inf for clips in given[1].clips["rgb"]]
    settings = {"stream": "rgb", "backbone": "tiny", "dim": 8, "queue": 8, "optimiser": OPTIMISER}
    method = methods.create("infonce", settings, CHANNELS)
    trainer = make_trainer(ranks, Divergence(Path("pixels"), Metrics(Path("unused"), every=STEPS)))
    with pytest.raises(Diverged) as ended:
        trainer.fit(method, DataLoader(given, batch_size=None))
    return ended.value.what


def shuffle(rank: int) -> dict[str, Tensor]:
    """What the encoder got, and what came back, when each clip is its own number."""
    clips = torch.arange(BATCH)[:, None] + 100 * rank
    pixels = torch.arange(BATCH * 24, dtype=torch.uint8).view(BATCH, 2, 4, 3) + rank
    maps = clips[..., None].expand(-1, 2, 3)
    if rank:  # in another order in memory
        pixels, maps = pixels.transpose(1, 3).contiguous().transpose(1, 3), maps.contiguous()
    got = []

    def encoder(clips: Tensor, *others: Tensor) -> Tensor:
        got.extend([clips, *others])
        return clips

    back = encode_shuffled(encoder, clips, pixels, maps, seed=1)
    return {"clips": clips, "pixels": pixels, "back": back, "got": got[0], "bytes": got[1], "maps": got[2]}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two DDP processes came to."""
    out = tmp_path_factory.mktemp("ranks")
    launch = lightning()
    return results(__file__, out, lambda rank: launch | {"RANK": str(rank), "LOCAL_RANK": str(rank)})


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*log_every_n_steps", "ignore:Found .* in eval mode")
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_equal_one_process(
    two_ranks: list[dict[str, Any]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES.entries, "tiny", f"{__name__}:Tiny")
    with one_thread():  # as each rank has: the places of fixed prototypes depend on rounding
        alone = run(kind)
    for rank in two_ranks:
        torch.testing.assert_close(rank[kind]["state"], alone["state"])
        torch.testing.assert_close(rank[kind]["gradients"], alone["gradients"])
        torch.testing.assert_close(rank[kind]["values"], alone["values"], rtol=1e-6, atol=1e-7)
    length = KINDS[kind][1].get("queue")
    for name, pointer in alone["state"].items():
        assert not name.endswith(("queue.pointer", "sampled.pointer")) or pointer == STEPS * BATCH % length


def test_ranks_stop_together(two_ranks: list[dict[str, Any]]) -> None:
    assert [rank["stopped"] for rank in two_ranks] == [(1, TIME_IS_UP)] * 2


def test_ranks_diverge_together(two_ranks: list[dict[str, Any]]) -> None:
    said = "training diverged in step 2 of stage pixels: its loss is not finite"
    assert [rank["diverged"] for rank in two_ranks] == [said] * 2


@pytest.mark.parametrize("pool", POOLS)
def test_rows_compete_in_groups_of_videos_on_any_number_of_ranks(two_ranks: list[dict[str, Any]], pool: int) -> None:
    loss, gradient = pooled(0, 1, pool)
    rows = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(2)).double()
    groups = [rows[first : first + (pool or BATCH)] for first in range(0, BATCH, pool or BATCH)]
    expected = sum(float(competing(group, group)) for group in groups) / len(groups)
    assert float(loss) == pytest.approx(expected)
    assert [float(rank["pools"][pool][0]) for rank in two_ranks] == pytest.approx([expected] * 2)
    torch.testing.assert_close(torch.cat([rank["pools"][pool][1] for rank in two_ranks]), gradient)


def test_groups_that_do_not_share_the_batch_evenly_fail() -> None:
    with pytest.raises(ValueError, match="batch of 4 videos.*groups of 3"):
        mean_over_pools(competing, 3, torch.zeros(4, 2), torch.zeros(4, 2))


def test_mean_is_that_of_all_ranks(two_ranks: list[dict[str, Any]]) -> None:
    assert [rank["mean"].tolist() for rank in two_ranks] == [[0.5, 3.0]] * 2
    assert mean_over_ranks(torch.tensor([2.0])).tolist() == [2.0]


def test_shuffling_returns_every_rank_its_own(two_ranks: list[dict[str, Any]]) -> None:
    shuffles = [rank["shuffle"] for rank in two_ranks]
    assert all(torch.equal(shuffle["back"], shuffle["clips"]) for shuffle in shuffles)
    seen = torch.cat([shuffle["got"] for shuffle in shuffles])
    everybody = torch.cat([shuffle["clips"] for shuffle in shuffles])
    order = torch.randperm(len(everybody), generator=torch.Generator().manual_seed(1))
    assert torch.equal(seen, everybody[order])  # each clip once, in the one order that all ranks drew
    assert torch.equal(
        torch.cat([shuffle["bytes"] for shuffle in shuffles]),
        torch.cat([shuffle["pixels"] for shuffle in shuffles])[order],
    )
    for shuffle in shuffles:
        assert shuffle["bytes"].dtype == torch.uint8
        assert torch.equal(shuffle["maps"], shuffle["got"][..., None].expand(-1, 2, 3))
    assert any(shuffle["got"].max() // 100 != shuffle["got"].min() // 100 for shuffle in shuffles)


if __name__ == "__main__":
    main()
