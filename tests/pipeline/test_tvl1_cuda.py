"""The Triton TV-L1: interpreted on a CPU, compiled ahead of time for two GPUs, and, where there is a GPU, run.

The interpreter runs one program after the other, so it cannot show a missing barrier; only a GPU can.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import flow, synthetic
from pipeline.errors import UsageError
from pipeline.flow import tvl1_torch
from pipeline.flow.quantisation import Quantiser
from tests.pipeline import interpreted

triton = pytest.importorskip("triton", reason="Triton comes for Linux on x86-64 only")

TOP = Path(__file__).resolve().parents[2]
# As Triton 3.7 spells it, 3.6 (ttg.local_barrier), and those before (gpu.barrier).
BARRIER = re.compile(r"\b(?:ttg|gpu)\.(?:local_)?barrier\b")
FLOAT, HALF, INTEGERS = "*fp32", "*fp16", "*i32"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the kernels gave in Triton's interpreter."""
    out = tmp_path_factory.mktemp("interpreted") / "results.npz"
    command = [sys.executable, "-m", "tests.pipeline.interpreted", str(out)]
    run = subprocess.run(command, cwd=TOP, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert not run.returncode, run.stderr
    return dict(np.load(out))


def test_resizing_is_the_oracles(found: dict[str, np.ndarray]) -> None:
    image = interpreted.inputs()["first"]
    assert np.array_equal(found["smaller"], tvl1_torch.resize(image, (17, 22), (interpreted.STEP, interpreted.STEP)))
    assert np.array_equal(found["larger"], tvl1_torch.enlarge(image[:, None], (30, 39), 1 / interpreted.STEP)[:, 0])
    assert np.array_equal(found["as large"], image)


def test_warping_is_the_oracles(found: dict[str, np.ndarray]) -> None:
    planes = interpreted.inputs()
    gradients = torch.stack(tvl1_torch.gradients(planes["second"]), dim=1)
    assert np.array_equal(found["gradients"], gradients)
    stacked = torch.cat([planes["second"][:, None], gradients], dim=1)
    gradient, rho = tvl1_torch.linearise(planes["first"], stacked, planes["flow"])
    assert np.array_equal(found["data"], torch.cat([gradient, rho[:, None]], dim=1))
    assert found["left by linearise"].tolist() == [interpreted.MOST] * interpreted.PAIRS


def test_medians_are_the_oracles_but_for_settled_pairs(found: dict[str, np.ndarray]) -> None:
    expected = tvl1_torch.median5(interpreted.inputs()["flow"])
    expected[interpreted.SETTLED] = 0  # as it was
    assert np.array_equal(found["medians"], expected)


def solved(pair: int, kind: torch.dtype, most: int) -> tuple[torch.Tensor, torch.Tensor, int, bool]:
    """u, duals, iterations and whether the pair settled, of the oracle on data rounded to `kind`."""
    planes = {name: plane[pair : pair + 1] for name, plane in interpreted.inputs().items()}
    gradient, rho, duals = (planes[name].to(kind).float() for name in ("gradient", "rho", "duals"))
    oracle: Any = flow.create("tvl1-torch", epsilon=interpreted.EPSILON)
    u, p, count, settled = oracle.iterate(gradient, rho, planes["flow"], duals.unflatten(1, (2, 2)), most)
    return u[0], p[0].flatten(0, 1), int(count), bool(settled)


def test_the_inner_loop_is_the_oracles(found: dict[str, np.ndarray]) -> None:
    kind = torch.float32
    counts = found[f"counts {kind}"] - np.array(interpreted.DONE)
    assert 0 < counts[2] < counts[0] == 7  # one settles, one has no more iterations left
    for pair in (0, 2):
        u, p, count, settled = solved(pair, kind, min(interpreted.MOST, interpreted.LEFT[pair]))
        assert np.array_equal(found[f"flow {kind}"][pair], u)
        assert np.array_equal(found[f"duals {kind}"][pair], p)
        assert counts[pair] == count
        assert found[f"left {kind}"][pair] == (0 if settled else interpreted.LEFT[pair] - count)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_the_inner_loop_leaves_settled_pairs_alone(found: dict[str, np.ndarray], kind: torch.dtype) -> None:
    pair = interpreted.SETTLED
    assert not found[f"flow {kind}"][pair].any()
    assert np.array_equal(found[f"duals {kind}"][pair], interpreted.inputs()["duals"][pair].to(kind))
    assert found[f"left {kind}"][pair] == 0
    assert found[f"counts {kind}"][pair] == interpreted.DONE[pair]


def test_in_half_precision_the_inner_loop_errs_by_its_rounding_only(found: dict[str, np.ndarray]) -> None:
    kind = torch.float16
    for pair in (0, 2):
        u, p, count, _ = solved(pair, kind, min(interpreted.MOST, interpreted.LEFT[pair]))
        assert found[f"counts {kind}"][pair] - interpreted.DONE[pair] == count
        assert np.abs(found[f"flow {kind}"][pair] - u.numpy()).max() <= 2e-3
        assert np.abs(found[f"duals {kind}"][pair] - p.numpy()).max() <= 2e-3


@pytest.mark.parametrize("name", interpreted.WHOLE)
def test_the_whole_is_the_oracles(found: dict[str, np.ndarray], name: str) -> None:
    size, settings = interpreted.WHOLE[name]
    frames = interpreted.frames(size)
    settings = {key: value for key, value in settings.items() if key != "half_precision"}
    expected = flow.create("tvl1-torch", **settings).estimate(frames[:-1], frames[1:])
    if name == "half":
        assert np.hypot(*(found[name] - expected).transpose(1, 0, 2, 3)).mean() <= 5e-3
    else:
        assert np.array_equal(found[name], expected)


@pytest.mark.parametrize("name", interpreted.WHOLE)
def test_one_launch_a_level_is_the_same_in_every_bit_in_company_of_another_size(
    found: dict[str, np.ndarray], name: str
) -> None:
    assert np.array_equal(found[f"fused {name}"], found[name])
    assert np.array_equal(found[f"fused counts {name}"], found[f"counts {name}"])
    if name != "half":
        other, settings = interpreted.frames(interpreted.OTHER), interpreted.WHOLE[name][1]
        expected = flow.create("tvl1-torch", **settings).estimate(other[:1], other[1:2])
        assert np.array_equal(found[f"other {name}"], expected)


@pytest.mark.parametrize("fused", [False, True])
def test_batches_of_two_streams_that_are_launched_before_others_are_collected_give_the_same(
    found: dict[str, np.ndarray], fused: bool
) -> None:
    assert np.array_equal(found[f"one behind another {fused}"], found["capped"][[0, 0]])
    assert np.array_equal(found[f"bytes {fused}"], flow.quantise(found["capped"][[1]], 3.0, "sqrt"))


def test_the_cap_and_the_stop_decide_how_often_a_pair_is_iterated(found: dict[str, np.ndarray]) -> None:
    assert found["counts capped"].tolist() == [[5, 5]]
    (counts,) = found["counts no median, own stop"]
    assert all(1 < count < 300 for count in counts)
    assert found["pixel iterations capped"] == 10 * 9 * 13
    counts = found["counts two levels"]
    assert found["pixel iterations two levels"] == 20 * 21 * counts[0].sum() + 16 * 17 * counts[1].sum()


def signatures() -> list[tuple[Any, dict[str, str], dict[str, Any]]]:
    """Every kernel with the types of its arguments, in all variants that are launched."""
    from pipeline.flow.kernels import triton_inner, triton_median, triton_mixed, triton_pyramid, triton_warp

    sizes = {"height": "i32", "width": "i32"}
    resized = {"planes": FLOAT, "resized": FLOAT, **sizes, "new_height": "i32", "new_width": "i32"}
    shape = {"LEVELS": 5, "STEP": 1.25}
    pairs = {"pyramids": FLOAT, "flows": FLOAT, "gradients": FLOAT}
    frames = {"firsts": FLOAT, "seconds": FLOAT, "gradients": FLOAT, "flow": FLOAT}
    floats = dict.fromkeys(("threshold", "limit", "theta", "step"), "fp32")
    variants: list[tuple[Any, dict[str, str], dict[str, Any]]] = [
        (triton_pyramid.resize, resized, {"STEP": 1.25, "UP": False}),
        (triton_pyramid.resize, resized, {"STEP": 1.25, "UP": True}),
        (triton_pyramid.differentiate, {"images": FLOAT, "gradients": FLOAT, **sizes}, {}),
        (triton_median.median5, {"flow": FLOAT, "medians": FLOAT, "left": INTEGERS, **sizes}, {}),
        (triton_mixed.begin_pairs, {"frames": "*u8", "pyramids": FLOAT, "places": "*i64", "pixels": "i32"}, shape),
    ]
    for kind in (FLOAT, HALF):
        variants.append((triton_warp.linearise, {**frames, "data": kind, "left": INTEGERS, **sizes, "most": "i32"}, {}))
        planes = {"data": kind, "medians": FLOAT, "flow": FLOAT, "duals": kind, "left": INTEGERS, "counts": INTEGERS}
        variants.append((triton_inner.iterate, {**planes, **sizes, "most": "i32", **floats}, {}))
        level = {**pairs, "duals": kind, "places": "*i64", "level": "i32", "pixels": "i32"}
        variants.append((triton_mixed.begin_level, level, shape))
        level = {**pairs, "data": kind, "duals": kind, "places": "*i64", "thresholds": FLOAT, "counts": INTEGERS}
        level |= dict.fromkeys(("level", "pixels", "warps", "outer", "inner", "most"), "i32")
        level |= dict.fromkeys(("limit", "theta", "step"), "fp32")
        variants.append((triton_mixed.solve_level, level, {"LEVELS": 5, "MEDIAN": True}))
    return variants


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_every_kernel_compiles_and_spills_no_registers(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.flow.launching import REGISTERS, WARPS

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for kernel, types, constants in signatures():
        warps = WARPS[kernel.__name__]
        constants = {**constants, "BLOCK": 32 * warps}
        attributes = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind[0] == "*"}
        signature = {**types, **dict.fromkeys(constants, "constexpr")}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
        options = {"num_warps": warps, "maxnreg": REGISTERS.get(kernel.__name__), "enable_fp_fusion": False}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        (tmp_path / "kernel.cubin").write_bytes(compiled.asm["cubin"])
        command = [reader, "--dump-resource-usage", tmp_path / "kernel.cubin"]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (registers, stack, local) = map(int, re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage).groups())  # type: ignore[union-attr]
        assert (stack, local) == (0, 0), f"{kernel.__name__} keeps registers in memory: {usage}"
        if kernel.__name__ == "solve_level":
            assert registers * 32 * warps * 2 <= 65536, f"fewer programs fit: {usage}"
        if kernel.__name__ == "iterate":
            assert registers * 32 * warps * (4 if types["data"] == FLOAT else 3) <= 65536, (
                f"fewer programs fit: {usage}"
            )
            assert compiled.asm["ttgir"].count("convert_layout") == 0  # see WARPS
            assert len(BARRIER.findall(compiled.asm["ttgir"])) == 2, "one a step and one an iteration"


