"""What a large store costs to check and to come back to: `python -m tests.benchmarks.store`.

`verify` reads and hashes every byte: its rate on one core against SHA-256 alone over the same bytes in memory, the
limit of any check by digests, and on two threads. A rerun with nothing to do lists the videos, looks at every source
file and every commit record, and must not take more than 2 s for 10,000 videos. The stores are made for this run: one
with files as large as those of 7 s of 256 x 342 frames, one with as many videos as are asked for, of four tiny frames
each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from pipeline import importers, storage
from pipeline.extraction.run import extract
from pipeline.store import VideoStore, catalogue, open_store
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.verify import verify
from pipeline.store.writing import VideoWriter, add_groups, create_store
from pipeline.views.rgb import RgbSettings
from tests.benchmarks.figures import write_figures

SETTINGS = ExtractionSettings({"rgb": RgbSettings()}).resolved()
CLASSES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000, help="of the store that is run again over")
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of the store that is verified")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        figures = verification(scratch / "large", arguments.gigabytes, arguments.rounds)
        figures |= rerun(scratch / "many", arguments.videos, arguments.rounds)
    for name, value in figures.items():
        print(f"  {name:<60} {value:8.3f}")
    write_figures(arguments, figures=figures)


def verification(folder: Path, gigabytes: float, rounds: int) -> dict[str, float]:
    """Gigabytes (10^9 bytes) a second; the three ways in turns."""
    streams = [np.random.default_rng(i).integers(0, 256, 18_000, np.uint8) for i in range(180)]
    count = max(1, round(gigabytes * 1e9 / sum(len(stream) for stream in streams)))
    store = fill(folder, folder.parent, [f"c/{number}" for number in range(count)], streams, (256, 342, 3))
    data = b"".join(stream.tobytes() for stream in streams)
    rates: dict[str, list[float]] = {"SHA-256 alone": [], "verify, one thread": [], "verify, two threads": []}
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            storage.digest(data)
        rates["SHA-256 alone"].append(count * len(data) / 1e9 / (time.perf_counter() - began))
        for threads, name in ((1, "verify, one thread"), (2, "verify, two threads")):
            began = time.perf_counter()
            read = sum(size for _, size, _ in verify(open_store(store.root), threads))
            rates[name].append(read / 1e9 / (time.perf_counter() - began))
    alone = rates.pop("SHA-256 alone")
    return {
        "GB/s, SHA-256 alone": statistics.median(alone),
        **{f"GB/s, {name}": statistics.median(found) for name, found in rates.items()},
        **{
            f"share of SHA-256's rate, {name}": statistics.median(a / b for a, b in zip(found, alone, strict=True))
            for name, found in rates.items()
        },
    }


def rerun(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds for 10,000 videos; the listing of the folder of videos is a part of it, told apart."""
    names = [f"class{i % CLASSES:03d}/v_class{i % CLASSES:03d}_{i // CLASSES:06d}" for i in range(count)]
    videos = folder / "videos"
    for name in names:
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / f"{name}.mp4").write_bytes(b"x")
    frame = np.zeros((16, 16, 3), np.uint8)
    stream = SETTINGS.views["rgb"].frame_codec.encode_frame(frame)
    store = fill(folder / "store", videos, names, [stream] * 4, frame.shape)
    listing, working = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        manifest = importers.read("folder", videos)
        listed = time.perf_counter()
        summary = extract(manifest, videos, store.root, SETTINGS, workers=1)
        ended = time.perf_counter()
        assert (summary.stored, summary.skipped) == (0, count)
        listing.append((listed - began) * 10_000 / count)
        working.append((ended - began) * 10_000 / count)
    return {
        "s for 10,000 videos, rerun with nothing to do": statistics.median(working),
        "of these, listing the videos": statistics.median(listing),
    }


def fill(
    root: Path, videos: Path, names: list[str], streams: list[np.ndarray], shape: tuple[int, int, int]
) -> VideoStore:
    """A store of videos that all have the same frames."""
    create_store(root, SETTINGS)
    add_groups(root, names)
    (view,) = SETTINGS.extractors(names[0])
    view.frame_shape = shape
    with mock.patch("pipeline.storage.disk.flush_file_system"):  # nothing here must outlive a power cut
        for name in names:
            file = videos / f"{name}.mp4"
            content = file.read_bytes() if file.exists() else b""
            writer = VideoWriter(root, name)
            writer.begin()
            writer.add(view, list(streams))
            writer.commit(
                [view],
                {
                    "label": name.split("/")[0],
                    "source": name,
                    "split": "",
                    "fps": 25.0,
                    "length": len(streams),
                    "file": {"path": f"{name}.mp4", "bytes": len(content), "sha256": storage.digest(content)},
                    "settings_hash": settings_hash(SETTINGS.as_dict()),
                },
            )
    catalogue.save(root)
    return open_store(root)


if __name__ == "__main__":
    main()
