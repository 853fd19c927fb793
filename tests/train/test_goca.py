"""GOCA: training against a plain loop, what each switch computes, and what is refused."""

from __future__ import annotations

import copy
from collections import deque
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from tests.train.steps import CHANNELS, Views, fit
from train import methods
from train.clustering.prototypes import FixedPrototypes, Prototypes
from train.clustering.watching import AGREEMENT
from train.methods.goca import GOCA, rows_of

VIDEOS, LONG, SHORT = 4, 4, 2  # of a batch; frames of clips
OPTIMISER = {"name": "sgd", "lr": 0.01, "weight_decay": 0.01}
SMALL: dict[str, Any] = {
    "streams": ["rgb", "flow"],
    "backbone": "small",
    "backbone_settings": {"width": 0.25},
    "pool": "global",
    "head_settings": {"hidden": 32},
    "dim": 8,
    "clips": 4,
    "prototypes": 6,
    "prior_epsilon": 0.03,
    "optimiser": OPTIMISER,
}
LEARNED = {"prototype_kind": "learned"}
# An epoch has two steps.
CASES: dict[str, dict[str, Any]] = {
    "guided": {},
    "as released": {"prior_sign": -1, "prior_cycles": 2, "epsilon": 0.02},
    "own heads, learned prototypes": {**LEARNED, "shared_head": False},
    "learned prototypes that are kept apart": {**LEARNED, "separation": 2.0},
    "guided from the second epoch on": {**LEARNED, "prior_start": 1},
    "with a queue that is full after two steps": {"queue": 2 * VIDEOS, "prior_cycles": 2},
    "no prior": {**LEARNED, "coupling": "none"},
    "average": {**LEARNED, "coupling": "average", "queue": VIDEOS},
    "mix": {**LEARNED, "coupling": "mix"},
    "one stream": {**LEARNED, "streams": ["flow"], "coupling": "none"},
    "three clips, one assigned": {"clips": 3, "assigned": 1},
}


def made(**settings: Any) -> GOCA:
    torch.manual_seed(0)
    method: Any = methods.create("goca", SMALL | settings, CHANNELS)
    if isinstance(method.prototypes, FixedPrototypes):
        method.prototypes.place(seed=1)
    scale_heads(method)
    return method


def scale_heads(method: GOCA) -> None:
    """GOCA's begin so small (N(0, .01)) that a step of plain SGD, unlike one of LARC, throws all clips together."""
    torch.manual_seed(2)
    for head in dict.fromkeys(encoder.head for encoder in method.encoders):
        for linear in (head[0], head[3], head[6]):
            nn.init.kaiming_normal_(linear.weight)


def batches(count: int, clips: int = 4) -> list[Views]:
    """Two long clips of each video, the others short."""
    generator = torch.Generator().manual_seed(1)

    def drawn(channels: int) -> list[Tensor]:
        lengths = [LONG, LONG, SHORT, SHORT][:clips]
        return [torch.randn(VIDEOS, channels, length, 12, 12, generator=generator) for length in lengths]

    labels = torch.tensor([0, 1, 1, 0])
    return [Views({name: drawn(channels) for name, channels in CHANNELS.items()}, labels) for _ in range(count)]


