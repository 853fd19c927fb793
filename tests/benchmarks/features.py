"""Feature extraction against its network alone: `python -m tests.benchmarks.features --backbone s3d`.

The same clips three times a round: as evaluation computes them, from the store to the bank on the disk; through the
network alone, from memory; and through the reader alone. The figure is the share of the network's rate that extraction
reaches: where it is near one, the network limits it, not the reader.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from eval import features
from eval.features import Request, Seen
from eval.protocols import PROTOCOLS
from pipeline import synthetic
from pipeline.extraction import job
from pipeline.manifest import Video
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.rgb import RgbSettings
from tests.benchmarks.figures import write_figures
from train import reader
from train.clips.spec import ClipSpec
from train.inference import BATCH, clips_ahead
from train.networks.network import Network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store; by default one of synthetic videos of 128x171 is made")
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--frames", type=int, default=96, help="of the synthetic videos")
    parser.add_argument("--backbone", default="s3d")
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--protocol", default="clean", choices=PROTOCOLS)
    parser.add_argument("--reader", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of the reader and of the network each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(arguments.store) if arguments.store else made(Path(scratch), arguments)
        seconds = measure(store, arguments, Path(scratch))
    clips = seconds.pop("clips")[0]
    rates = {name: clips / statistics.median(spent) for name, spent in seconds.items()}
    share = statistics.median(
        alone / whole for alone, whole in zip(seconds["network"], seconds["extraction"], strict=True)
    )
    for name, rate in rates.items():
        print(f"{name:12} {rate:10.1f} clips/s")
    print(f"extraction reaches {share:.2f} of the network's own rate ({clips:.0f} clips, {arguments.backbone})")
    write_figures(arguments, clips_per_second=rates, share_of_the_network=share)


def made(folder: Path, arguments: argparse.Namespace) -> VideoStore:
    settings = ExtractionSettings({"rgb": RgbSettings()}).resolved()
    create_store(folder / "store", settings)
    (folder / "videos").mkdir()
    for number in range(arguments.videos):
        video = Video(f"v{number}", f"v{number}.mp4")
        frames = synthetic.video(synthetic.CLASSES[number % 10], number, arguments.frames, 128, 171)
        synthetic.write_mp4(folder / "videos" / video.path, frames)
        job.extract_video(str(folder / "videos"), str(folder / "store"), video, settings.as_dict())
    return open_store(folder / "store")


def measure(store: VideoStore, arguments: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clips = ClipSpec(length=arguments.length, stride=1, size=(arguments.size, arguments.size))
    look, seen, videos = PROTOCOLS[arguments.protocol].features, Seen("rgb", clips), store.videos[: arguments.videos]
    network = Network(arguments.backbone, 3).to(device).eval()
    request = Request(
        "bench", "trained", seen, "backbone", look, 0, store.settings_hash, "", "", "", arguments.reader
    )  # fmt: skip
    with contextlib.closing(reader.create(arguments.reader, store, arguments.threads)) as executor:
        plans = [plan for video in videos for plan in seen.plans(store, video, look, 0)]
        stream = clips.stream("rgb")
        held = [batch.clone() for _, batch in clips_ahead(plans[: 2 * BATCH], executor, device, BATCH)]

        def extraction() -> None:
            path = scratch / "bank.h5"
            path.unlink(missing_ok=True)
            features.banks({path: request}, lambda _: network, store, videos, executor)

        @torch.inference_mode()
        def alone() -> None:
            for first in range(0, len(plans), BATCH):
                batch = held[first // BATCH % len(held)]
                network.embed(batch[: len(plans) - first], "backbone").cpu()

        def reading() -> None:
            for first in range(0, len(plans), BATCH):
                executor.run("rgb", plans[first : first + BATCH], stream.size)

        seconds: dict[str, list[float]] = {"clips": [len(plans)]}
        work: dict[str, Callable[[], None]] = {"extraction": extraction, "network": alone, "reader": reading}
        alone()
        for _ in range(arguments.rounds):
            for name, task in work.items():
                begun = time.perf_counter()
                task()
                seconds.setdefault(name, []).append(time.perf_counter() - begun)
        return seconds


if __name__ == "__main__":
    main()
