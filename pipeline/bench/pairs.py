"""Pairs of frames and their flow: from two images, from a video, from folders of either."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline import pictures, storage, synthetic
from pipeline.errors import Refusal
from pipeline.flow.estimator import FlowEstimator
from pipeline.importers import folder as plain_folder
from pipeline.importers.inventory import Tree
from pipeline.show import flow_files
from pipeline.video.decode import Undecodable, decode

IMAGES = (".png", ".ppm", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
STEP_SECONDS = 1.0  # of estimating between two reports to a progress bar


@dataclass(frozen=True)
class Pair:
    """Two frames, uint8 RGB (H, W, 3), and their true flow where it is known, float32 (2, H, W) with NaN elsewhere."""

    name: str
    first: np.ndarray
    second: np.ndarray
    truth: np.ndarray | None = None


def read_pair(first: Path, second: Path) -> Pair:
    """Raises Refusal for files that are no images, and for images of unequal size."""
    one, two = _read_image(first), _read_image(second)
    if one.shape != two.shape:
        sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (one, two))
        raise Refusal(
            f"the images differ in size: {sizes}", where=f"{first}, {second}", remedy="give two frames of one video"
        )
    return Pair(first.stem, one, two)


def estimate(estimator: FlowEstimator, first: np.ndarray, second: np.ndarray, where: str) -> np.ndarray:
    """`estimator.estimate`; raises Refusal where it gives up or gives numbers that are not finite."""
    try:
        flow = estimator.estimate(first, second)
    except Refusal:
        raise
    except (ValueError, RuntimeError, cv2.error) as error:
        size = f"{first.shape[2]}x{first.shape[1]}"
        raise Refusal(
            f"{estimator.name} gave up on frames of {size}: {error}", where=where, remedy="take another estimator"
        ) from error
    if not np.isfinite(flow).all():
        raise Refusal(f"{estimator.name} gave a flow that is not finite", where=where, remedy="take another estimator")
    return flow


def flow_of_video(estimator: FlowEstimator, video: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Flow of every pair of consecutive frames, some pairs (n, 2, H, W) at a time, and the seconds they took.

    About a second's worth at a time, so that a bar moves. Raises Refusal for what cannot be decoded to its end.
    """
    last, step = None, 1
    try:
        for block in decode(video):
            frames = block if last is None else np.concatenate([last, block])
            last, start = block[-1:], 0
            while start < len(frames) - 1:
                stop = min(start + step, len(frames) - 1)
                began = time.perf_counter()
                flow = estimate(estimator, frames[start:stop], frames[start + 1 : stop + 1], str(video))
                seconds = time.perf_counter() - began
                yield flow, seconds
                step = int(np.clip((stop - start) * STEP_SECONDS / seconds, 1, 2 * step))
                start = stop
    except Undecodable as error:
        raise Refusal(error.reason, where=str(video), remedy="repair or replace the file") from error


def synthetic_pairs(size: tuple[int, int], count: int) -> list[Pair]:
    """Pairs of the embedded data set's motions, one video a pair."""
    made = []
    for number in range(count):
        name = synthetic.CLASSES[number % len(synthetic.CLASSES)]
        frames = synthetic.video(name, number, frames=2, height=size[0], width=size[1])
        made.append(Pair(f"{name} {number}", frames[0], frames[1]))
    return made


def video_pairs(folder: Path, size: tuple[int, int], count: int) -> tuple[list[Pair], list[str]]:
    """Consecutive frames of the videos in a folder, at one size: `count` pairs, evenly from all and from their
    beginnings.

    Returns the pairs, and what was left out and why. Raises Refusal when there is no video at all.
    """
    videos = [row.path for row in plain_folder.read(folder).rows]
    taken = [videos[i] for i in np.unique(np.linspace(0, len(videos) - 1, min(count, len(videos))).round().astype(int))]
    pairs, left_out = [], []
    for number, video in enumerate(taken):
        share = count * (number + 1) // len(taken) - count * number // len(taken)
        try:
            frames = next(decode(folder / video))
        except Undecodable as error:
            left_out.append(f"{video}: {error}")
            continue
        if len(frames) < 2:
            left_out.append(f"{video}: a single frame")
            continue
        for t in np.unique(np.linspace(0, len(frames) - 2, share + 2).round().astype(int)[1:-1]):
            first, second = (_resized(frame, size) for frame in frames[t : t + 2])
            pairs.append(Pair(f"{video} {t}", first, second))
    return pairs, left_out


