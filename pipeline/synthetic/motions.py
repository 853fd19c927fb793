"""How the sprites of each class move: the only thing that the classes differ in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Swing:
    """What one sprite's motion is made of, drawn alike for every class.

    The two sprites of a video share amplitude, rate and direction and differ a little in phase.
    """

    time: np.ndarray  # (F,) frame numbers
    rate: float  # radians per frame
    amplitude: float  # pixels
    phase: float  # radians
    direction: int  # -1 or 1
    rng: np.random.Generator

    def angle(self, multiple: float = 1.0) -> np.ndarray:
        """(F,) radians of an oscillation at `multiple` times the rate."""
        return multiple * self.rate * self.time + self.phase


@dataclass(frozen=True)
class Displacement:
    """A sprite's pose relative to rest: pixels right and down, radians, and a factor of its radius. Each (F,) or a
    number."""

    x: np.ndarray | float = 0.0
    y: np.ndarray | float = 0.0
    turn: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0


def _triangle(angle: np.ndarray) -> np.ndarray:
    """Triangle wave in -1..1: a sine with straight edges."""
    return 2 / np.pi * np.arcsin(np.sin(angle))


def horizontal(swing: Swing) -> Displacement:
    """To and fro along x."""
    return Displacement(x=swing.amplitude * np.sin(swing.angle()))


def vertical(swing: Swing) -> Displacement:
    """To and fro along y."""
    return Displacement(y=swing.amplitude * np.sin(swing.angle()))


def orbit_clockwise(swing: Swing) -> Displacement:
    """A circle, clockwise on the screen (y points down)."""
    radius = 0.85 * swing.amplitude
    return Displacement(x=radius * np.cos(swing.angle()), y=radius * np.sin(swing.angle()))


def orbit_anticlockwise(swing: Swing) -> Displacement:
    """The same circle the other way round."""
    radius = 0.85 * swing.amplitude
    return Displacement(x=radius * np.cos(swing.angle()), y=-radius * np.sin(swing.angle()))


def zoom(swing: Swing) -> Displacement:
    """Grows and shrinks in place, by a factor of 1.7 either way."""
    return Displacement(scale=np.exp(0.55 * np.sin(swing.angle())))


def spin(swing: Swing) -> Displacement:
    """Turns in place, in either direction."""
    return Displacement(turn=swing.direction * 1.1 * swing.rate * swing.time)


def bounce(swing: Swing) -> Displacement:
    """Hops like a ball while it travels slowly to and fro."""
    hop = np.abs(np.sin(swing.angle(0.75)))
    return Displacement(x=1.1 * swing.amplitude * _triangle(swing.angle(0.5)), y=swing.amplitude * (0.7 - 1.6 * hop))


def zigzag(swing: Swing) -> Displacement:
    """Straight strokes at constant speed along one of the two diagonals."""
    stroke = 0.9 * swing.amplitude * _triangle(swing.angle())
    return Displacement(x=stroke, y=swing.direction * stroke)


def shake(swing: Swing) -> Displacement:
    """Small fast jerks, a new random direction every three frames."""
    interval = 3
    corners = swing.rng.normal(0, 1, (len(swing.time) // interval + 3, 2)) * swing.amplitude * 0.33
    position = (swing.time + swing.rng.uniform(0, interval)) / interval
    corner = position.astype(int)
    blend = (position - corner)[:, None]
    jerks = corners[corner] * (1 - blend) + corners[corner + 1] * blend
    return Displacement(x=jerks[:, 0], y=jerks[:, 1])


def figure_eight(swing: Swing) -> Displacement:
    """A figure of eight lying on its side."""
    angle = swing.angle(0.8)
    return Displacement(x=swing.amplitude * np.sin(angle), y=0.7 * swing.amplitude * np.sin(2 * angle))


MOTIONS: dict[str, Callable[[Swing], Displacement]] = {
    "horizontal": horizontal,
    "vertical": vertical,
    "orbit_cw": orbit_clockwise,
    "orbit_ccw": orbit_anticlockwise,
    "zoom": zoom,
    "spin": spin,
    "bounce": bounce,
    "zigzag": zigzag,
    "shake": shake,
    "figure8": figure_eight,
}
"""Class name to motion. The order is that of the class indices, and with the name decides a video's random numbers."""


def pair_of_tracks(
    class_name: str, rng: np.random.Generator, frames: int, height: float, width: float
) -> list[np.ndarray]:
    """The tracks of a video's two sprites: each (F, 4) float64 of x, y in pixels, angle in radians, factor of the
    radius.

    Where the sprites rest, how far, how fast and from which phase they move, and a wobble that keeps every coordinate
    of every class from being still, are drawn alike for all classes.
    """
    time = np.arange(frames, dtype=np.float64)
    rate = 2 * np.pi / rng.uniform(20, 30)
    amplitude = rng.uniform(8, 16)
    across = rng.uniform(0.28, 0.72), rng.uniform(0.28, 0.72)
    side_by_side = rng.random() < 0.5
    common_phase = rng.uniform(0, 2 * np.pi)
    direction = int(rng.choice([-1, 1]))
    tracks = []
    for index in range(2):
        along = 0.28 + 0.44 * index
        if side_by_side:
            rest_x, rest_y = width * along + rng.uniform(-5, 5), height * across[index]
        else:
            rest_x, rest_y = width * across[index], height * along + rng.uniform(-5, 5)
        swing = Swing(time, rate, amplitude, common_phase + rng.uniform(-0.6, 0.6), direction, rng)
        rest_angle = rng.uniform(0, 2 * np.pi)
        moved = MOTIONS[class_name](swing)
        track = np.empty((frames, 4))
        track[:, 0] = rest_x + moved.x + _wobble(time, rate, rng.uniform(0.3, 1.0), (0.4, 0.8), rng)
        track[:, 1] = rest_y + moved.y + _wobble(time, rate, rng.uniform(0.3, 1.0), (0.4, 0.8), rng)
        track[:, 2] = rest_angle + moved.turn + _wobble(time, rate, 0.12, (0.3, 0.7), rng)
        track[:, 3] = moved.scale
        tracks.append(track)
    return tracks


def _wobble(
    time: np.ndarray, rate: float, size: float, multiple: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """A slow sine (F,) of the given size, unrelated to the motion's own rate and phase."""
    return size * np.sin(rate * rng.uniform(*multiple) * time + rng.uniform(0, 2 * np.pi))


def wandering_track(rng: np.random.Generator, frames: int, height: float, width: float) -> np.ndarray:
    """A smooth random walk (F, 4) from anywhere in the frame, for a sprite that says nothing about the class."""
    smooth = np.ones(11) / 11
    velocity = [np.convolve(rng.normal(0, 2.2, frames + 10), smooth, "valid") for _ in range(2)]
    track = np.ones((frames, 4))
    track[:, :2] = np.cumsum(velocity, axis=1).T + (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)
    track[:, 2] = rng.uniform(0, 2 * np.pi)
    return track
