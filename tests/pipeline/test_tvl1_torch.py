"""The PyTorch TV-L1: its parts against OpenCV's, and the whole against the others."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline import flow, synthetic
from pipeline.errors import UsageError
from pipeline.flow import tvl1_torch


def pairs(kind: int, height: int, width: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    frames = synthetic.video(synthetic.CLASSES[kind], 3, frames=count + 1, height=height, width=width)
    return frames[:-1], frames[1:]


@pytest.mark.parametrize("size", [(128, 171), (33, 47), (20, 21), (16, 200)])
@pytest.mark.parametrize("step", [0.8, 0.5, 0.7])
def test_resizing_is_opencvs(size: tuple[int, int], step: float) -> None:
    image = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    smaller = cv2.resize(image, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
    found = tvl1_torch.resize(torch.from_numpy(image), smaller.shape, (1 / step, 1 / step))
    assert np.array_equal(found.numpy(), smaller)
    again = cv2.resize(smaller, size[::-1], interpolation=cv2.INTER_LINEAR)
    flow_planes = torch.from_numpy(np.stack([smaller, smaller]))[None]
    found = tvl1_torch.enlarge(flow_planes, size, step)[0, 1]
    assert np.array_equal(found.numpy(), np.multiply(again, 1 / step, dtype=np.float64).astype(np.float32))


def test_resizing_to_the_same_size_is_a_copy_as_in_opencv() -> None:
    image = np.random.default_rng(0).standard_normal((20, 25)).astype(np.float32)
    assert np.array_equal(cv2.resize(image, None, fx=0.99, fy=0.99, interpolation=cv2.INTER_LINEAR), image)
    assert np.array_equal(tvl1_torch.resize(torch.from_numpy(image), (20, 25), (1 / 0.99, 1 / 0.99)), image)


def test_sampling_is_opencvs_remap() -> None:
    generator = np.random.default_rng(0)
    image = generator.standard_normal((30, 41)).astype(np.float32)
    u = (5 * generator.standard_normal((2, 30, 41))).astype(np.float32)
    u[:, :5] -= 100  # far outside
    found = tvl1_torch.sample(torch.from_numpy(image)[None, None], torch.from_numpy(u)[None])[0, 0]
    x, y = np.meshgrid(np.arange(41, dtype=np.float32), np.arange(30, dtype=np.float32))
    assert np.array_equal(found.numpy(), cv2.remap(image, x + u[0], y + u[1], cv2.INTER_CUBIC))


@pytest.mark.parametrize(
    "settings",
    [
        {"nscales": 1, "warps": 1, "epsilon": 0.0, "median_filtering": 1, "outer_iterations": 1},
        {"nscales": 5, "warps": 1, "median_filtering": 1, "epsilon": 0.0, "outer_iterations": 1},
        {
            "scale_step": 0.7,
            "theta": 0.2,
            "tau": 0.2,
            "lambda_": 0.3,
            "epsilon": 0.0,
            "outer_iterations": 2,
            "warps": 2,
        },
    ],
)
def test_without_a_stop_test_it_is_opencv_to_the_bit(settings: dict[str, Any]) -> None:
    """Rounding may move it by 1e-4 px on average and 1e-2 px anywhere."""
    first, second = pairs(1, 48, 60)
    reference = flow.create("tvl1-opencv", **settings).estimate(first, second)
    assert np.array_equal(flow.create("tvl1-torch", **settings).estimate(first, second), reference)


@pytest.mark.parametrize(
    "settings", [{}, {"max_iterations_per_warp": 17, "inner_iterations": 7}, {"nscales": 5, "warps": 1}]
)
def test_it_agrees_with_tvl1_cpu(settings: dict[str, Any]) -> None:
    first, second = pairs(2, 40, 52)
    reference = flow.create("tvl1-cpu", **settings).estimate(first, second)
    found = flow.create("tvl1-torch", **settings).estimate(first, second)
    assert np.hypot(*(found - reference).transpose(1, 0, 2, 3)).mean() <= 0.03  # measured: 0, in every bit


@pytest.mark.parametrize("size", [(15, 40), (16, 16), (1, 3)])
def test_frames_of_one_level_and_odd_sizes(size: tuple[int, int]) -> None:
    first, second = np.random.default_rng(0).integers(0, 256, (2, 1, *size)).astype(np.uint8)
    reference = flow.create("tvl1-cpu", max_iterations_per_warp=20).estimate(first, second)
    found = flow.create("tvl1-torch", max_iterations_per_warp=20).estimate(first, second)
    assert np.hypot(*(found - reference).transpose(1, 0, 2, 3)).mean() <= 0.03


def test_the_batch_does_not_show_in_the_flow_of_a_pair() -> None:
    first, second = pairs(0, 32, 40, count=4)
    second[3] = 255 - first[0]  # never settles, when the others have long done so
    estimator = flow.create("tvl1-torch", max_iterations_per_warp=60, warps=2)
    together = estimator.estimate(first, second)
    alone = np.concatenate([estimator.estimate(first[i : i + 1], second[i : i + 1]) for i in range(4)])
    assert np.array_equal(together, alone)
    order = [3, 0, 2]
    assert np.array_equal(estimator.estimate(first[order], second[order]), together[order])


def test_a_settled_pair_is_not_touched_again() -> None:
    estimator: Any = flow.create("tvl1-torch", nscales=1, epsilon=0.01)
    image = torch.rand(2, 16, 20, generator=torch.Generator().manual_seed(0)) * 255
    second = torch.stack([image[0], image[1].roll(1, dims=1)])
    found, iterations = estimator.solve(image, second, torch.zeros(2, 2, 16, 20))
    assert iterations[0] == estimator.warps  # equal frames settle in the first iteration of each warp
    assert iterations[1] > iterations[0]
    assert not found[0].any()


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot compute on the device 'nonsense'"):
        flow.create("tvl1-torch", device="nonsense")
    assert flow.create("tvl1-torch").running == {"device": "cpu"}
