"""What all TV-L1 estimators share: the parameters, with OpenCV's names and defaults, and the pyramid of sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.flow.estimator import require_numbers

SMALLEST = 16  # pixels: no level of the pyramid has a shorter side (the frame itself may)


@dataclass
class TVL1:
    """Total-variation flow with an L1 data term (Zach, Pock and Bischof 2007; Sanchez, Meinhardt-Llopis and Facciolo
    2013).

    The defaults are those of OpenCV's DualTVL1, which the field's published numbers were made with.

    Args:
        tau: Step of the dual updates.
        lambda_: Weight of the data term; smaller means smoother flow.
        theta: Coupling of the flow with its smooth copy.
        nscales: Levels of the pyramid, at most; none has a side below 16 pixels.
        warps: Linearisations of the data term a level.
        epsilon: An inner loop ends when the mean squared change of the flow falls to its square, in pixels.
        inner_iterations: Iterations between two medians, at most.
        outer_iterations: Medians a warp, at most.
        scale_step: Size of a level relative to the one below it.
        median_filtering: Side of the median filter; 1 is none.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    median_filtering: int = 5

    def __post_init__(self) -> None:
        require_numbers(self)
        if not (self.tau > 0 and self.lambda_ > 0 and self.theta > 0 and self.epsilon >= 0):
            raise TypeError("tau, lambda_ and theta must be positive, and epsilon not negative")
        if not 0 < self.scale_step < 1:
            raise TypeError(f"scale_step {self.scale_step} is not between 0 and 1")


@dataclass
class OwnTVL1(TVL1):
    """What our own implementations add to, and take from, the parameters.

    Args:
        max_iterations_per_warp: Most iterations a warp in all; the default is OpenCV's 10 times 30. Across a cut
            between two shots flow means nothing and never settles, so that such a pair costs ten times the others; 60
            here bounds that, and changes few other pairs (mean .05 px on real clips).
    """

    max_iterations_per_warp: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.median_filtering not in (1, 5):
            raise TypeError(f"median_filtering {self.median_filtering} is neither 5 nor 1 (none)")


def level_sizes(size: tuple[int, ...], parameters: TVL1) -> list[tuple[int, int]]:
    """(height, width) of every level for frames of this size, finest first. Sizes are rounded half to even, each from
    the one before it."""
    height, width = size
    sizes = [(height, width)]
    while len(sizes) < parameters.nscales:
        height, width = round(height * parameters.scale_step), round(width * parameters.scale_step)
        if min(height, width) < SMALLEST:
            break
        sizes.append((height, width))
    return sizes


def linear_taps(length: int, resized: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Where OpenCV 5 samples `length` pixels for `resized` ones: index of the left neighbour (int32) and its distance
    (float32).

    scale: pixels of the one per pixel of the other. The value is left + distance * (right - left), in one rounding.
    Centres of pixels lie at halves and borders repeat; beyond the last centre OpenCV goes the whole way from the last
    pixel but one when it shrinks, and stays on the last when it enlarges, which differs in the last bit.
    """
    position = (np.arange(resized) + 0.5) * scale - 0.5
    index = np.floor(position).astype(np.int32)
    distance = (position - index).astype(np.float32)
    before, beyond = index < 0, index >= length - 1
    index[before], distance[before] = 0, 0
    whole_way = scale > 1 and length > 1
    index[beyond], distance[beyond] = (length - 2, 1) if whole_way else (length - 1, 0)
    return index, distance