def trained(method: GOCA, steps: list[Views]) -> tuple[list[float], nn.ModuleList, Tensor]:
    """The losses of all steps, encoders and prototypes after them: (S + sign e2 log P) / (e + e2), balanced by
    division, one clip after the other."""
    given, encoders = method.settings, copy.deepcopy(method.encoders).train()
    prototypes = method.prototypes.weight.detach().clone().requires_grad_(given.prototype_kind == "learned")
    optimiser = torch.optim.SGD([*encoders.parameters(), prototypes], lr=0.01, momentum=0.9, weight_decay=0.01)
    kept: deque[list[list[Tensor]]] = deque(maxlen=given.queue // VIDEOS or None)
    losses = []
    for step, batch in enumerate(steps):
        rows = []
        for stream, encoder in zip(given.streams, encoders, strict=True):
            views = batch.views(stream)
            long = encoder(torch.cat(views[:2])).chunk(2)
            rows.append([*long, *(encoder(torch.cat(views[2:])).chunk(len(views) - 2))])
        groups, places = rows, list(range(given.assigned))
        if given.coupling == "average":
            groups = [[functional.normalize(one + other, dim=1) for one, other in zip(*rows, strict=True)]]
        if given.coupling == "mix":
            groups, places = [rows[0] + rows[1]], [*places, *(place + given.clips for place in places)]
        prototypes.data = functional.normalize(prototypes.data, dim=1)
        now = [[group[place].detach() for place in places] for group in groups]
        filled = list(kept) if given.queue and len(kept) == kept.maxlen else []
        known = [
            [torch.cat([*(old[g][i] for old in filled), row]) for i, row in enumerate(own)] for g, own in enumerate(now)
        ]
        scores = [[(row @ prototypes.detach().T).double() for row in own] for own in known]
        wanted = [[balanced(own / given.epsilon) for own in group] for group in scores]
        if given.coupling == "prior" and step // 2 >= given.prior_start:
            total = given.epsilon + given.prior_epsilon
            for _ in range(given.prior_cycles):
                pulls = [[given.prior_sign * given.prior_epsilon * q.log() for q in group] for group in wanted]
                wanted = [
                    [balanced((own + pull) / total) for own, pull in zip(scores[g], pulls[1 - g], strict=True)]
                    for g in range(2)
                ]
        loss = torch.zeros(())
        for group, targets in zip(groups, wanted, strict=True):
            for place, target in zip(places, targets, strict=True):
                for view, row in enumerate(group):
                    if view != place:
                        shares = (row @ prototypes.T / given.temperature).log_softmax(dim=1)
                        entropy = -(target[-VIDEOS:] * shares).sum(dim=1).mean()
                        loss = loss + entropy / (len(group) - 1) / len(places) / len(groups)
        if given.separation:
            cosines = (prototypes @ prototypes.T).fill_diagonal_(-2)
            loss = loss + given.separation * (cosines.max(dim=1).values + 1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        kept.append(now)
        losses.append(loss.item())
    return losses, encoders, prototypes.detach()


def balanced(logarithms: Tensor) -> Tensor:
    shares = (logarithms - logarithms.max()).exp()
    for _ in range(3):
        shares = shares / shares.sum(dim=0, keepdim=True)
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares


@pytest.mark.parametrize("case", CASES)
def test_four_steps_are_those_of_a_plain_loop(case: str, tmp_path: Path) -> None:
    method = made(**CASES[case])
    steps = batches(2, method.settings.clips)
    losses, encoders, prototypes = trained(method, [*steps, *steps])
    recorder = fit(method, steps, tmp_path, max_steps=4)
    assert [values["loss"] for values in recorder.values] == pytest.approx(losses, rel=2e-4)
    torch.testing.assert_close(method.encoders.state_dict(), encoders.state_dict(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(method.prototypes.weight.detach(), prototypes, rtol=1e-3, atol=1e-5)
    guided = method.settings.coupling == "prior"
    assert [values["guidance_kl"] > 1e-4 for values in recorder.values] == [
        guided and step // 2 >= method.settings.prior_start for step in range(4)
    ]
    assert (AGREEMENT in recorder.values[0]) == (len(method.assigned_streams) == 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_prior_pulls_or_pushes_as_its_sign_says(sign: int, tmp_path: Path) -> None:
    """Where one stream is sure and the other is not, the sign decides whether both find the same."""
    plain, guided = made(coupling="none"), made(prior_sign=sign, prior_epsilon=0.2)
    generator = torch.Generator().manual_seed(3)
    rows = [[functional.normalize(torch.randn(32, 8, generator=generator), dim=1) for _ in range(4)] for _ in range(2)]
    labels = torch.full((32,), -1)
    agreement = [float(method.compare(rows, labels)[AGREEMENT]) for method in (plain, guided)]
    assert (agreement[1] > agreement[0] + 0.2) if sign == 1 else (agreement[1] < agreement[0])


def test_fixed_prototypes_are_placed_once_and_stay(tmp_path: Path) -> None:
    torch.manual_seed(7)
    method: Any = methods.create("goca", SMALL, CHANNELS)
    assert not method.prototypes.placed
    rows = [[torch.randn(4, 8)] * 4] * 2
    with pytest.raises(ValueError, match="the prototypes have no place yet: call `place`"):
        method.compare(rows, torch.zeros(4, dtype=torch.int64))
    assert "prototypes.weight" not in dict(method.named_parameters())
    fit(method, batches(1), tmp_path)
    expected = FixedPrototypes(6, 8)
    expected.place(seed=7)
    placed = method.prototypes.weight.clone()
    torch.testing.assert_close(placed, expected.weight)
    torch.manual_seed(8)
    fit(method, batches(2), tmp_path)
    assert torch.equal(method.prototypes.weight, placed)
    again: Any = methods.create("goca", **method.hparams)
    again.load_state_dict(method.state_dict())
    assert again.prototypes.placed and torch.equal(again.prototypes.weight, placed)


def test_learned_prototypes_that_are_kept_apart_end_further_apart(tmp_path: Path) -> None:
    largest = []
    for separation in (0.0, 20.0):
        method = made(**LEARNED, separation=separation, prototypes=8)
        assert isinstance(method.prototypes, Prototypes)
        for _ in range(3):
            recorder = fit(method, batches(2), tmp_path)
        largest.append(recorder.values[-1]["prototype_cosine"])
    assert largest[1] < largest[0] - 0.05


def test_a_head_is_shared_or_not(tmp_path: Path) -> None:
    shared, own = made(), made(shared_head=False)
    assert shared.encoders[0].head is shared.encoders[1].head and own.encoders[0].head is not own.encoders[1].head
    assert len(list(own.parameters())) - len(list(shared.parameters())) == len(list(own.encoders[0].head.parameters()))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(shared))
    assert synchronised.encoders[0].head is synchronised.encoders[1].head
    assert isinstance(synchronised.encoders[0].head[1], nn.SyncBatchNorm)
    fit(shared, batches(1), tmp_path)
    again: Any = methods.create("goca", **shared.hparams)
    again.load_state_dict(shared.state_dict())
    assert torch.equal(again.encoders[1].head[0].weight, shared.encoders[0].head[0].weight)


def test_what_is_not_trained_changes_nothing(tmp_path: Path) -> None:
    """A look at held-out videos: the same values, and neither queue nor figures of use take anything in."""
    method = made(queue=4)
    fit(method, batches(2), tmp_path)
    method.eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with torch.no_grad():
        first, second = (method.training_step(batches(1)[0], 0)["loss"] for _ in range(2))  # type: ignore[arg-type]
    assert torch.equal(first, second)
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)


def test_half_precision_changes_assignments_little() -> None:
    """Of the same network and clips: networks round, assignments do not."""
    method = made()
    [batch] = batches(1)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), torch.no_grad():
            rows = [rows_of(encoder, batch.views(stream)) for stream, encoder in method.networks.items()]
            own = torch.stack([torch.stack(views[:2], dim=1) for views in rows], dim=1)
            assert own.dtype == torch.float32
            initial, guided = method._assigned(own)
            assert initial.dtype == guided.dtype == torch.float32
        found.append(guided.exp())
    assert 0 < (found[0] - found[1]).abs().max() < 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = method._assigned(own)[1]
    torch.testing.assert_close(again, guided, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"streams": ["rgb", "rgb"]}, "(?s)'rgb' is one stream.*streams"),
        ({"streams": ["rgb", "flow", "pose"]}, "(?s)not a list of that length.*streams"),
        ({"streams": ["rgb"]}, "(?s)coupling prior of a single stream.*none, or another stream"),
        ({"differing": {"depth": {}}}, '(?s)unknown stream "depth".*differing.*rgb, flow'),
        ({"differing": {"rgb": {"pool": "1x2x2"}}}, "(?s)one head for two networks: pool is.*shared_head: false"),
        ({"assigned": 5}, "(?s)5 of 4 clips.*at most 4"),
        ({"separation": 1.0}, "(?s)fixed prototypes do not move.*prototype_kind: learned"),
        ({"prior_sign": 2}, "(?s)unknown value.*prior_sign"),
        ({"coupling": "both"}, '(?s)unknown value "both".*coupling.*prior'),
        ({"clips": 1}, "(?s)1 is out of range.*clips"),
        ({"prototypes": 1}, "(?s)1 is out of range.*prototypes"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(**settings)


def test_batches_that_cannot_be_assigned_are_refused() -> None:
    with pytest.raises(UsageError, match="(?s)one video alone is not assigned.*a larger batch, or a queue"):
        made().settings.check_batch(1)
    with pytest.raises(UsageError, match="queue of 8 keys is not a multiple of the batch of 3"):
        made(queue=8).settings.check_batch(3)
    made().settings.check_batch(2)
    made(queue=8).settings.check_batch(1)


def test_streams_have_any_names(tmp_path: Path) -> None:
    """Also those that a container of modules has for something else."""
    torch.manual_seed(0)
    named: Any = methods.create("goca", SMALL | {"streams": ["keys", "a.b"]}, {"keys": 3, "a.b": 2})
    named.prototypes.place(seed=1)
    scale_heads(named)
    [batch] = batches(1)
    renamed = Views({"keys": batch.views("rgb"), "a.b": batch.views("flow")}, batch.labels)
    usual, other = (fit(method, [given], tmp_path).values[0] for method, given in ((made(), batch), (named, renamed)))
    assert usual["loss"] == other["loss"] and "a.b_assigned_right" in other
    assert list(named.networks) == ["keys", "a.b"] and "keys and a.b" in named.meters(4)[AGREEMENT].meaning
