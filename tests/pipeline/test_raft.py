"""RAFT and ptlflow's other networks. The weights are random, as none are downloaded: what the flow is like is not
tested."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import flow
from pipeline.errors import UsageError
from pipeline.flow import networks, raft
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings


def save(model: str, path: Path, seed: int = 0) -> str:
    """Random weights of the model, the same for a seed, as ptlflow stores them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save({"state_dict": networks.build(model, None).state_dict()}, path)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights for raft-small."""
    return save("raft_small", tmp_path_factory.mktemp("weights") / "small.ckpt")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub keeps downloads: an empty folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def small(weights: str, **settings: Any) -> raft.PTLFlow:
    return flow.create("raft-small", weights=weights, **{"device": "cpu", "iterations": 2, "batch_size": 2, **settings})  # type: ignore[return-value]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


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


def test_missing_weights_are_refused_with_their_address(hub: Path) -> None:
    with pytest.raises(UsageError) as refused:
        flow.create("raft")
    assert 'the weights "things" of ptlflow\'s raft are not here' in str(refused.value)
    assert f"where: {hub / 'raft-things-802bbcfd.ckpt'}" in str(refused.value)
    assert "https://github.com/hmorimitsu/ptlflow/releases/download/weights1/raft-things-" in str(refused.value)
    with pytest.raises(UsageError) as refused:
        flow.create("raft", weights="mine.ckpt")
    for expected in ("where: mine.ckpt", "sintel: https://github.com/", str(hub)):
        assert expected in str(refused.value)


@pytest.mark.remedy("to there, or give the path of a file as weights")
def test_published_weights_are_found_where_torch_keeps_them(
    weights: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ptlflow  # here, as `networks` must import it first

    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    model = ptlflow.get_model_reference("raft_small")
    monkeypatch.setattr(model, "pretrained_checkpoints", {"things": f"https://example.org/small-{digest[:8]}.ckpt"})
    kept = hub / f"small-{digest[:8]}.ckpt"
    kept.write_bytes(Path(weights).read_bytes())
    found = flow.create("raft-small")
    assert (found.running["weights"], found.settings["digest"]) == ("things", digest)
    kept.write_bytes(Path(weights).read_bytes()[:-1])
    with pytest.raises(UsageError, match="the download is damaged"):
        flow.create("raft-small")
    assert flow.create("raft-small", weights=weights).settings["digest"] == digest
    kept.write_bytes(Path(weights).read_bytes())  # downloaded again
    assert flow.create("raft-small").settings["digest"] == digest


@pytest.mark.remedy("see whether it is the right file, and whole; download it again")
def test_files_that_are_no_weights_are_refused(weights: str, tmp_path: Path) -> None:
    whole, path = Path(weights).read_bytes(), tmp_path / "wrong.ckpt"
    for content in (b"", b"hello", whole[:-100], noise(1000).tobytes()):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="this is no file of weights"):
            small(str(path))
    path.write_bytes(whole)
    small(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [], 'holds no "state_dict"'),
        (lambda state: state, 'holds no "state_dict"'),
        (lambda state: {"state_dict": dict(list(state.items())[1:])}, "1 tensors missing"),
        (lambda state: {"state_dict": {**state, "more": torch.zeros(1)}}, r"1 tensors unknown \(more\)"),
        (
            lambda state: {"state_dict": {name: value[..., None] for name, value in state.items()}},
            "tensors of another shape",
        ),
    ],
)
def test_weights_must_be_exactly_the_models(weights: str, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(change(torch.load(weights, weights_only=True)["state_dict"]), path)
    with pytest.raises(UsageError, match=message) as refused:
        small(str(path))
    assert str(path) in str(refused.value)
    torch.save({"state_dict": torch.load(weights, weights_only=True)["state_dict"]}, path)
    small(str(path))


def test_weights_of_another_model_are_refused(weights: str) -> None:
    with pytest.raises(UsageError, match=r"these are not weights of ptlflow's raft: \d+ tensors missing \("):
        flow.create("raft", weights=weights)


def test_settings_make_the_same_estimator_again(weights: str) -> None:
    estimator = flow.create("raft-small", weights=weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    assert estimator.settings == {"digest": digest, "iterations": 32, "precision": "fp32"}
    assert estimator.running == {"weights": weights, "batch_size": raft.ON_CPU, "device": None}
    again = flow.create(estimator.name, **json.loads(json.dumps({**estimator.settings, **estimator.running})))
    assert (again.settings, again.running) == (estimator.settings, estimator.running)


@pytest.mark.remedy("put the recorded file back; other weights need a store of their own")
def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    path = save("raft_small", tmp_path / "w.ckpt")
    before, frames, recorded = small(path), noise(2, 32, 48, 3), Path(path).read_bytes()
    save("raft_small", tmp_path / "w.ckpt", seed=1)
    with pytest.raises(UsageError, match=f"sha256 [0-9a-f]{{64}}, recorded {before.settings['digest']}"):
        flow.create("raft-small", **before.settings, **before.running)
    (tmp_path / "recorded.ckpt").write_bytes(recorded)
    put_back = before.running | {"weights": str(tmp_path / "recorded.ckpt")}
    assert flow.create("raft-small", **before.settings, **put_back).settings == before.settings
    after = small(path)
    assert after.settings["digest"] != before.settings["digest"]
    found = [estimator.estimate(frames[:1], frames[1:]) for estimator in (before, after)]
    assert not np.array_equal(*found)


def test_a_store_is_continued_with_the_same_weights_elsewhere_on_any_device(weights: str, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes(Path(weights).read_bytes())

    def resolved(**parameters: Any) -> ExtractionSettings:
        flow_settings = FlowSettings(estimator="raft-small", parameters=parameters)
        return ExtractionSettings({"rgb": RgbSettings(), "flow": flow_settings}).resolved()

    one = resolved(weights=weights, batch_size=4)
    two = resolved(weights=str(moved), batch_size=2, device="cpu")
    assert one.as_dict() == two.as_dict()
    assert one != two
    for settings, file in ((one, weights), (two, str(moved))):
        sent = json.loads(json.dumps(settings.as_dict(running=True)))  # as a worker gets it
        assert ExtractionSettings.from_dict(sent) == settings == settings.resolved()
        assert sent["flow"]["running"]["weights"] == file
    assert resolved(weights=weights, iterations=3).as_dict() != one.as_dict()


def test_the_settings_of_a_store_depend_on_the_weights(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    parameters = {"weights": str(path), "batch_size": 4}
    views = {"rgb": RgbSettings(), "flow": FlowSettings(estimator="ptlflow:raft_small", parameters=parameters)}
    hashes = set()
    for seed in (0, 1):
        save("raft_small", path, seed)
        resolved = ExtractionSettings(views).resolved()
        assert resolved.resolved() == resolved
        assert resolved.as_dict()["flow"]["estimator"] == "raft-small"
        hashes.add(settings_hash(resolved.as_dict()))
    assert len(hashes) == 2


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


def test_models_that_cannot_be_built_say_why(tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UsageError, match=r"resnet34-b627a593\.pth\n  to do: download https"):
        flow.create("ptlflow:memfof", weights=str(path))
    with pytest.raises(UsageError, match="ptlflow cannot build its splatflow here"):
        flow.create("ptlflow:splatflow", weights=str(path))


def test_torch_and_ptlflow_wait_until_they_are_needed_and_faiss_is_put_back() -> None:
    code = (
        "import sys, pipeline.views.flow\n"
        "assert not {'torch', 'ptlflow', 'lightning'} & set(sys.modules)\n"
        "from pipeline.flow import networks\n"
        "assert 'ptlflow' not in sys.modules\n"
        "import faiss\n"
        "assert 'raft' in networks.names()\n"
        "assert sys.modules['faiss'] is faiss\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
