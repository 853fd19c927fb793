"""UberNCE, CMC and CoCLR: a step of each against the same written out, and what every switch changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor

from pipeline.errors import UsageError
from tests.train.steps import CHANNELS, Views, fit
from train import methods
from train.losses.nce import contrast_logits, cotraining_positives, info_nce, label_positives, multi_positive_nce
from train.methods.cmc import CMC
from train.methods.coclr import CoCLR
from train.methods.contrastive import coin
from train.methods.ubernce import UberNCE

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode")  # the sampler, on purpose

SMALL: dict[str, Any] = {"backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 8, "queue": 8}
SMALL |= {"momentum": 0.5, "temperature": 0.2, "optimiser": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}}
LABELS, SOURCES = torch.tensor([0, 1, 1, 2]), torch.tensor([5, 5, 6, 7])


def made(name: str, **settings: Any) -> Any:
    """A method; streams that are not said: CoCLR's sampler sees the other one, CMC has both."""
    torch.manual_seed(0)
    if name == "cmc":
        settings = {"streams": ["rgb", "flow"]} | settings
    if name == "coclr" and isinstance(sampler := settings.get("sampler", {}), dict):
        settings["sampler"] = {"stream": "flow" if settings.get("stream") == "rgb" else "rgb"} | sampler
    return methods.create(name, SMALL | settings, CHANNELS)


def batches(count: int, clips: int = 2) -> list[Views]:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(count, clips, 4, 3, 2, 12, 12, generator=generator)
    return [
        Views({"rgb": list(step), "flow": [clip[:, :2] for clip in step.flip(0)]}, LABELS, SOURCES) for step in drawn
    ]


def filled(method: Any) -> Any:
    """With keys of labels 0 to 3 and sources 4 to 7 in the queue, twice each."""
    for _ in range(2):
        keys = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
        method.pair.queue.enqueue(keys, labels=torch.arange(4), sources=torch.arange(4, 8))
        if isinstance(method, CoCLR):
            method.sampled.enqueue(torch.nn.functional.normalize(torch.randn(4, 8), dim=1))
    for parameter in method.pair.key.parameters():
        parameter.data.add_(0.01)  # so that the momentum update shows
    return method


def followed(method: Any) -> Any:
    key_encoder = copy.deepcopy(method.pair.key)
    for kept, leading in zip(key_encoder.parameters(), method.pair.query.parameters(), strict=True):
        kept.data = 0.5 * kept + 0.5 * leading
    return key_encoder