@pytest.mark.parametrize("spelling", ["ttg.barrier all", "ttg.local_barrier", "gpu.barrier"])
def test_a_barrier_is_counted_whoever_spells_it(spelling: str) -> None:
    assert len(BARRIER.findall(f"      {spelling} loc(#loc126)\n  %c = arith.constant\n  {spelling}")) == 2


def test_what_triton_would_miss_at_its_first_launch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.flow import tvl1_cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("sysconfig.get_paths", lambda *_: {"include": str(tmp_path)})
    monkeypatch.setenv("CC", "cc")
    assert tvl1_cuda.lacking() == [f"{tmp_path}/Python.h (on Debian and Ubuntu the package python3-dev)"]
    assert not tvl1_cuda.available()
    (tmp_path / "Python.h").touch()
    assert tvl1_cuda.lacking() == [] and tvl1_cuda.available()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tvl1_cuda.lacking() == ["a C compiler (gcc or clang; on Debian and Ubuntu the package gcc)"]
    remedy = flow.create("tvl1-cuda").remedy()
    assert remedy.startswith("install a C compiler") and "tvl1-cpu" in remedy


@pytest.mark.remedy("use tvl1-cpu here, or see what `nvidia-smi`")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.flow import tvl1_cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="needs an NVIDIA GPU"):
        flow.create("tvl1-cuda")
    assert not tvl1_cuda.available()
    assert flow.create("tvl1-cpu").name == "tvl1-cpu"


