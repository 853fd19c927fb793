"""Convolutions in half precision are tried before anything is trained; wrong ones are told, left out, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.patience import PATIENCE
from tests.train import runs
from tests.train.runs import IN_BATCH
from train import stages
from train.checkpoints import METADATA
from train.hardware import convolutions
from train.methods.infonce import InfoNCE

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
CONVOLVE = functional.conv3d


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    convolutions.right_as_they_are.cache_clear()
    yield
    convolutions.right_as_they_are.cache_clear()


class Stale(torch.autograd.Function):
    """The weight as it is; one tap of its gradient is what lay in memory."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        stale = gradients[0].clone()
        stale[:, :, 0] = 0
        return stale


def wrong_weight_gradient(clips: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(clips, Stale.apply(weight), *rest)


def wrong_output(clips: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(clips, weight, *rest) * 1.06


def no_numbers(clips: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(clips, weight, *rest) * float("nan")


def in_full(*given: Any) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return CONVOLVE(*given)


def plant(monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Tensor], also_without: bool) -> None:
    """Convolutions in half precision that are wrong with oneDNN, or whatever computes them; others are oneDNN-free."""

    def convolve(clips: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu") and (also_without or torch.backends.mkldnn.enabled):
            return wrong(clips, weight, *rest)
        with convolutions.onednn(allowed=False):
            return CONVOLVE(clips, weight, *rest)

    monkeypatch.setattr(functional, "conv3d", convolve)


@pytest.mark.remedy("precision: 32-true in the recipe, or another device")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (wrong_weight_gradient, "weight gradient of a 3x3x3 convolution on clips of (8, 16, 2, 2, 2) is wrong by "),
        (wrong_output, "output of a 3x3x3 convolution on clips of (8, 16, 2, 2, 2) is wrong by "),
        (no_numbers, "output of a 3x3x3 convolution on clips of (8, 16, 2, 2, 2) is wrong by nan %"),
    ],
)
def test_wrong_convolutions_are_left_out_or_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: Callable[..., Tensor], said: str
) -> None:
    plant(monkeypatch, wrong, also_without=False)
    assert [convolutions.right_as_they_are("bf16-mixed", CPU) for _ in range(2)] == [False, False]
    told = capsys.readouterr().err
    assert told.count(f"in bf16-mixed this CPU's {said}") == told.count("\n") == 1
    assert "training goes without oneDNN" in told and "precision: 32-true in the recipe" in told
    convolutions.right_as_they_are.cache_clear()
    plant(monkeypatch, wrong, also_without=True)
    with pytest.raises(Refusal) as refusal:
        convolutions.right_as_they_are("bf16-mixed", CPU)
    assert f"in bf16-mixed this device's {said}" in refusal.value.what
    assert "precision: 32-true in the recipe" in refusal.value.remedy
    assert torch.backends.mkldnn.enabled
    assert capsys.readouterr().err == ""
    assert convolutions.right_as_they_are("32-true", CPU)
    convolutions.right_as_they_are.cache_clear()
    plant(monkeypatch, in_full, also_without=True)  # as on another device
    assert convolutions.right_as_they_are("bf16-mixed", CPU)


def test_full_precision_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, no_numbers, also_without=True)
    assert convolutions.right_as_they_are("32-true", CPU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_right_convolutions_pass(dtype: torch.dtype) -> None:
    """torch's own, whatever the CPU; no random numbers of anybody else are used."""
    before = torch.random.get_rng_state()
    with convolutions.onednn(allowed=False):
        assert convolutions.first_wrong(dtype, CPU) == ""
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", convolutions.HALF)
def test_a_gpu_is_right(precision: str) -> None:
    assert convolutions.right_as_they_are(precision, torch.device("cuda", 0))


def test_run_without_onednn_says_so(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its whole training goes without, and its checkpoint records it; what comes after has oneDNN again."""
    plant(monkeypatch, wrong_weight_gradient, also_without=False)
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2}, precision="bf16-mixed")
    found: list[bool] = []

    def look(method: InfoNCE, batch: Any) -> None:
        found.append(torch.backends.mkldnn.enabled)

    with runs.in_step(look):
        runs.run(recipe, store, tmp_path / "run")
    assert found == [False, False] and torch.backends.mkldnn.enabled
    assert runs.content(tmp_path / "run", "pixels")[METADATA]["versions"]["oneDNN"] == "off"
    assert capsys.readouterr().err.count("training goes without oneDNN") == 1


def test_run_on_another_kind_of_cpu_is_told(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": 2}, precision="bf16-mixed")
    with monkeypatch.context() as patch:
        patch.setattr(convolutions, "first_wrong", lambda *_: "")
        with convolutions.onednn(allowed=False):
            runs.stop(recipe, store, tmp_path / "run", 1)
    convolutions.right_as_they_are.cache_clear()
    plant(monkeypatch, wrong_weight_gradient, also_without=False)
    runs.run(recipe, store, tmp_path / "run")
    assert "the checkpoint was written with oneDNN (none), now off" in capsys.readouterr().err


def test_wrong_device_is_refused_before_anything_is_written(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, no_numbers, also_without=True)
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH, precision="bf16-mixed")
    with pytest.raises(Refusal, match="is wrong by nan"):
        stages.check(recipe, store, runs.HARDWARE)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_this_cpu_as_if_it_had_less() -> None:
    """oneDNN for AVX-512 without bfloat16, where the CPU has that much; what is decided gives right weight gradients.

    By itself and not by `first_wrong`, on maps of two frames, whose gradients oneDNN of torch 2.13 leaves wrong. The
    process has this module and torch alone: Lightning takes twice as long to import.
    """
    program = """
import sys
import types
for name in ("train", "train.hardware"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [name.replace(".", "/")]
sys.modules["train.console"] = types.SimpleNamespace(tell=lambda text: print(text, file=sys.stderr))
import torch
from train.hardware import convolutions

right = convolutions.right_as_they_are("bf16-mixed", torch.device("cpu"))
with convolutions.onednn(allowed=right):
    for seed in range(20):
        torch.manual_seed(seed)
        layer, clips = torch.nn.Conv3d(16, 32, 3, padding=1), torch.randn(8, 16, 2, 4, 4)
        gradients = []
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = layer(clips).float().square().mean()
            gradients += torch.autograd.grad(loss, [layer.weight])
        exact, found = gradients
        assert (exact - found).norm() < 0.05 * exact.norm(), seed
print("right")
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environment, timeout=PATIENCE, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr
