"""Frames and flow as others leave them: LMDBs of CoCLR, folders of denseflow; made here, of synthetic videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import lmdb
import msgpack
import numpy as np

from pipeline import synthetic

Videos = dict[str, list[bytes]]
NAMES = ("Walk/v_Walk_g01_c01", "Walk/clip [HD] (1)!", "Run fast/été#1")
HEIGHT, WIDTH = 48, 64


def frame_jpegs(count: int, seed: int = 0, *options: int) -> list[bytes]:
    frames = synthetic.video(synthetic.CLASSES[0], (7, seed), frames=max(count, 1), height=HEIGHT, width=WIDTH)[:count]
    return [encoded(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), *options) for frame in frames]


def flow_planes(count: int, seed: int = 0) -> np.ndarray:
    """Smooth flow as bytes, (count, 2, H, W)."""
    coarse = np.random.default_rng(seed).integers(96, 160, (count, 2, 4, 5)).astype(np.uint8)
    return np.array([[cv2.resize(plane, (WIDTH, HEIGHT)) for plane in pair] for pair in coarse]).reshape(
        count, 2, HEIGHT, WIDTH
    )


def coclr_flow(planes: np.ndarray) -> list[bytes]:
    return [encoded(np.stack([u, v, np.full_like(u, 128)], -1), cv2.IMWRITE_JPEG_QUALITY, 100) for u, v in planes]


def encoded(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def pack(path: Path, videos: Videos, extra: dict[bytes, object] | None = None, without: tuple[bytes, ...] = ()) -> Path:
    """An LMDB as CoCLR packs it, `__vlen__` in the order of `__keys__`."""
    numbers = sorted(range(len(videos)), key=lambda number: list(videos)[number])
    keys, lengths = [b"%09d" % number for number in numbers], [len(list(videos.values())[n]) for n in numbers]
    content: dict[bytes, object] = {b"%09d" % n: pictures for n, pictures in enumerate(videos.values())}
    content |= {b"__order__": [name.encode() for name in videos], b"__keys__": keys, b"__vlen__": lengths}
    content |= {b"__len__": len(videos)} | (extra or {})
    with (
        lmdb.open(str(path), subdir=False, map_size=2**24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in content.items():
            if key not in without:
                transaction.put(key, msgpack.packb(value, use_bin_type=False))
    return path


def write_folder(root: Path, frames: Videos, planes: dict[str, np.ndarray], first: int = 1) -> Path:
    for name, pictures in frames.items():
        (root / name).mkdir(parents=True)
        for number, jpeg in enumerate(pictures, first):
            (root / name / f"img_{number:05d}.jpg").write_bytes(jpeg)
        for number, (u, v) in enumerate(planes.get(name, ()), first):
            (root / name / f"flow_x_{number:05d}.jpg").write_bytes(encoded(u))
            (root / name / f"flow_y_{number:05d}.jpg").write_bytes(encoded(v))
    return root