@pytest.mark.remedy("use tvl1-cpu; Triton comes for Linux on x86-64")
def test_without_triton_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "triton", None)
        without.delitem(sys.modules, "pipeline.flow.tvl1_cuda", raising=False)
        with pytest.raises(UsageError, match="tvl1-cuda needs Triton, which cannot be imported here"):
            flow.create("tvl1-cuda")
        assert flow.create("tvl1-cpu").name == "tvl1-cpu"
    with pytest.raises(UsageError, match="needs an NVIDIA GPU"):  # Triton is there
        flow.create("tvl1-cuda")


@pytest.mark.skipif(flow.NVIDIA_DRIVER.exists(), reason="with a driver, torch is asked for the GPU")
def test_without_a_driver_tvl1_is_the_cpus_and_torch_is_not_imported() -> None:
    code = "import sys, pipeline.flow as f; print(f.create('tvl1').name, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "tvl1-cpu False\n", run.stderr


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"half_precision": 1}, {"fused": 0}, {"streams": 0}, {"bytes_back": 1}, {"batch_size": 2.5}],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        flow.create("tvl1-cuda", **settings)


def clip(kind: int, count: int, height: int = 128, width: int = 171) -> tuple[np.ndarray, np.ndarray]:
    frames = synthetic.video(synthetic.CLASSES[kind], 4, frames=count + 1, height=height, width=width)
    return frames[:-1], frames[1:]


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(128, 171), (97, 130), (15, 33), (16, 16), (5, 7)])
def test_on_a_gpu_it_agrees_with_tvl1_cpu(size: tuple[int, int]) -> None:
    first, second = clip(1, 8, *size)
    reference = flow.create("tvl1-cpu").estimate(first, second)
    found = flow.create("tvl1-cuda").estimate(first, second)
    assert np.hypot(*(found - reference).transpose(1, 0, 2, 3)).mean() <= 0.03
    assert (flow.quantise(found) == flow.quantise(reference)).mean() >= 0.95


