"""RAFT and ptlflow's other networks. The weights are random, as none are downloaded: what the flow is like is not
tested."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline import flow
from pipeline.errors import UsageError
from pipeline.flow import networks, raft
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from tests.pipeline.random_weights import noise, save, small


class Echo:
    """In the network's place: gives back the first frame's blue and the second's red, and keeps what it got."""

    output_stride = 8

    def to(self, device: str) -> Echo:
        return self

    def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.images = inputs["images"]
        assert 0 <= self.images.min() <= self.images.max() <= 1
        return {"flows": torch.stack([self.images[:, 0, 0], self.images[:, 1, 2]], 1)[:, None] * 255}


@pytest.mark.parametrize("size", [(1, 1), (40, 53), (127, 129), (128, 136), (131, 140)])
def test_flow_of_any_size_is_finite(weights: str, size: tuple[int, int]) -> None:
    frames = noise(3, *size, 3)
    found = small(weights).estimate(frames[:-1], frames[1:])
    assert found.dtype == np.float32
    assert found.shape == (2, 2, *size)
    assert np.isfinite(found).all()
    assert found.std() > 0


@pytest.mark.parametrize("stride", [8, 32, 112, None])
@pytest.mark.parametrize("size", [(1, 1), (40, 53), (127, 129), (128, 136), (131, 301)])
def test_frames_reach_the_network_as_bgr_extended_and_come_back_cropped(
    weights: str, size: tuple[int, int], stride: int | None
) -> None:
    estimator, echo, frames = small(weights), Echo(), noise(4, *size, 3)
    echo.output_stride, estimator._network = stride, echo  # type: ignore[assignment]
    found = estimator.estimate(frames[:3], frames[1:])
    assert np.rint(found[:, 0]).astype(np.uint8).tolist() == frames[:3, ..., 2].tolist()
    assert np.rint(found[:, 1]).astype(np.uint8).tolist() == frames[1:, ..., 0].tolist()
    batch, pair, channels, height, width = echo.images.shape
    assert (batch, pair, channels) == (2, 2, 3)
    for side, before in ((height, size[0]), (width, size[1])):
        assert side % (stride or 1) == 0
        assert max(before, 128) <= side < max(before, 128) + (stride or 1)
    corners = torch.tensor(frames[2:, [0, -1, 0, -1], [0, 0, -1, -1], ::-1].copy()).float() / 255
    got = echo.images[0][:, :, [0, -1, 0, -1], [0, 0, -1, -1]].transpose(1, 2)
    assert torch.equal(got, corners)


def test_the_flow_is_that_of_ptlflow(weights: str) -> None:
    frames, estimator = noise(2, 131, 140, 3), small(weights, batch_size=1)
    bgr = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2)[None] / 255
    with torch.inference_mode():
        expected = estimator._network({"images": bgr})["flows"][0].numpy()
        swapped = estimator._network({"images": bgr.flip(2)})["flows"][0].numpy()
    found = estimator.estimate(frames[:1], frames[1:])
    assert np.array_equal(found, expected)
    assert np.abs(found - swapped).max() > 0.01


def test_gray_and_rgb_frames_give_the_same_raft_flow(weights: str) -> None:
    frames, estimator = noise(2, 48, 64), small(weights, batch_size=1)
    coloured = np.repeat(frames[..., None], 3, axis=-1)
    assert np.array_equal(estimator.estimate(frames[:1], frames[1:]), estimator.estimate(coloured[:1], coloured[1:]))


def test_a_pair_depends_on_no_other_and_on_the_batch_size_but_for_rounding(weights: str) -> None:
    frames = noise(6, 48, 64, 3)
    by_size = {size: small(weights, batch_size=size).estimate(frames[:5], frames[1:]) for size in (1, 2, 3)}
    alone = [small(weights).estimate(frames[t : t + 1], frames[t + 1 : t + 2])[0] for t in range(5)]
    assert np.array_equal(by_size[2], np.stack(alone))
    for found in by_size.values():
        assert np.abs(found - by_size[1]).max() < 1e-3


def test_no_pairs_give_no_raft_flow(weights: str) -> None:
    none = np.empty((0, 32, 48, 3), np.uint8)
    assert small(weights).estimate(none, none).shape == (0, 2, 32, 48)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.05), ("bf16", 0.4)])
