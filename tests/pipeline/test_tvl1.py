"""Our TV-L1 against OpenCV's, part by part and whole (docs/methods.md 1.1; OpenCV 5.0.0.93)."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import pytest

from pipeline import flow, synthetic
from pipeline.errors import UsageError
from pipeline.flow import kernels
from pipeline.flow.kernels import inner, median, warp
from pipeline.flow.tvl1 import TVL1, level_sizes
from pipeline.show import flow_files

SIZES = [(128, 171), (53, 70), (17, 16), (15, 40), (2, 9), (1, 1)]


def smooth(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 2) * np.float32(scale)


@pytest.mark.parametrize("size", SIZES)
def test_the_median_is_opencvs(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).standard_normal(size).astype(np.float32).round(1)  # with equal values
    height, width = size
    padded = np.zeros((height, width + 16), np.float32)
    padded[:, :width] = plane
    out = np.empty_like(padded)
    median.median5(padded, height, width, out)
    assert np.array_equal(out[:, :width], cv2.medianBlur(plane, 5))


def test_the_middle_six_are_right_for_every_pattern_of_zeros_and_ones() -> None:
    """By the 0-1 principle this proves it for every input whose rows and columns ascend."""
    places = (
        (0, 2),
        (0, 3),
        (0, 4),
        *((1, j) for j in range(1, 5)),
        *((2, j) for j in range(4)),
        (3, 0),
        (3, 1),
        (3, 2),
    )
    patterns = 0
    for zeros in itertools.product(range(6), repeat=4):
        if list(zeros) == sorted(zeros, reverse=True):
            matrix = [[float(column >= count) for column in range(5)] for count in zeros]
            found = median.middle_six.py_func(*(matrix[row][column] for row, column in places))
            assert list(found) == sorted(value for row in matrix for value in row)[7:13]
            patterns += 1
    assert patterns == 126


@pytest.mark.parametrize("size", SIZES)
def test_the_warp_is_opencvs_remap(size: tuple[int, int]) -> None:
    height, width = size
    image, first = smooth(size, 0, 300), smooth(size, 1, 300)
    edge = np.pad(image, 1, mode="edge")
    gradients = (
        np.float32(0.5) * (edge[1:-1, 2:] - edge[1:-1, :-2]),
        np.float32(0.5) * (edge[2:, 1:-1] - edge[:-2, 1:-1]),
    )
    u1, u2 = smooth(size, 2, 20), smooth(size, 3, 20)
    u1[: height // 4] -= 2 * width + 10  # far outside
    planes = np.empty(warp.interleaved_size(height, width), np.float32)
    warp.interleave(image, height, width, planes)
    found = [np.zeros(size, np.float32) for _ in range(4)]
    warp.warp(first, planes, u1, u2, height, width, *found)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    remapped = [cv2.remap(plane, x + u1, y + u2, cv2.INTER_CUBIC) for plane in (image, *gradients)]
    assert np.array_equal(found[0], remapped[1])
    assert np.array_equal(found[1], remapped[2])
    assert np.array_equal(found[2], remapped[0] - remapped[1] * u1 - remapped[2] * u2 - first)
    assert np.array_equal(found[3], remapped[1] * remapped[1] + remapped[2] * remapped[2])


def plain_iteration(ix: Any, iy: Any, rho: Any, u: Any, p: Any, limit: Any, theta: Any, step: Any) -> np.float32:
    """One iteration with a loop over pixels, in place; returns the sum of squared changes, added pixel by pixel."""
    height, width = rho.shape
    total, old = np.float32(0), u.copy()
    for y, x in itertools.product(range(height), range(width)):
        g = ix[y, x] * ix[y, x] + iy[y, x] * iy[y, x]
        residual = rho[y, x] + (ix[y, x] * old[0, y, x] + iy[y, x] * old[1, y, x])
        if residual < -limit * g:
            factor = limit
        elif residual > limit * g:
            factor = -limit
        else:
            factor = -residual / g if g > np.float32(1.1920929e-07) else np.float32(0)
        for k, gradient in enumerate((ix[y, x], iy[y, x])):
            across, down = p[k, 0], p[k, 1]
            above = down[y - 1, x] if y else np.float32(0)
            if x:
                divergence = (across[y, x] - across[y, x - 1]) + (down[y, x] - above)
            else:
                divergence = (across[y, x] + down[y, x]) - above
            u[k, y, x] = (old[k, y, x] + factor * gradient) + theta * divergence
        changes = u[:, y, x] - old[:, y, x]
        total += changes[0] * changes[0] + changes[1] * changes[1]
    for k, y, x in itertools.product(range(2), range(height), range(width)):
        right = u[k, y, x + 1] - u[k, y, x] if x + 1 < width else np.float32(0)
        below = u[k, y + 1, x] - u[k, y, x] if y + 1 < height else np.float32(0)
        norm = np.float32(1) + step * np.float32(np.sqrt(np.float64(right) ** 2 + np.float64(below) ** 2))
        p[k, 0, y, x] = (p[k, 0, y, x] + step * right) / norm
        p[k, 1, y, x] = (p[k, 1, y, x] + step * below) / norm
    return total


@pytest.mark.parametrize("size", [(9, 21), (16, 16), (1, 3)])
def test_the_inner_loop_is_the_plain_one(size: tuple[int, int]) -> None:
    height, width = size
    stride = (width + 7) // 8 * 8 + 8
    ix, iy, rho = smooth(size, 0, 20), smooth(size, 1, 20), smooth(size, 2, 20)
    ix[0, 0] = iy[0, 0] = 0
    limit, theta, step = np.float32(0.045), np.float32(0.3), np.float32(0.25 / 0.3)
    u, p = np.zeros((2, *size), np.float32), np.zeros((2, 2, *size), np.float32)
    sums = [plain_iteration(ix, iy, rho, u, p, limit, theta, step) for _ in range(6)]

    planes = np.zeros((11, height + 1, stride), np.float32)
    for plane, values in zip(planes, (ix, iy, rho, ix * ix + iy * iy), strict=False):
        plane[:height, :width] = values
    settings = (height, width, limit, theta, step)
    count, settled = inner.iterate(*planes, *settings, float(sums[-1]), 100)  # stops where the plain sum is reached
    assert (count, settled) == (6, True)
    assert np.array_equal(planes[4:6, :height, :width], u)
    assert np.array_equal(planes[[6, 8], 1:, 1 : width + 1], p[:, 0])
    assert np.array_equal(planes[[7, 9], 1:, :width], p[:, 1])
    assert np.array_equal(inner.iterate(*planes, *settings, 0.0, 3), (3, False))


def video(kind: str, height: int, width: int) -> np.ndarray:
    return synthetic.video(kind, 3, frames=5, height=height, width=width)


@pytest.mark.parametrize("size", [(128, 171), (96, 64), (33, 47), (16, 16), (15, 33), (5, 7)])
def test_tvl1_cpu_is_tvl1_opencv_bit_for_bit(size: tuple[int, int]) -> None:
    frames = video(synthetic.CLASSES[1], *size)
    reference = flow.create("tvl1-opencv").estimate(frames[:-1:3], frames[1::3])
    assert np.array_equal(flow.create("tvl1-cpu").estimate(frames[:-1:3], frames[1::3]), reference)


@pytest.mark.parametrize(
    "settings",
    [
        {"nscales": 1, "warps": 1, "epsilon": 0.0, "median_filtering": 1, "outer_iterations": 1},
        {"nscales": 5, "warps": 1, "median_filtering": 1},
        {"tau": 0.2, "lambda_": 0.3, "theta": 0.2, "epsilon": 0.02, "scale_step": 0.5, "nscales": 3, "warps": 2},
        {"scale_step": 0.7, "nscales": 3, "inner_iterations": 7, "outer_iterations": 3},
    ],
)
def test_other_parameters_mean_the_same(settings: dict[str, Any]) -> None:
    frames = video(synthetic.CLASSES[2], 64, 80)
    reference = flow.create("tvl1-opencv", **settings).estimate(frames[:2], frames[1:3])
    assert np.array_equal(flow.create("tvl1-cpu", **settings).estimate(frames[:2], frames[1:3]), reference)


@pytest.mark.parametrize("name", ["flat", "black", "shifted", "noise", "cut"])
def test_degenerate_frames_are_as_opencvs(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 50)).astype(np.uint8)
    pair = {
        "flat": np.stack([np.full((40, 50), 90, np.uint8), np.full((40, 50), 91, np.uint8)]),
        "black": np.zeros((2, 40, 50), np.uint8),
        "shifted": np.stack([noise[0], np.roll(noise[0], 1, axis=1)]),
        "noise": noise,
        "cut": np.stack([video(kind, 40, 50)[0, ..., 0] for kind in synthetic.CLASSES[:2]]),
    }[name]
    reference = flow.create("tvl1-opencv").estimate(pair[:1], pair[1:])
    assert np.array_equal(flow.create("tvl1-cpu").estimate(pair[:1], pair[1:]), reference)


def test_the_cap_bounds_the_iterations_of_a_warp() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 50)).astype(np.uint8)
    restricted = {"nscales": 1, "warps": 1, "epsilon": 0.0, "median_filtering": 1}
    capped = flow.create("tvl1-cpu", max_iterations_per_warp=45, **restricted).estimate(noise[:1], noise[1:])
    same = flow.create("tvl1-opencv", inner_iterations=15, outer_iterations=3, **restricted)
    assert np.array_equal(capped, same.estimate(noise[:1], noise[1:]))


def test_levels_halve_to_even_and_end_at_sixteen_pixels() -> None:
    assert level_sizes((128, 171), TVL1()) == [(128, 171), (102, 137), (82, 110), (66, 88), (53, 70)]
    assert level_sizes((19, 40), TVL1()) == [(19, 40)]
    assert level_sizes((15, 15), TVL1()) == [(15, 15)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tau", 0),
        ("lambda_", -1),
        ("theta", 0.0),
        ("epsilon", -0.1),
        ("scale_step", 1.0),
        ("warps", 0),
        ("nscales", 2.5),
    ]
    + [("median_filtering", 3), ("max_iterations_per_warp", 0), ("tau", "fast"), ("warps", True)],
)
def test_parameters_that_mean_nothing_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(UsageError, match=setting):
        flow.create("tvl1-cpu", **{setting: value})


def test_another_process_loads_the_compiled_code() -> None:
    """A Dask worker must not compile again what its parent has compiled."""
    flow.create("tvl1-cpu").prepare()
    code = (
        "import pipeline.flow as f; from numba.core import event\n"
        "with event.install_recorder('numba:compile') as seen: f.create('tvl1-cpu').prepare()\n"
        "print(len(seen.buffer))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "0\n", run.stderr


def doubled(x: float) -> float:
    return 2 * x


def test_compiled_code_is_stale_once_any_kernel_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba looks at the function's own file alone, although parts from other files are in its code."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def compiled_anew() -> bool:
        made = kernels.kernel(doubled)
        assert made(2.0) == 4.0
        return made.stats.cache_hits.total() == 0

    assert compiled_anew()
    assert not compiled_anew()
    monkeypatch.setattr(kernels, "sources_digest", lambda folder: "another")
    assert compiled_anew()
    assert not compiled_anew()
    assert not numba.config.CACHE_LOCATOR_CLASSES  # other packages' functions are none of our business


def test_real_clips_are_equal_to_the_bit(shared: Path) -> None:
    """The gate allows .03 px; equality needs none of it."""
    from pipeline.video.decode import decode

    cpu, reference = flow.create("tvl1-cpu"), flow.create("tvl1-opencv")
    for kind in ("fight", "ut-interaction"):
        path = sorted((shared / "data" / "actions" / kind).glob("*/*.mp4"))[3]
        frames = np.concatenate(list(decode(path)))[[10, 11, 30, 31]]
        assert np.array_equal(cpu.estimate(frames[::2], frames[1::2]), reference.estimate(frames[::2], frames[1::2]))


def test_rubber_whale_has_opencvs_end_point_error(shared: Path) -> None:
    folder = shared / "data" / "flow-gt" / "middlebury-rubberwhale"
    first, second = (cv2.imread(str(folder / f"frame{number}.png"), cv2.IMREAD_COLOR_RGB)[None] for number in (1, 2))
    truth = flow_files.read(folder / "flow_gt.flo")
    error = np.hypot(*(flow.create("tvl1-cpu").estimate(first, second)[0] - truth))
    assert np.nanmean(error) == pytest.approx(0.156, rel=0.02)  # OpenCV's, as stated beside the reference