@pytest.mark.gpu
def test_on_a_gpu_without_a_stop_test_it_is_tvl1_cpu_nearly_to_the_bit() -> None:
    first, second = clip(2, 4)
    settings: dict[str, Any] = {"nscales": 5, "warps": 1, "epsilon": 0.0, "outer_iterations": 1, "median_filtering": 1}
    reference = flow.create("tvl1-cpu", **settings).estimate(first, second)
    error = np.abs(flow.create("tvl1-cuda", **settings).estimate(first, second) - reference)
    assert error.max() <= 1e-2
    assert error.mean() <= 1e-4


@pytest.mark.gpu
def test_on_a_gpu_the_batch_does_not_show_in_the_flow_of_a_pair() -> None:
    first, second = clip(0, 40, 64, 80)
    reference = flow.create("tvl1-cuda").estimate(first, second)
    order = np.random.default_rng(0).permutation(len(first))
    for batch_size in (1, 7, 32):
        estimator = flow.create("tvl1-cuda", batch_size=batch_size)
        assert np.array_equal(estimator.estimate(first[order], second[order]), reference[order])
    again = flow.create("tvl1-cuda")
    for _ in range(3):  # recorded launches, played again
        assert np.array_equal(again.estimate(first, second), reference)


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
def test_on_a_gpu_one_launch_a_level_is_the_same_in_every_bit(half: bool) -> None:
    groups = [clip(1, 40), clip(2, 9, 64, 80), clip(0, 3, 15, 33)]
    plain, fused = (flow.create("tvl1-cuda", half_precision=half, fused=one) for one in (False, True))
    expected = [plain.estimate(*group) for group in groups]
    for _ in range(2):  # in memory that is new, and in what is there
        for one, found in zip(expected, fused.launch_groups(groups)(), strict=True):
            assert np.array_equal(found, one)


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mapping", ["linear", "sqrt"])
def test_on_a_gpu_streams_and_bytes_of_flow_are_the_hosts(fused: bool, mapping: Any) -> None:
    quantise = Quantiser(20.0, mapping)
    pairs = [clip(number % 3, 16, 64, 80) for number in range(6)]
    alone = flow.create("tvl1-cuda")
    estimator = flow.create("tvl1-cuda", fused=fused, streams=3, bytes_back=True)
    launched = [estimator.launch_groups([pair], quantise) for pair in pairs]
    for pair, collect in zip(pairs, launched, strict=True):
        assert np.array_equal(collect()[0], quantise(alone.estimate(*pair)))


@pytest.mark.gpu
def test_on_a_gpu_half_precision_stays_close() -> None:
    first, second = clip(1, 4)
    reference = flow.create("tvl1-cpu").estimate(first, second)
    found = flow.create("tvl1-cuda", half_precision=True).estimate(first, second)
    assert np.hypot(*(found - reference).transpose(1, 0, 2, 3)).mean() <= 0.2


@pytest.mark.gpu
def test_where_there_is_a_gpu_tvl1_is_computed_there() -> None:
    assert flow.create("tvl1").name == "tvl1-cuda"