def test_half_precision_is_close(weights: str, precision: str, tolerance: float) -> None:
    frames = noise(2, 48, 64, 3)
    one, two = (small(weights, precision=each, batch_size=1, iterations=1) for each in ("fp32", precision))
    apart = np.abs(one.estimate(frames[:1], frames[1:]) - two.estimate(frames[:1], frames[1:])).max()
    assert 0 < apart < tolerance


def test_products_of_features_do_not_overflow_in_half_precision(weights: str) -> None:
    """Unscaled, the sum of 128 products of such features is beyond what float16 holds."""
    network = small(weights)._network
    network.fnet.register_forward_hook(lambda *given: [torch.full_like(one, 25.0) for one in given[-1]])
    estimator, frames = small(weights, precision="fp16", batch_size=1, iterations=1), noise(2, 48, 64, 3)
    estimator._network = network
    assert np.isfinite(estimator.estimate(frames[:1], frames[1:])).all()


def test_batches_that_are_launched_before_others_are_collected_give_the_same_raft_flow(weights: str) -> None:
    frames, estimator = noise(6, 48, 64), small(weights)
    expected = [estimator.estimate(frames[t : t + 3], frames[t + 1 : t + 4]) for t in (0, 2)]
    collects = [estimator.launch(frames[t : t + 3], frames[t + 1 : t + 4]) for t in (0, 2)]
    for collect, one in reversed(list(zip(collects, expected, strict=True))):
        assert np.array_equal(collect(), one)


def test_batches_are_larger_on_a_gpu(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small(weights, batch_size=None).batch_size == raft.ON_CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert small(weights, batch_size=None, device=None).batch_size == raft.ON_GPU
    assert flow.choose("raft-small", weights=weights).running["batch_size"] is None  # for the worker to say


@pytest.mark.gpu
def test_on_a_gpu_no_batch_waits_for_the_one_before(weights: str) -> None:
    frames, estimator = noise(9, 48, 64), small(weights, device=None)
    expected = estimator.estimate(frames[:8], frames[1:])
    torch.cuda.set_sync_debug_mode("error")
    try:
        collects = [estimator.launch(frames[:8], frames[1:]) for _ in range(2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.array_equal(collect(), expected) for collect in collects)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("fp16", 0.1), ("bf16", 0.8)])
def test_a_gpu_gives_the_flow_of_a_cpu(weights: str, precision: str, tolerance: float) -> None:
    frames = noise(4, 48, 64, 3)
    there = small(weights, device=None, precision=precision)
    assert (there.running["device"], there.on_gpu) == (None, True)
    found, again = (there.estimate(frames[:3], frames[1:]) for _ in range(2))
    assert np.array_equal(found, again)
    assert np.abs(found - small(weights).estimate(frames[:3], frames[1:])).max() < tolerance


