"""Runs tvl1-cuda's kernels on a CPU, in Triton's interpreter, one by one and together, and writes what they gave.

TRITON_INTERPRET=1 python -m tests.pipeline.interpreted OUT.npz: a process of its own, because the variable must be set
before the kernels are defined, and no other test may meet it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from pipeline import flow, synthetic
from pipeline.flow.quantisation import Quantiser

SIZE = (21, 27)
STEP = 1 / 0.8
PAIRS = 3
SETTLED = 1  # the pair that has no iterations left
LEFT = [7, 0, 100]
DONE = [0, 40, 5]  # iterations
MOST = 9
EPSILON = 0.01
OTHER = (7, 9)  # size of a pair that is in one launch with others
QUANTISE = Quantiser(3.0, "sqrt")
WHOLE: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "two levels": ((20, 21), {"warps": 1, "inner_iterations": 2, "outer_iterations": 2}),
    "no median, own stop": ((9, 13), {"warps": 2, "median_filtering": 1, "epsilon": 0.2}),
    "capped": ((9, 13), {"warps": 1, "inner_iterations": 3, "epsilon": 0.0, "max_iterations_per_warp": 5}),
    "half": ((9, 13), {"warps": 1, "inner_iterations": 2, "outer_iterations": 2, "half_precision": True}),
}


def inputs() -> dict[str, torch.Tensor]:
    """Planes for three pairs, the same every time. The flow of pair 0 leads far out of the image in some places."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, *SIZE, generator=generator)

    planes = {
        "first": 128 + normal(PAIRS, scale=40),
        "second": 128 + normal(PAIRS, scale=40),
        "flow": normal(PAIRS, 2, scale=3),
        "gradient": normal(PAIRS, 2, scale=10),
        "rho": normal(PAIRS, scale=10),
        "duals": normal(PAIRS, 4, scale=0.3),
    }
    planes["flow"][0, :, :4] -= 100
    planes["gradient"][:, :, 3] = 0  # no texture: no data term
    for name in ("gradient", "rho", "duals"):
        planes[name][2] *= 0.01  # this pair settles soon
    planes["flow"][2] = 0
    return planes


def frames(size: tuple[int, int]) -> np.ndarray:
    return synthetic.video(synthetic.CLASSES[0], 2, frames=3, height=size[0], width=size[1])


def one_by_one(results: dict[str, Any]) -> None:
    from pipeline.flow.kernels import triton_inner, triton_median, triton_pyramid, triton_warp
    from pipeline.flow.launching import run

    planes = inputs()
    pixels = SIZE[0] * SIZE[1]
    for name, size, up in (("smaller", (17, 22), False), ("larger", (30, 39), True), ("as large", SIZE, False)):
        results[name] = torch.empty(PAIRS, *size)
        blocks = size[0] * size[1]
        run(triton_pyramid.resize, PAIRS, blocks, planes["first"], results[name], *SIZE, *size, STEP=STEP, UP=up)
    results["gradients"] = gradients = torch.empty(PAIRS, 2, *SIZE)
    run(triton_pyramid.differentiate, PAIRS, pixels, planes["second"], gradients, *SIZE)
    results["data"], results["left by linearise"] = torch.empty(PAIRS, 3, *SIZE), torch.zeros(PAIRS, dtype=torch.int32)
    run(
        triton_warp.linearise, PAIRS, pixels, planes["first"], planes["second"], gradients, planes["flow"],
        results["data"], results["left by linearise"], *SIZE, MOST,
    )  # fmt: skip

    left = torch.tensor(LEFT, dtype=torch.int32)
    results["medians"] = torch.zeros(PAIRS, 2, *SIZE)
    blocks = (SIZE[0] + 1) // 2 * SIZE[1]
    run(triton_median.median5, 2 * PAIRS, blocks, planes["flow"], results["medians"], left, *SIZE)

    for kind in (torch.float32, torch.float16):
        data = torch.cat([planes["gradient"], planes["rho"][:, None]], dim=1).to(kind)
        found = torch.zeros(PAIRS, 2, *SIZE)
        duals, remaining, counts = (
            planes["duals"].to(kind, copy=True),
            left.clone(),
            torch.tensor(DONE, dtype=torch.int32),
        )
        run(
            triton_inner.iterate, PAIRS, 1, data, planes["flow"], found, duals, remaining, counts, *SIZE, MOST,
            float(np.float32(EPSILON * EPSILON * pixels)), 0.15 * 0.3, 0.3, 0.25 / 0.3,
        )  # fmt: skip
        for name, tensor in {"flow": found, "duals": duals, "left": remaining, "counts": counts}.items():
            results[f"{name} {kind}"] = tensor


def together(results: dict[str, Any]) -> None:
    for name, (size, settings) in WHOLE.items():
        moving = frames(size)
        estimator: Any = flow.create("tvl1-cuda", batch_size=2, **settings)
        results[name] = torch.from_numpy(estimator.estimate(moving[:-1], moving[1:]))
        ((solver,),) = estimator._solvers.values()
        results[f"counts {name}"] = solver.counts
        results[f"pixel iterations {name}"] = torch.tensor(solver.pixel_iterations())
        fused: Any = flow.create("tvl1-cuda", batch_size=3, fused=True, **settings)
        other = frames(OTHER)
        both = fused.launch_groups([(other[:1], other[1:2]), (moving[:-1], moving[1:])])()
        results |= {f"fused {name}": torch.from_numpy(both[1]), f"other {name}": torch.from_numpy(both[0])}
        (lane,) = fused._lanes
        results[f"fused counts {name}"] = lane.counts[1:, : len(solver.levels)].T
        results[f"fused pixel iterations {name}"] = torch.tensor(lane.pixel_iterations())


def one_behind_another(results: dict[str, Any]) -> None:
    """Three batches on two streams, all launched before the first is collected: the flow, and bytes of it."""
    size, settings = WHOLE["capped"]
    moving = frames(size)
    for fused in (False, True):
        estimator: Any = flow.create("tvl1-cuda", batch_size=1, streams=2, fused=fused, bytes_back=True, **settings)
        pairs = [(moving[t : t + 1], moving[t + 1 : t + 2]) for t in (0, 1, 0)]
        launched = [estimator.launch_groups([pair], QUANTISE if n == 1 else None) for n, pair in enumerate(pairs)]
        first, second, third = (collect()[0] for collect in launched)
        results[f"one behind another {fused}"] = torch.from_numpy(np.concatenate([first, third]))
        results[f"bytes {fused}"] = torch.from_numpy(second)


def made_small() -> None:
    """Fits the kernels to the interpreter: its time goes by blocks, not by pixels, and it rounds where no GPU does."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from pipeline.flow import launching

    def fused(_: Any, a: Any, b: Any, c: Any) -> Any:
        """The interpreter rounds the product of a fused multiply-add, a GPU does not."""
        exact = a.data.astype(np.float64) * b.data.astype(np.float64) + c.data
        return TensorHandle(exact.astype(np.float32), c.dtype.scalar)

    InterpreterBuilder.create_fma = fused
    for kernel in launching.WARPS:
        launching.WARPS[kernel] = 8  # still several blocks an image


def main() -> None:
    made_small()
    results: dict[str, Any] = {}
    one_by_one(results)
    together(results)
    one_behind_another(results)
    np.savez(sys.argv[1], **{name: tensor.numpy() for name, tensor in results.items()})


if __name__ == "__main__":
    main()
