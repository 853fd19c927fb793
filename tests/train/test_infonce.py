"""InfoNCE as a method: order of a step, logs, checkpoints, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.errors import Refusal
from tests.train.steps import CHANNELS, Recorder, Views
from train import methods
from train.losses.nce import in_batch_nce, info_nce
from train.methods import infonce
from train.methods.infonce import InfoNCE
from train.optim import OptimiserSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*log_every_n_steps")


def small_method(**settings: Any) -> InfoNCE:
    torch.manual_seed(0)
    given = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 8, "queue": 8}
    return methods.create("infonce", given | settings, CHANNELS)


def small_batches(count: int, videos: int = 4) -> list[Views]:
    clips = torch.randn(count, 2, videos, 3, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    return [Views([step[0], step[1]]) for step in clips]


def loader(batches: list[Views]) -> DataLoader:
    return DataLoader(batches, batch_size=None)


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(**(quiet | {"default_root_dir": folder, "enable_checkpointing": False} | settings))


def state(method: InfoNCE) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def test_what_other_parts_ask_for() -> None:
    method = small_method(stream="flow")
    assert method.networks == {"flow": method.pair.query}
    assert method.settings.reads == {"flow": (0, 1)}
    assert method.pair.query.in_channels == 2
    assert not any(parameter.requires_grad for parameter in method.pair.key.parameters())
    assert all(
        torch.equal(key, query)
        for key, query in zip(method.pair.key.parameters(), method.pair.query.parameters(), strict=True)
    )


def test_step_follows_the_published_order(tmp_path: Path) -> None:
    """One training step against the five parts written out: query, momentum, key, logits, enqueue."""
    method = small_method(momentum=0.5, temperature=0.2)
    for parameter in method.pair.key.parameters():
        parameter.add_(0.01)  # so that the momentum update shows
    query_encoder, key_encoder = copy.deepcopy(method.pair.query), copy.deepcopy(method.pair.key)
    queue = method.pair.queue.features.clone()
    [batch] = small_batches(1)

    query = query_encoder(batch.clips[0])
    for key_weight, query_weight in zip(key_encoder.parameters(), query_encoder.parameters(), strict=True):
        key_weight.data = 0.5 * key_weight + 0.5 * query_weight
    key = key_encoder(batch.clips[1]).detach()
    loss = info_nce(query, key, queue, 0.2)
    loss.backward()

    recorder = Recorder()
    trainer(tmp_path, max_steps=1, callbacks=[recorder]).fit(method, loader([batch]))
    assert recorder.values[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in query_encoder.named_parameters():
        torch.testing.assert_close(recorder.gradients[0][f"pair.query.{name}"], parameter.grad)
    assert set(recorder.gradients[0]) == {f"pair.query.{name}" for name, _ in query_encoder.named_parameters()}
    torch.testing.assert_close(method.pair.key.state_dict(), key_encoder.state_dict())
    torch.testing.assert_close(method.pair.queue.features, torch.cat([key, queue[4:]]))
    assert method.pair.queue.pointer == 4


def test_in_batch_step_uses_both_views(tmp_path: Path) -> None:
    method = small_method(queue=0, temperature=0.2)
    assert {name.partition(".")[0] for name in method.pair.state_dict()} == {"query"}
    encoder = copy.deepcopy(method.pair.query)
    [batch] = small_batches(1)
    first, second = encoder(torch.cat(batch.clips)).chunk(2)
    loss = in_batch_nce(first, second, 0.2)
    loss.backward()

    recorder = Recorder()
    trainer(tmp_path, max_steps=1, callbacks=[recorder]).fit(method, loader([batch]))
    assert recorder.values[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(recorder.gradients[0][f"pair.query.{name}"], parameter.grad)


def test_accumulated_step_averages_its_passes(tmp_path: Path) -> None:
    """Two passes against the same written out: the key network follows once, the queue takes in both batches."""
    method = small_method(momentum=0.5, temperature=0.2)
    for parameter in method.pair.key.parameters():
        parameter.add_(0.01)  # so that the momentum update shows
    query_encoder, key_encoder = copy.deepcopy(method.pair.query), copy.deepcopy(method.pair.key)
    queue = method.pair.queue.features.clone()
    batches = small_batches(2)

    for key_weight, query_weight in zip(key_encoder.parameters(), query_encoder.parameters(), strict=True):
        key_weight.data = 0.5 * key_weight + 0.5 * query_weight
    for batch in batches:
        query, key = query_encoder(batch.clips[0]), key_encoder(batch.clips[1]).detach()
        (info_nce(query, key, queue, 0.2) / 2).backward()
        queue = torch.cat([key, queue[4:]]) if batch is batches[0] else torch.cat([queue[:4], key])

    recorder = Recorder()
    settings = {"max_steps": 1, "accumulate_grad_batches": 2, "callbacks": [recorder]}
    trainer(tmp_path, **settings).fit(method, loader(batches))
    assert len(recorder.gradients) == 1
    for name, parameter in query_encoder.named_parameters():
        torch.testing.assert_close(recorder.gradients[0][f"pair.query.{name}"], parameter.grad)
    torch.testing.assert_close(method.pair.key.state_dict(), key_encoder.state_dict())
    torch.testing.assert_close(method.pair.queue.features, queue)
    assert method.pair.queue.pointer == 0


@pytest.mark.parametrize(("queue", "candidates"), [(8, 9), (0, 7)])
def test_meters_tell_how_many_candidates_there_are(
    monkeypatch: pytest.MonkeyPatch, queue: int, candidates: int
) -> None:
    method = small_method(queue=queue)
    meters = method.meters(4)
    assert meters["contrast_top1"].label == f"own clip first of {candidates}"
    assert f"among {candidates} candidates; guessing gives {100 / candidates:.3g} %" in meters["contrast_top1"].meaning
    assert f"guessing gives {500 / candidates:.3g} %" in meters["contrast_top5"].meaning
    assert "guessing gives 100 %" in small_method(queue=0).meters(2)["contrast_top5"].meaning
    compared: list[Tensor] = []
    monkeypatch.setattr(infonce, "own_key_nce", compared.append)
    method.eval().training_step(small_batches(1)[0], 0)
    assert [logits.shape[1] for logits in compared] == [candidates]


def test_values_of_every_step(tmp_path: Path) -> None:
    recorder = Recorder()
    method = small_method(optimiser={"lr": 0.01, "schedule": "step", "milestones": [1]})
    trainer(tmp_path, max_epochs=2, callbacks=[recorder]).fit(method, loader(small_batches(2)))
    assert [set(step) for step in recorder.values] == [{"loss", "contrast_top1", "contrast_top5"}] * 4
    assert recorder.learning_rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert all(0 <= step["contrast_top1"] <= step["contrast_top5"] <= 1 for step in recorder.values)


@pytest.mark.parametrize("queue", [8, 0])
def test_learns_to_tell_videos_apart(tmp_path: Path, queue: int) -> None:
    """Two views that differ by noise alone: the own key must come to rank first."""
    generator = torch.Generator().manual_seed(2)
    videos = torch.randn(3, 4, 3, 2, 12, 12, generator=generator)  # three batches: the queue never holds an own video
    noise = 0.5 * torch.randn(60, 2, *videos.shape[1:], generator=generator)
    batches = [Views(list(videos[step % 3] + noise[step])) for step in range(60)]
    recorder = Recorder()
    method = small_method(queue=queue, temperature=0.1, optimiser={"name": "adamw", "lr": 3e-3}, momentum=0.5)
    trainer(tmp_path, max_epochs=1, callbacks=[recorder]).fit(method, loader(batches))
    # From the third step on, the queue holds keys of videos only.
    early, late = recorder.values[2:8], recorder.values[-6:]
    assert mean(step["loss"] for step in late) < 0.3 * mean(step["loss"] for step in early)
    assert mean(step["contrast_top1"] for step in late) > 0.9


@pytest.mark.parametrize("frozen", ["eval", "no_grad"])
def test_nothing_moves_outside_training(frozen: str) -> None:
    method = small_method()
    [batch] = small_batches(1)
    before = {name: tensor for name, tensor in state(method).items() if "running" not in name and "num_b" not in name}
    with torch.set_grad_enabled(frozen != "no_grad"):
        method.train(frozen != "eval")
        method.training_step(batch, 0)
    assert all(torch.equal(method.state_dict()[name], tensor) for name, tensor in before.items())


def test_continues_bit_for_bit_from_a_checkpoint(tmp_path: Path) -> None:
    optimiser = {"name": "adamw", "lr": 1e-2, "schedule": "one_cycle"}
    whole = small_method(optimiser=optimiser)
    trainer(tmp_path, max_epochs=2).fit(whole, loader(small_batches(3)))

    interrupted = small_method(optimiser=optimiser)
    halves = trainer(tmp_path, max_epochs=2)
    halves.callbacks.append(_StopAfter(3))
    halves.fit(interrupted, loader(small_batches(3)))
    halves.save_checkpoint(tmp_path / "half.ckpt")
    assert not torch.equal(interrupted.pair.queue.features, whole.pair.queue.features)

    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)[
        "hyper_parameters"
    ]  # plain values, no classes of ours
    resumed = methods.create("infonce", **saved)
    assert dict(resumed.hparams) == dict(interrupted.hparams) == saved
    assert resumed.settings == interrupted.settings and resumed.settings.optimiser == OptimiserSettings(**optimiser)
    trainer(tmp_path, max_epochs=2).fit(resumed, loader(small_batches(3)), ckpt_path=tmp_path / "half.ckpt")
    assert all(torch.equal(resumed.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())


class _StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stream": 3}, "(?s)3 is not text.*stream"),
        ({"queue": -1}, "(?s)-1 is out of range.*queue"),
        ({"queue": 0.5}, "(?s)whole number.*queue"),
        ({"temperature": 0}, "(?s)out of range.*temperature"),
        ({"momentum": 1.5}, "(?s)out of range.*momentum.*at most 1"),
        ({"dim": 0}, "(?s)0 is out of range.*dim"),
        ({"momentun": 0.9}, '(?s)unknown key "momentun".*did you mean "momentum"'),
        ({"backbone": "s3e"}, 'unknown backbone "s3e"'),
        ({"optimiser": {"name": "adan"}}, '(?s)unknown value "adan".*optimiser.name.*"adam"'),
        ({"optimiser": {"rl": 0.1}}, '(?s)unknown key "rl".*optimiser'),
        ({"optimiser": {"lr": "1e-3"}}, "(?s)text.*optimiser.lr.*1.0e-3"),
        ({"optimiser": {"lr": 0.0}}, "(?s)out of range.*optimiser.lr"),
        ({"optimiser": {"weight_decay": -1}}, "optimiser.weight_decay"),
        ({"optimiser": {"schedule": "step"}}, "(?s)optimiser.milestones"),
        ({"optimiser": {"milestones": [3]}}, "(?s)optimiser.milestones"),
        ({"optimiser": {"schedule": "step", "milestones": [0.5]}}, "(?s)0.5 is not a whole number.*milestones"),
        ({"optimiser": {"schedule": "step", "milestones": 80}}, "(?s)80 is not a list.*milestones"),
        ({"optimiser": "adam"}, "(?s)'adam' is not a mapping"),
    ],
)
def test_settings_that_cannot_be_meant_fail(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        small_method(**settings)


def test_missing_and_unknown_methods_fail() -> None:
    with pytest.raises(Refusal, match='(?s)unknown method "infonse".*did you mean "infonce"'):
        methods.create("infonse", {}, CHANNELS)
    with pytest.raises(Refusal, match="(?s)stream is missing"):
        methods.create("infonce", {}, CHANNELS)


def test_batches_that_cannot_work_fail_before_anything_moves(tmp_path: Path) -> None:
    method = small_method(queue=6)
    before = state(method)
    with pytest.raises(Refusal, match="queue of 6 keys.*batch of 4"):
        trainer(tmp_path, max_steps=1).fit(method, loader(small_batches(1)))
    assert all(torch.equal(method.state_dict()[name], tensor) for name, tensor in before.items())
    with pytest.raises(Refusal, match="at least two videos"):
        small_method(queue=0).settings.check_batch(1)


def test_one_cycle_without_an_end_fails(tmp_path: Path) -> None:
    method = small_method(optimiser={"schedule": "one_cycle"})
    with pytest.raises(Refusal, match="run without an end"):
        trainer(tmp_path, max_epochs=-1).fit(method, loader(small_batches(1)))
