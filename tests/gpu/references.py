"""What `make gpu-check` compares with, made beforehand on a CPU: `python -m tests.gpu.references --out FILE`.

One archive of less than 12 MiB: pairs of frames with the flow of tvl1-cpu, and the bytes of a small store. The flow of
the many large pairs is kept at every fourth pixel of every fourth row, in half precision (its error, .004 px at flow of
8, is far below what is compared); that of a few pairs of other sizes in full.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import flow, importers, synthetic
from pipeline.extraction.run import extract
from pipeline.flow.estimator import gray
from pipeline.store.settings import ExtractionSettings
from pipeline.video.decode import decode
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from pipeline.views.size import resize

STEP = 4  # pixels between those whose flow is kept
FRAMES = 33  # of a video; those between the first and the last belong to two pairs, and are kept once
LARGEST = 12 << 20  # bytes


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    pairs: int = 512
    size: tuple[int, int] = (128, 171)
    others: tuple[tuple[int, int], ...] = ((97, 130), (15, 33), (16, 16), (5, 7))
    other_pairs: int = 8
    videos: int = 4
    video_frames: int = 48
    flow: dict[str, Any] = field(default_factory=dict)  # settings of TV-L1 that differ


FEW = {"warps": 1, "inner_iterations": 2, "outer_iterations": 2}  # iterations, for the interpreter
TINY = Amounts(pairs=2, size=(20, 21), others=((5, 7),), other_pairs=1, videos=2, video_frames=36, flow=FEW)


@dataclass(frozen=True)
class Pairs:
    """Gray frames (N, H, W) uint8 and the flow (N, 2, h, w) at every `step`-th pixel of every `step`-th row."""

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    step: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--videos", type=Path, help="folder of real videos; synthetic ones without it")
    parser.add_argument("--tiny", action="store_true", help="very few and small ones, to go through every line")
    arguments = parser.parse_args()
    amounts = TINY if arguments.tiny else Amounts()
    with tempfile.TemporaryDirectory() as scratch:
        pairs = _archive(amounts, arguments.videos, Path(scratch), arguments.out)
    size = arguments.out.stat().st_size
    print(f"{pairs} pairs and a store of {amounts.videos} videos, {size / (1 << 20):.1f} MiB: {arguments.out}")
    if size > LARGEST:
        raise SystemExit(f"{arguments.out} is larger than {LARGEST >> 20} MiB")


def load(archive: Path) -> list[Pairs]:
    """The pairs of every size, the many large ones first."""
    with zipfile.ZipFile(archive) as opened, np.load(io.BytesIO(opened.read("pairs.npz"))) as arrays:
        count = sum(name.startswith("step") for name in arrays)
        return [
            Pairs(
                arrays[f"frames{n}"][arrays[f"places{n}"]],
                arrays[f"frames{n}"][arrays[f"places{n}"] + 1],
                arrays[f"flow{n}"].astype(np.float32),
                int(arrays[f"step{n}"]),
            )
            for n in range(count)
        ]


def unpack_store(archive: Path, folder: Path) -> Path:
    """The store of the archive."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder, [name for name in opened.namelist() if name.startswith("store/")])
    return folder / "store"


def _archive(amounts: Amounts, videos: Path | None, scratch: Path, out: Path) -> int:
    arrays: dict[str, np.ndarray] = {}
    sizes = [(amounts.size, amounts.pairs), *((size, amounts.other_pairs) for size in amounts.others)]
    for n, (size, count) in enumerate(sizes):
        first, second = _real(videos, size, count) if videos else made(size, count)
        step = STEP if n == 0 else 1
        flows = flow.create("tvl1-cpu", **amounts.flow).estimate(first, second)[:, :, ::step, ::step]
        frames, places = _once(first, second)
        arrays |= {f"frames{n}": frames, f"places{n}": places, f"step{n}": np.array(step)}
        arrays[f"flow{n}"] = flows.astype(np.float16 if step > 1 else np.float32)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    store = _store(amounts, scratch)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("pairs.npz", packed.getvalue())
        for path in sorted(path for path in store.rglob("*") if path.is_file()):
            archive.write(path, f"store/{path.relative_to(store)}")
    return sum(count for _, count in sizes)


def _once(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames of pairs, each once, and where the first one of a pair is; the second one is behind it."""
    frames: list[np.ndarray] = []
    places = []
    for one, other in zip(first, second, strict=True):
        if not frames or not np.array_equal(frames[-1], one):
            frames.append(one)
        places.append(len(frames) - 1)
        frames.append(other)
    return np.stack(frames), np.array(places)


def made(size: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of synthetic videos of all classes, no pair across two videos."""
    first, second = [], []
    for number in range(-(-count // (FRAMES - 1))):
        kind = synthetic.CLASSES[number % len(synthetic.CLASSES)]
        frames = gray(synthetic.video(kind, number, frames=FRAMES, height=size[0], width=size[1]))
        first.append(frames[:-1])
        second.append(frames[1:])
    return np.concatenate(first)[:count], np.concatenate(second)[:count]


def _real(folder: Path, size: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of the beginnings of real videos."""
    first, second = [], []
    for row in importers.read("folder", folder).rows:
        frames = gray(resize(next(decode(folder / row.path))[:FRAMES], 0, size))
        first.append(frames[:-1])
        second.append(frames[1:])
        if sum(map(len, first)) >= count:
            break
    return np.concatenate(first)[:count], np.concatenate(second)[:count]


def _store(amounts: Amounts, scratch: Path) -> Path:
    height, width = amounts.size
    for number in range(amounts.videos):
        kind = synthetic.CLASSES[number % len(synthetic.CLASSES)]
        (scratch / "videos" / kind).mkdir(parents=True, exist_ok=True)
        frames = synthetic.video(kind, number, frames=amounts.video_frames, height=height, width=width - width % 2)
        synthetic.write_mp4(scratch / "videos" / kind / f"{number}.mp4", frames)
    views = {"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis")}
    listed = importers.read("folder", scratch / "videos")
    extract(listed, scratch / "videos", scratch / "store", ExtractionSettings(views), workers=2)
    return scratch / "store"


if __name__ == "__main__":
    main()
