"""How fast tvl1-cuda is, and how near to the limit of the GPU's memory: `python -m tests.benchmarks.flow_gpu`.

The limit: an iteration of the inner loop must read and write so many bytes a pixel (BYTES; docs/methods.md 1.5), so
with the iterations that these pairs took, the bandwidth of the memory bounds the pairs a second, if nothing stayed in
the caches. Told beside it: pairs a second from frames in the host's memory to flow in the host's memory, and what
UCF101 takes.

Then a whole extraction of videos, with decoding and encoding, from when a quarter of them is stored: its pairs a second
and GPU beside those of the estimator on the same frames in memory. What is missing is how long the GPU waits.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import flow, importers, synthetic
from pipeline.extraction.run import extract
from pipeline.extraction.workers.gpus import visible_gpus
from pipeline.flow.estimator import gray
from pipeline.store.settings import ExtractionSettings
from pipeline.video.decode import decode
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from pipeline.views.size import resize
from tests.benchmarks.figures import journal_lines, write_figures
from tests.gpu.clock import timed
from tests.gpu.references import FRAMES
from tests.gpu.references import made as frames

SIZES = ((128, 171), (224, 288), (240, 320))
# Bytes a pixel and iteration if every plane passes once: ix, iy, rho and u, v and four duals in, u, v and the duals
# out.
BYTES = {"single": 60, "half": 38}  # half precision: all but u and v take two bytes
BANDWIDTHS = {"H200": 4.8, "H100 80GB HBM3": 3.35}  # TB/s, from the data sheets
UCF101 = 2_500_000  # pairs
EXTRACTED = (128, 171)  # size of the flow of whole extractions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512, help="of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, default=960, help="of the extraction, 48 frames each; 0 leaves it out")
    parser.add_argument("--bandwidth", type=float, help="of the GPU's memory, TB/s; known for H100 (SXM) and H200")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs an NVIDIA GPU, and PyTorch finds none on this machine")
    gpu = torch.cuda.get_device_name()
    known = (speed for name, speed in BANDWIDTHS.items() if name in gpu)
    arguments.bandwidth = arguments.bandwidth or next(known, None)
    if not arguments.bandwidth:
        parser.error(f"the memory bandwidth of {gpu} is not known here; give it with --bandwidth")
    print(f"{gpu}, {arguments.bandwidth} TB/s, {arguments.pairs} pairs a batch")
    print(f"  {'size':<10} {'planes':<8} {'pairs / s':>10} {'on the GPU':>11} {'of the limit':>13} {'UCF101':>11}")
    figures = {}
    for size in SIZES:
        first, second = frames(size, arguments.pairs)
        for precision in BYTES:
            name = f"{size[0]}x{size[1]} {precision}"
            figures[name] = row = measure(first, second, precision, arguments)
            rates = f"{row['pairs_per_second']:>10.0f} {row['pairs_per_second_on_the_gpu']:>11.0f}"
            share, minutes = 100 * row["share_of_bandwidth_bound"], UCF101 / row["pairs_per_second"] / 60
            print(f"  {size[0]}x{size[1]:<6} {precision:<8} {rates} {share:>11.0f} % {minutes:>7.1f} min", flush=True)
    whole = extraction("tvl1-cuda", arguments) if arguments.videos else {}
    if whole:
        rates = f"{whole['pairs_per_second_and_gpu']:.0f} pairs / s and GPU, {whole['in_memory']:.0f} from memory"
        print(f"  extraction of {arguments.videos} videos: {rates}; the GPU waits {whole['waiting']:.0%} of the time")
    write_figures(arguments, sizes=figures, extraction=whole)


def measure(
    first: np.ndarray,
    second: np.ndarray,
    precision: str,
    arguments: argparse.Namespace,
    fused: bool = False,
    **settings: Any,
) -> dict[str, float]:
    """Medians over the rounds."""
    from pipeline.flow.mixed import Mixed
    from pipeline.flow.tvl1_cuda import TVL1CUDA, Solver

    half = precision == "half"
    parameters = TVL1CUDA(half_precision=half, **settings)
    if fused:
        lane = Mixed(parameters, half)
        whole = timed(lambda: lane.launch([(first, second)])(), arguments.rounds)
        staged = lane.staged([(first, second)])
        inside = timed(lambda: lane.solved(*staged), arguments.rounds)
        pixel_iterations = lane.pixel_iterations()
    else:
        solver = Solver(parameters, len(first), first.shape[1:], half)
        whole = timed(lambda: solver.solve(first, second), arguments.rounds)
        inside = timed(solver.graph.replay if solver.graph else solver._launch, arguments.rounds)
        pixel_iterations = solver.pixel_iterations()
    bound = pixel_iterations * BYTES[precision] / (arguments.bandwidth * 1e12)
    return {
        "pairs_per_second": len(first) / whole,
        "pairs_per_second_on_the_gpu": len(first) / inside,
        "pixel_iterations_per_pair": pixel_iterations / len(first),
        "share_of_bandwidth_bound": bound / inside,
        "hours_for_ucf101": UCF101 / len(first) * whole / 3600,
    }


def extraction(
    estimator: str, arguments: argparse.Namespace, processes: int = 1, running: dict[str, Any] | None = None
) -> dict[str, float]:
    """Pairs a second of decoding, flow and encoding together, and of the flow alone on frames in memory."""
    views = {"rgb": RgbSettings(), "flow": FlowSettings(estimator=estimator, size=EXTRACTED, running=running or {})}
    settings, cores = ExtractionSettings(views).resolved(), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        videos, store = Path(folder) / "videos", Path(folder) / "store"
        count = -(-arguments.videos // len(synthetic.CLASSES))
        synthetic.generate(videos, count, 0, workers=cores, height=EXTRACTED[0], width=EXTRACTED[1] + 1)
        listed = importers.read("folder", videos)
        extract(listed, videos, store, settings, processes * cores, gpu_processes=processes)
        first, second = decoded(videos, [row.path for row in listed.rows], arguments.pairs)
        lines = journal_lines(store)
    began, *rest = sorted(lines, key=lambda line: line["time"])[len(lines) // 4 :]
    rate = sum(line["frames"] - 1 for line in rest) / (rest[-1]["time"] - began["time"]) / max(1, len(visible_gpus()))
    alone = flow.create(estimator, **(running or {}))
    in_memory = len(first) / timed(lambda: alone.estimate(first, second), arguments.rounds)
    return {"pairs_per_second_and_gpu": rate, "in_memory": in_memory, "waiting": 1 - rate / in_memory}


def decoded(folder: Path, paths: list[str], pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Gray frames as extraction gives them to the estimator, evenly from all videos."""
    first, second = [], []
    for path in paths[:: max(1, len(paths) * (FRAMES - 1) // pairs)]:
        frames = gray(resize(next(decode(folder / path))[:FRAMES], 0, EXTRACTED))
        first.append(frames[:-1])
        second.append(frames[1:])
    return np.concatenate(first)[:pairs], np.concatenate(second)[:pairs]


if __name__ == "__main__":
    main()
