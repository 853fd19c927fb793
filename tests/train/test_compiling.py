"""Compiled networks: the same names, the same run after a stop, and a refusal where nothing can be compiled."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import INFONCE, last, stop
from train import checkpoints
from train.hardware import Hardware
from train.networks.compiling import compile_backbones

COMPILED = dataclasses.replace(runs.HARDWARE, compile=True)
STAGE = INFONCE | {"epochs": 1}

# torch's own, while it traces
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_run_continues_with_and_without(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    compiled: list[nn.Module] = []
    compile_module = nn.Module.compile

    def with_backend(module: nn.Module) -> None:
        compiled.append(module)
        compile_module(module, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", with_backend)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    recipe = runs.load(tmp_path / "recipe.yaml", STAGE)
    runs.run(recipe, store, tmp_path / "eager")
    assert not compiled
    runs.run(recipe, store, tmp_path / "whole", COMPILED)
    assert [type(module).__name__ for module in compiled] == ["Small"] * 2
    stop(recipe, store, tmp_path / "parts", 2, hardware=COMPILED)
    runs.run(recipe, store, tmp_path / "parts", COMPILED)
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", STAGE["name"])

    eager, whole = (runs.content(tmp_path / run, STAGE["name"])["state_dict"] for run in ("eager", "whole"))
    assert eager.keys() == whole.keys()
    torch.testing.assert_close(whole, eager, rtol=1e-3, atol=1e-4)
    checkpoints.load_method(last(tmp_path / "whole", STAGE))


@pytest.mark.slow
@pytest.mark.remedy("install a C++ compiler (g++) with Python's headers, or leave --hardware.compile out")
def test_a_compiler_that_is_installed_compiles() -> None:
    """Without the option nothing is compiled: as all other runs of these tests."""
    assert not Hardware().compile
    test_machine_that_cannot_compile_is_refused()
    compile_backbones(nn.Identity(), torch.device("cpu"))


def test_machine_that_cannot_compile_is_refused() -> None:
    torch._dynamo.reset()  # forgets what was compiled before
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/nonexistent",), "force_disable_caches": True}),
        pytest.raises(UsageError, match="(?s)does not work here.*No working C.. compiler.*hardware.compile.*g.."),
    ):
        compile_backbones(nn.Identity(), torch.device("cpu"))
