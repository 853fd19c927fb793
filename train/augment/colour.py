"""Colour as one affine map a pixel: jitter, gray, the sign of flow and normalisation, multiplied into one matrix.

A map is float64 (D, C + 1): `map[:, :C] @ pixel + map[:, C]` with the C bytes of a pixel in 0..255. Nothing is cut to
0..255 on the way, as the published operations on images do after every step.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

FlowInput = Literal["pixels", "image", "u", "signed"]
Statistics = Literal["imagenet", "kinetics"]
Gray = Literal["luminance", "channel"]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])  # of pixels in 0..1
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
KINETICS_MEAN = np.array([0.4345, 0.4051, 0.3775])  # SLIC's, specs/slic.md section 4
KINETICS_STD = np.array([0.2768, 0.2713, 0.2737])
FLOW_SCALE = 2.5  # pixels that become 1 at the network's input: 1 px -> 0.4, as in the small-scale study
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# RGB -> YIQ. Hue turns I and Q about the gray axis, which is linear; a shift of HSV's hue is not.
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# What moved right moves left in the mirror: u becomes 255 - u.
MIRRORED_FLOW = np.array([[-1.0, 0, 255], [0, 1, 0]])


def base_affine(flow_bound: float = 20.0) -> dict[str, np.ndarray]:
    """Normalisation without jitter, per view, float64 (C, C + 1).

    rgb: `(v / 255 - mean) / std` with ImageNet's mean and std. flow: bytes to pixels of the stored flow, `v * 2 bound /
    255 - bound` (as `pipeline.flow.dequantise`; 20 in all published systems), then divided by FLOW_SCALE.
    """
    return {"rgb": normalisation("imagenet"), "flow": flow_input("pixels", flow_bound)}


def is_image(flow: FlowInput) -> bool:
    """Whether flow is given to the network as if it were an RGB image, with its jitter and normalisation."""
    return flow in ("image", "u")


def normalised_flow(kind: FlowInput, flow_bound: float, statistics: Statistics) -> np.ndarray:
    """From the bytes (u, v) of flow to the network's input, without jitter."""
    made = flow_input(kind, flow_bound)
    return compose(normalisation(statistics), made) if is_image(kind) else made


def normalisation(statistics: Statistics) -> np.ndarray:
    """`(v / 255 - mean) / std` of RGB bytes."""
    mean, std = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "kinetics": (KINETICS_MEAN, KINETICS_STD)}[statistics]
    return np.column_stack([np.diag(1 / 255 / std), -mean / std])


def flow_input(kind: FlowInput, flow_bound: float = 20.0) -> np.ndarray:
    """From the bytes (u, v) of flow to what networks are given in its place.

    pixels: u and v in pixels, divided by FLOW_SCALE. signed: v / 255 - .5, two channels (CoCon). The other two are images in
    bytes, yet to be jittered and normalised as RGB is: image: (128, v, u), the channels that the papers' flow JPEGs hold
    (CoCLR, ViCC, GOCA); u: (u, u, u) (SLIC).
    """
    scale = 2 * flow_bound / 255 / FLOW_SCALE
    return {
        "pixels": np.column_stack([scale * np.eye(2), np.full(2, -flow_bound / FLOW_SCALE)]),
        "signed": np.column_stack([np.eye(2) / 255, np.full(2, -0.5)]),
        "image": np.array([[0.0, 0, 128], [0, 1, 0], [1, 0, 0]]),
        "u": np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0]]),
    }[kind]


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The map that applies `first` and then `second`."""
    channels = len(first)
    total = second[:, :channels] @ first
    total[:, -1] += second[:, channels]
    return total


def jitter(rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """A random map of RGB bytes, (3, 4); the arguments are the half ranges of the factors, hue in turns.

    Brightness, contrast, saturation and hue in random order, all four linear here: contrast is about a fixed gray level
    (that of ImageNet's mean; torchvision's is about each frame's own mean), and hue turns in YIQ (torchvision: in HSV).
    """
    light, spread, vivid = 1 + rng.uniform(-1, 1, 3) * (brightness, contrast, saturation)
    angle = 2 * np.pi * rng.uniform(-hue, hue)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    middle = 255 * LUMA @ IMAGENET_MEAN
    steps = [
        np.column_stack([light * np.eye(3), np.zeros(3)]),
        np.column_stack([spread * np.eye(3), np.full(3, (1 - spread) * middle)]),
        np.column_stack([vivid * np.eye(3) + (1 - vivid) * LUMA, np.zeros(3)]),
        np.column_stack([np.linalg.inv(YIQ) @ rotation @ YIQ, np.zeros(3)]),
    ]
    total = np.eye(3, 4)
    for step in rng.permutation(4):
        total = compose(steps[step], total)
    return total


def gray(kind: Gray, channel: int) -> np.ndarray:
    """All three channels alike: their luminance, or a copy of one of them."""
    weights = LUMA if kind == "luminance" else np.eye(3)[channel]
    return np.column_stack([np.tile(weights, (3, 1)), np.zeros(3)])