@pytest.mark.parametrize(("reduction", "self_drop"), [("mean_of_logs", 0.0), ("log_of_sum", 1.0)])
def test_a_step_of_ubernce(tmp_path: Path, reduction: Any, self_drop: float) -> None:
    method = filled(made("ubernce", stream="rgb", reduction=reduction, self_drop=self_drop))
    [batch] = batches(1)
    encoder, key_encoder, queue = copy.deepcopy(method.pair.query), followed(method), copy.deepcopy(method.pair.queue)
    query, key = encoder(batch.view("rgb", 0)), key_encoder(batch.view("rgb", 1)).detach()
    logits = contrast_logits(query, key, queue.features.clone(), 0.2)
    loss = multi_positive_nce(logits, label_positives(LABELS, queue.labels), reduction, drop_self=self_drop == 1)
    loss.backward()
    recorder = fit(method, [batch], tmp_path)
    assert recorder.values[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(recorder.gradients[0][f"pair.query.{name}"], parameter.grad)
    queue.enqueue(key, labels=LABELS)
    torch.testing.assert_close(method.pair.queue.state_dict(), queue.state_dict())


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("self_drop", [0.0, 1.0])
def test_a_step_of_coclr(tmp_path: Path, stream: str, self_drop: float) -> None:
    """Queries of clip 1, keys and mining by clip 2; sampler in evaluation mode; recordings queued beside the keys."""
    method = filled(made("coclr", stream=stream, self_drop=self_drop, top_k=2))
    other = "flow" if stream == "rgb" else "rgb"
    [batch] = batches(1)
    encoder, key_encoder = copy.deepcopy(method.pair.query), followed(method)
    queue, sampled, sampler = (copy.deepcopy(part) for part in (method.pair.queue, method.sampled, method.sampler))
    query, key = encoder(batch.view(stream, 0)), key_encoder(batch.view(stream, 1)).detach()
    found = sampler.eval()(batch.view(other, 1)).detach()
    positives = cotraining_positives(found, sampled.features, SOURCES, queue.sources, top_k=2, mine=True)
    assert positives[:, 1:].sum() > 4 * 2
    logits = contrast_logits(query, key, queue.features.clone(), 0.2)
    loss = multi_positive_nce(logits, positives, drop_self=self_drop == 1)
    loss.backward()
    before = {name: tensor.clone() for name, tensor in method.sampler.state_dict().items()}
    recorder = fit(method, [batch], tmp_path)
    assert recorder.values[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert set(recorder.gradients[0]) == {f"pair.query.{name}" for name, _ in encoder.named_parameters()}
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(recorder.gradients[0][f"pair.query.{name}"], parameter.grad)
    queue.enqueue(key, labels=LABELS, sources=SOURCES)
    sampled.enqueue(found)
    torch.testing.assert_close(method.pair.queue.state_dict(), queue.state_dict())
    torch.testing.assert_close(method.sampled.state_dict(), sampled.state_dict())
    torch.testing.assert_close(method.sampler.state_dict(), before)


def weights(method: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in method.pair.query.parameters()]


@pytest.mark.parametrize("fill_first", [True, False])
def test_weights_wait_for_a_full_queue(tmp_path: Path, fill_first: bool) -> None:
    """Two batches fill the queue. Their steps count, and batch norm sees them; mining begins with the third."""
    method = made("coclr", stream="rgb", fill_first=fill_first)
    start = weights(method)
    given = batches(3)
    fit(method, given[:2], tmp_path)
    moved = not all(torch.equal(a, b) for a, b in zip(start, weights(method), strict=True))
    assert moved is not fill_first
    assert method.pair.queue.full and method.pair.queue.sources.tolist() == SOURCES.tolist() * 2
    if fill_first:
        assert all(parameter.grad is None for parameter in method.pair.query.parameters())
    norms = [module for module in method.pair.query.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert norms[0].num_batches_tracked == 2
    fit(method, given[2:], tmp_path)
    assert not all(torch.equal(a, b) for a, b in zip(start, weights(method), strict=True))


def test_the_coin_follows_the_seed_and_the_step() -> None:
    def coins(seed: int, chance: float = 0.9) -> list[bool]:
        torch.manual_seed(seed)
        return [coin(chance, step) for step in range(400)]

    first = coins(1)
    torch.rand(3)
    assert coins(1) == first != coins(2)
    assert 0.85 < sum(first) / len(first) < 0.95
    for chance in (0.0, 1.0):
        assert set(coins(3, chance)) == {bool(chance)}


def test_no_mining_without_top_k(tmp_path: Path) -> None:
    """Then positives are keys of the same recording alone."""
    method = filled(made("coclr", stream="rgb", top_k=0, self_drop=0.0))
    [batch] = batches(1)
    recorder = fit(method, [batch], tmp_path)
    assert recorder.values[0]["mined_right"] == 0
    mined = filled(made("coclr", stream="rgb", top_k=2, self_drop=0.0))
    other = fit(mined, [batch], tmp_path)
    assert recorder.values[0]["loss"] > other.values[0]["loss"]
    assert recorder.values[0]["contrast_top1"] == other.values[0]["contrast_top1"]


LOSS = {"loss", "gradients", "weights"}  # a step's loss, and what follows from it
FOUND = {"positive_top1", "mined_right"}
# Method, setting, another one, what they change, and what they may change.
SWITCHES: dict[str, tuple[str, dict[str, Any], dict[str, Any], set[str], set[str]]] = {
    "self_drop": ("coclr", {"self_drop": 0.0}, {"self_drop": 1.0}, LOSS, set()),
    "top_k": ("coclr", {"top_k": 0}, {"top_k": 2}, LOSS | {"mined_right"}, FOUND),
    "fill_first, full": ("coclr", {"fill_first": False}, {"fill_first": True}, set(), set()),
    "fill_first, empty": ("coclr", {"fill_first": False}, {"fill_first": True}, {"gradients", "weights"}, set()),
    "sampler": ("coclr", {}, {"sampler": {"temporal_centring": True}}, {"sampled.features"}, LOSS | FOUND),
    "self_drop of ubernce": ("ubernce", {"self_drop": 0.0}, {"self_drop": 1.0}, LOSS, set()),
    "reduction": ("ubernce", {"reduction": "mean_of_logs"}, {"reduction": "log_of_sum"}, LOSS, set()),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_what_it_says_and_nothing_else(tmp_path: Path, switch: str) -> None:
    """Of a step from equal weights and queues: all values, gradients, weights, queues, statistics, random numbers."""
    name, one, other, expected, possible = SWITCHES[switch]
    shared = {"stream": "rgb", **({"top_k": 1, "self_drop": 0.0} if name == "coclr" else {})}
    queue = made if switch.endswith("empty") else lambda *given, **settings: filled(made(*given, **settings))
    left, right = (after_a_step(queue(name, **(shared | settings)), tmp_path) for settings in (one, other))
    assert left.keys() == right.keys() and {"contrast_top1", "pair.queue.sources", "weights", "random numbers"} <= set(
        left
    )
    changed = {part for part in left if not same(left[part], right[part])}
    assert expected <= changed <= expected | possible


def after_a_step(method: Any, folder: Path) -> dict[str, Any]:
    recorder = fit(method, batches(1), folder)
    weights = dict(method.pair.query.named_parameters())
    rest = {key: value for key, value in method.state_dict().items() if key.removeprefix("pair.query.") not in weights}
    drawn = {"random numbers": torch.random.get_rng_state()}
    return {**recorder.values[0], "gradients": recorder.gradients, "weights": weights, **rest, **drawn}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_a_sampler_of_another_kind_leaves_all_other_weights_as_they_were_drawn() -> None:
    usual, other = (made("coclr", stream="rgb", sampler=settings) for settings in ({}, {"dim": 4}))
    own = [key for key in usual.state_dict() if not key.startswith("sampl")]
    assert own and same(*({key: method.state_dict()[key] for key in own} for method in (usual, other)))


def test_a_step_of_cmc(tmp_path: Path) -> None:
    method = made("cmc", differing={"flow": {"temporal_centring": True}})
    [batch] = batches(1, clips=1)
    rgb, flow = copy.deepcopy(method.first), copy.deepcopy(method.second)
    queries = {"rgb": rgb.query(batch.view("rgb", 0)), "flow": flow.query(batch.view("flow", 0))}
    keys = {"rgb": rgb.key(batch.view("rgb", 0)).detach(), "flow": flow.key(batch.view("flow", 0)).detach()}
    loss = info_nce(queries["rgb"], keys["flow"], flow.queue.features.clone(), 0.2)
    loss += info_nce(queries["flow"], keys["rgb"], rgb.queue.features.clone(), 0.2)
    loss.backward()
    recorder = fit(method, [batch], tmp_path)
    assert recorder.values[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, pair, stream in (("first", rgb, "rgb"), ("second", flow, "flow")):
        for weight, parameter in pair.query.named_parameters():
            torch.testing.assert_close(recorder.gradients[0][f"{name}.query.{weight}"], parameter.grad)
        pair.queue.enqueue(keys[stream])
        torch.testing.assert_close(getattr(method, name).queue.state_dict(), pair.queue.state_dict())


def test_a_step_of_cmc_in_the_batch(tmp_path: Path) -> None:
    """Each clip of one stream against all of the other, written out; nothing but the two networks is there."""
    method = made("cmc", queue=0, differing={"flow": {"temporal_centring": True}})
    [batch] = batches(1, clips=1)
    rgb, flow = copy.deepcopy(method.first.query), copy.deepcopy(method.second.query)
    cosines = rgb(batch.view("rgb", 0)) @ flow(batch.view("flow", 0)).T / 0.2
    loss = -cosines.log_softmax(1).diagonal().mean() - cosines.log_softmax(0).diagonal().mean()
    loss.backward()
    recorder = fit(method, [batch], tmp_path)
    assert recorder.values[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, network in (("first", rgb), ("second", flow)):
        for weight, parameter in network.named_parameters():
            torch.testing.assert_close(recorder.gradients[0][f"{name}.query.{weight}"], parameter.grad)
    assert all(name.split(".")[1] == "query" for name in method.state_dict())
    assert [len(begun) for begun in method.starting.values()] == [1, 1]
    assert "among 4 candidates" in method.meters(4)["rgb_top1"].meaning


def test_cmc_takes_any_two_streams(tmp_path: Path) -> None:
    """Named otherwise, in the other order, the same step: nothing knows what the streams show."""
    usual, other = made("cmc"), None
    torch.manual_seed(0)
    other = methods.create("cmc", SMALL | {"streams": ["one", "two"]}, {"one": 3, "two": 2})
    [batch] = batches(1, clips=1)
    renamed = Views({"one": batch.views("rgb"), "two": batch.views("flow")}, batch.labels, batch.sources)
    first, second = fit(usual, [batch], tmp_path).values[0], fit(other, [renamed], tmp_path).values[0]
    names = {"loss": "loss", "rgb_top1": "one_top1", "flow_top1": "two_top1"}
    assert {names[name]: value for name, value in first.items()} == second
    assert other.meters(4)["one_top1"].label == "one finds two" and list(other.networks) == ["one", "two"]


@pytest.mark.parametrize("name", ["ubernce", "coclr", "cmc"])
def test_a_method_comes_back_from_its_settings(name: str) -> None:
    settings = {} if name == "cmc" else {"stream": "flow"}
    if name == "coclr":
        settings |= {"sampler": {"temporal_centring": True, "dim": 4}}
    first = made(name, **settings)
    again = methods.create(name, **first.hparams)
    assert {key: t.shape for key, t in again.state_dict().items()} == {
        k: t.shape for k, t in first.state_dict().items()
    }
    assert dict(again.hparams) == dict(first.hparams)
    assert first.meters(4) and set(first.networks) <= set(first.settings.reads)


def test_the_sampler_is_its_own_kind_of_network() -> None:
    method = made(
        "coclr", stream="rgb", sampler={"temporal_centring": True, "dim": 4, "backbone_settings": {"width": 0.5}}
    )
    assert method.sampler.temporal_centring and not method.pair.query.temporal_centring
    assert method.sampled.features.shape == (8, 4) and method.sampler.in_channels == 2
    method.train()
    assert not method.sampler.training and method.pair.query.training
    assert not any(parameter.requires_grad for parameter in method.sampler.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ubernce", {"stream": "rgb", "queue": 0}, "(?s)0 is out of range.*queue"),
        ("ubernce", {"stream": "rgb", "reduction": "mean"}, '(?s)unknown value "mean".*reduction.*mean_of_logs'),
        ("ubernce", {"stream": "rgb", "top_k": 5}, '(?s)unknown key "top_k".*ubernce'),
        ("coclr", {"stream": "rgb", "queue": 0}, "(?s)0 is out of range.*queue"),
        ("coclr", {"stream": "rgb", "self_drop": 1.5}, "(?s)1.5 is out of range.*self_drop"),
        ("coclr", {"stream": "rgb", "top_k": -1}, "(?s)out of range.*top_k"),
        ("coclr", {"stream": "rgb", "fill_first": "yes"}, "(?s)not true or false.*fill_first"),
        ("coclr", {"stream": "rgb", "sampler": {"width": 2}}, '(?s)unknown key "width".*sampler'),
        (
            "coclr",
            {"stream": "rgb", "sampler": {"stream": "rgb"}},
            "(?s)sees the stream that is trained.*sampler.stream",
        ),
        ("coclr", {"stream": "rgb", "sampler": "flow"}, "(?s)'flow' is not a mapping.*sampler"),
        ("coclr", {}, "stream is missing"),
        ("cmc", {"streams": ["rgb"]}, "(?s)not a list of that length.*streams"),
        ("cmc", {"streams": ["rgb", "rgb"]}, "(?s)'rgb' is one stream.*streams"),
        ("cmc", {"differing": {"depth": {}}}, '(?s)unknown stream "depth".*differing.*rgb, flow'),
        ("cmc", {"queue": -1}, "(?s)out of range.*queue"),
        ("cmc", {"differing": {"rgb": {"dim": 4}}}, '(?s)unknown key "dim".*differing.rgb'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(name, **settings)


def test_methods_say_what_they_read() -> None:
    """Of the sampler's stream nothing but the clip that keys are made of."""
    assert made("coclr", stream="rgb").settings.reads == {"rgb": (0, 1), "flow": (1,)}
    assert made("coclr", stream="flow").settings.reads == {"flow": (0, 1), "rgb": (1,)}
    assert made("ubernce", stream="flow").settings.reads == {"flow": (0, 1)}
    assert made("cmc").settings.reads == {"rgb": (0,), "flow": (0,)}


def test_every_new_method_is_what_it_is_called() -> None:
    assert isinstance(made("ubernce", stream="rgb"), UberNCE) and isinstance(made("cmc"), CMC)