def true_pairs(folder: Path) -> tuple[list[Pair], list[str]]:
    """Pairs with true flow from a folder and all below it: two images and a flow file (.flo, or KITTI's .png) together.

    A flow file belongs to the two images of its folder whose names have most of their beginning in common with its own;
    of several for the same images the one that has more wins. Returns the pairs, and what was left out and why. Raises
    Refusal when there is no pair at all.
    """
    if not folder.is_dir():
        raise Refusal("there is no such folder", where=str(folder), remedy="give a folder of images and their flow")
    pairs, left_out = [], []
    for path, files in sorted(Tree(folder).folders()):
        matched, unmatched = _match(folder / path, sorted(map(posixpath.basename, files)))
        left_out += [f"{flow}: {reason}" for flow, reason in unmatched.items()]
        for (first, second), flow in matched.items():
            try:
                pair, truth = read_pair(first, second), flow_files.read(flow)
            except Refusal as refusal:
                left_out.append(f"{refusal.where}: {refusal.what}")
                continue
            if truth.shape[1:] != pair.first.shape[:2] or not np.isfinite(truth).any():
                left_out.append(f"{flow}: of another size than its images, or known nowhere")
                continue
            place = flow.relative_to(folder)
            name = place.parent if len(matched) == 1 and place.parent.name else place
            pairs.append(Pair(str(name), pair.first, pair.second, truth))
    if not pairs:
        raise Refusal(
            "no pair of images with its flow was found" + "".join(f"\n  {line}" for line in left_out),
            where=str(folder),
            remedy="a pair is two images and a flow file (.flo, or a 16-bit .png) in one folder",
        )
    return pairs, left_out


def _match(folder: Path, names: list[str]) -> tuple[dict[tuple[Path, Path], Path], dict[Path, str]]:
    flows = [n for n in names if n.lower().endswith(".flo") or (n.lower().endswith(".png") and _is_flow(folder / n))]
    images = [n for n in names if n.lower().endswith(IMAGES) and n not in flows]
    found: dict[tuple[Path, Path], tuple[int, Path]] = {}
    unmatched = {}
    for flow in flows:
        alike = {image: len(os.path.commonprefix([image, flow])) for image in images}
        nearest = [folder / image for image in images if alike[image] == max(alike.values())]
        if len(nearest) != 2:
            unmatched[folder / flow] = f"{len(nearest)} images beside it have a name like it, not two"
            continue
        key, length = (nearest[0], nearest[1]), max(alike.values())
        if key in found and found[key][0] >= length:
            unmatched[folder / flow] = f"{found[key][1].name} is the flow of these images"
            continue
        if key in found:
            unmatched[found[key][1]] = f"{flow} is the flow of these images"
        found[key] = (length, folder / flow)
    return {key: flow for key, (_, flow) in found.items()}, unmatched


def _is_flow(path: Path) -> bool:
    try:
        return flow_files.is_kitti(path)
    except OSError:
        return False  # reading it as an image tells why


def _read_image(path: Path) -> np.ndarray:
    try:
        data = storage.read_regular(path)
    except OSError as error:
        raise Refusal(
            f"the image cannot be read: {error.strerror}", where=str(path), remedy="give another file"
        ) from error
    try:
        image = pictures.decoded(data, cv2.IMREAD_COLOR_RGB)
    except ValueError as error:
        remedy = "give a smaller image"
        raise Refusal(f"the image cannot be decoded: {error}", where=str(path), remedy=remedy) from error
    if image is None or (damaged := pictures.damage(data)):
        what = "this is no image that can be decoded" if image is None else f"this is no whole image: {damaged}"
        raise Refusal(what, where=str(path), remedy="give two images, or one video")
    return image


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] <= frame.shape[0] and size[1] <= frame.shape[1]
    return cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