def test_too_little_memory_is_told_with_what_to_do(weights: str) -> None:
    class Full(Echo):
        def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    estimator, frames = small(weights), noise(2, 128, 136, 3)
    estimator._network = Full()
    with pytest.raises(ValueError, match="too little memory for 2 pairs of 128 x 136 pixels at once; set batch_size"):
        estimator.estimate(frames[:1], frames[1:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flow_that_is_not_finite_names_the_pair(weights: str, value: float) -> None:
    class Broken(Echo):
        def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            found = super().__call__(inputs)
            found["flows"][self.images[:, 0].amax((1, 2, 3)) == 1] = value
            return found

    estimator, frames = small(weights), np.zeros((5, 32, 48, 3), np.uint8)
    estimator._network, frames[3, 20, 30] = Broken(), 255
    with pytest.raises(ValueError, match=r"raft-small \(fp32\) gave a flow that is not finite, for pair 3"):
        estimator.estimate(frames, frames)


def test_models_that_do_not_give_the_flow_of_a_pair_are_refused(weights: str) -> None:
    class Video(Echo):
        def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"flows": super().__call__(inputs)["flows"].repeat(1, 2, 1, 1, 1)}

    estimator, frames = small(weights), noise(2, 128, 128, 3)
    estimator._network = Video()
    with pytest.raises(ValueError, match="raft-small does not give the flow of a pair of frames"):
        estimator.estimate(frames[:1], frames[1:])


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("batch_size", 0, "batch_size 0 is not a whole number above 0"),
        ("iterations", 0, "iterations 0 is not a whole number above 0"),
        ("iterations", True, "iterations True is not a number"),
        ("iterations", 2.5, "iterations 2.5"),
        ("precision", "fp8", "precision 'fp8' is none of fp32, fp16, bf16"),
        ("device", "cuda:1", "device 'cuda:1' is neither cuda nor cpu"),
        ("weights", None, "weights None is neither a name nor a path"),
        ("itertions", 3, "itertions"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(weights: str, setting: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flow.create("raft-small", **{"weights": weights, setting: value})


@pytest.mark.remedy("set its device to cpu, or see why `nvidia-smi` or torch does not list the GPU")
def test_a_gpu_that_is_not_there_is_refused(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="raft-small is to run on a GPU, and torch finds none"):
        small(weights, device="cuda")
    assert small(weights, device="cpu").estimate(noise(1, 32, 48, 3), noise(1, 32, 48, 3)).shape == (1, 2, 32, 48)


def test_a_worker_finds_the_gpu_that_the_submitting_machine_lacks(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = {"weights": weights, "device": "cuda"}
    chosen = [FlowSettings("raft-small", {"weights": weights}), FlowSettings("raft-small", asked)]
    monkeypatch.setattr(networks, "load", lambda *_: pytest.fail("no network is built to send settings"))
    sent = [ExtractionSettings({"flow": one}).resolved().as_dict(running=True)["flow"] for one in chosen]
    assert [one["running"]["device"] for one in sent] == [None, "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for one in json.loads(json.dumps(sent)):
        assert flow.choose(one["estimator"], **one["parameters"], **one["running"]).on_gpu


def test_unknown_models_are_named() -> None:
    with pytest.raises(UsageError, match='unknown model of ptlflow "gmaa"\n  to do: did you mean "gma"'):
        flow.create("ptlflow:gmaa")
    with pytest.raises(UsageError, match='did you mean "raft-small"'):
        flow.create("raft_small")
    with pytest.raises(UsageError, match="ptlflow:NAME"):
        flow.create("gma")


def test_other_models_run_by_their_names(tmp_path: Path) -> None:
    path, frames = save("liteflownet", tmp_path / "w.ckpt"), noise(2, 48, 64, 3)
    estimator = flow.create("ptlflow:liteflownet", weights=path, batch_size=1, device="cpu")
    assert estimator.name == "ptlflow:liteflownet"
    assert estimator.settings["iterations"] is None
    assert np.isfinite(estimator.estimate(frames[:1], frames[1:])).all()
    with pytest.raises(UsageError, match="liteflownet takes no iterations"):
        flow.create("ptlflow:liteflownet", weights=path, iterations=3)


@pytest.mark.remedy("download {} to there")
def test_models_that_cannot_be_built_say_why(tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UsageError, match=r"resnet34-b627a593\.pth\n  to do: download https"):
        flow.create("ptlflow:memfof", weights=str(path))
    import torchvision  # here, as `networks` repairs it first

    torch.save(torchvision.models.resnet34().state_dict(), hub / "resnet34-b627a593.pth")
    with pytest.raises(UsageError, match="these are not weights of ptlflow's memfof"):  # but it is built
        flow.create("ptlflow:memfof", weights=str(path))
    with pytest.raises(UsageError, match="ptlflow cannot build its splatflow here"):
        flow.create("ptlflow:splatflow", weights=str(path))


def in_a_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


WAITING = (
    "import sys, pipeline.views.flow\n"
    "assert not {'torch', 'ptlflow', 'lightning'} & set(sys.modules)\n"
    "from pipeline.flow import networks\n"
    "assert 'ptlflow' not in sys.modules\n"
)


def test_torch_and_ptlflow_wait_until_they_are_needed() -> None:
    in_a_new_process(WAITING)


@pytest.mark.slow
def test_ptlflow_is_imported_in_silence_and_faiss_is_put_back() -> None:
    in_a_new_process(
        f"{WAITING}import faiss\nassert 'raft' in networks.names()\nassert sys.modules['faiss'] is faiss\n"
    )


@pytest.mark.parametrize("there", [True, False])
def test_ptlflow_gets_no_faiss_and_all_others_the_one_that_was_there(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", module := ModuleType("faiss"))
    if not there:
        monkeypatch.delitem(sys.modules, "faiss")
    monkeypatch.setattr(importlib, "import_module", lambda name: (name, sys.modules["faiss"]))
    assert networks._ptlflow.__wrapped__() == ("ptlflow", None)
    assert sys.modules.get("faiss") is (module if there else None)
    assert ("faiss" in sys.modules) is there
