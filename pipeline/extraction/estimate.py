"""What a run would do and cost, before it is begun: the plan, and an estimate from a sample of its videos."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client, KilledWorker

from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.extraction.job import Outcome
from pipeline.extraction.journal import Summary
from pipeline.extraction.opening import joined
from pipeline.extraction.plan import Plan, VideoFiles, as_stored, plan
from pipeline.extraction.run import refuse_nothing, size_of
from pipeline.extraction.workers.admission import try_out
from pipeline.extraction.workers.cluster import workers_for_extraction
from pipeline.extraction.workers.gpus import visible_gpus
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.extraction.workers.stopping import Stopping
from pipeline.manifest import Manifest, Video
from pipeline.store import compatibility
from pipeline.store.layout import RECORD, video_folder
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.video.decode import DecodeSettings, probe
from pipeline.video.opening import open_container

LEAST_BYTES = 4  # a frame, on average; what does not move takes ten in H.264
SAMPLE = 8  # videos
SAMPLE_FRAMES = 32  # of each that are worked on: half a minute of TV-L1 at 224x288 for the whole sample


@dataclass(frozen=True)
class Sampled:
    """One video of the sample: all its frames, and what each of them costs. frames 0: it would land in quarantine."""

    size: int  # bytes of its file
    frames: int
    seconds: float  # a frame, of one core
    stored: float  # bytes a frame
    flow: float = 0.0  # seconds a frame, of these: with flow on a GPU, those that it was waited for
    refused: str = ""


@dataclass(frozen=True)
class Amount:
    """A sum over all videos that are to do, and the standard error of its estimate (None: too few videos to tell)."""

    value: float
    error: float | None


@dataclass(frozen=True)
class Estimate:
    """What is to be done. The amounts are None when every video of the sample would land in quarantine."""

    todo: int
    size: int  # bytes of their files
    summary: Summary  # what is there already
    sample: tuple[Sampled, ...]
    frames: Amount | None
    seconds: Amount | None  # of cores
    stored: Amount | None  # bytes
    gpus: int  # that flow is computed on
    gpu_processes: int  # on each of them
    on_gpus: Amount | None  # seconds of a GPU, if it never had pairs of more than one video


def estimate(
    manifest: Manifest,
    root: Path,
    store: Path,
    settings: ExtractionSettings,
    retry_quarantined: bool = False,
    time_limit: float = 0.0,
    overwrite: bool = False,
    add_views: bool = False,
    gpu_processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """The plan of `extract` with these arguments and its cost. Writes nothing, neither store nor catalogue.

    The sample is 8 videos evenly spaced in the order of file sizes; of each the first 32 frames are extracted, by a
    worker on this machine as a run would start it, into a temporary folder. Every video is taken to cost, per byte of
    its file, what the sample's nearest one in that order costs. Raises Refusal where `extract` would refuse to begin.
    """
    refuse_nothing(manifest, root)
    root, settings = root.absolute(), joined(store, settings.resolved(), add_views, overwrite)
    found = _planned(manifest, root, store, settings, retry_quarantined, overwrite, add_views)
    todo, settings = found.todo, found.views(settings)
    sizes = {row.video_id: size_of(root / row.path) for row in todo.values()}
    ordered = sorted(todo.values(), key=lambda row: (sizes[row.video_id], row.video_id))
    places = evenly_spaced(len(ordered), SAMPLE)
    sample: list[Sampled] = []
    gpus = 0
    if places:
        settings.prepare()
        gpus = len(visible_gpus()) if settings.on_gpu else 0
        with (
            Stopping(),  # SIGTERM too tidies up
            tempfile.TemporaryDirectory() as scratch,
            workers_for_extraction("", 1, SlurmSettings(), "gpus" if gpus else "processes") as client,
        ):
            try_out(client, settings.as_dict(running=True))
            sampler = _Sampler(client, root, Path(scratch), settings, time_limit)
            sampler.outcome(ordered[places[0]], frames=2)  # a worker's first video waits for its imports
            for place in places:
                progress(len(sample), len(places))
                sample.append(sampler.sample(ordered[place]))
            progress(len(sample), len(places))
    good = [(one, place) for one, place in zip(sample, places, strict=True) if not one.refused]
    shares = _bytes_nearest([sizes[row.video_id] for row in ordered], [place for _, place in good])
    pairs = [(one, share) for (one, _), share in zip(good, shares, strict=True)]
    return Estimate(
        len(todo),
        sum(sizes.values()),
        found.summary,
        tuple(sample),
        frames=_amount([(one.frames / one.size, share) for one, share in pairs]),
        seconds=_amount([(one.frames * one.seconds / one.size, share) for one, share in pairs]),
        stored=_amount([(one.frames * one.stored / one.size, share) for one, share in pairs]),
        gpus=gpus,
        gpu_processes=gpu_processes,
        on_gpus=_amount([(one.frames * one.flow / one.size, share) for one, share in pairs]) if gpus else None,
    )


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Up to `wanted` numbers of range(count), the first and the last among them, at equal distances."""
    if count <= wanted:
        return list(range(count))
    return [round(place * (count - 1) / (wanted - 1)) for place in range(wanted)]


def _planned(
    manifest: Manifest,
    root: Path,
    store: Path,
    settings: ExtractionSettings,
    retry_quarantined: bool,
    overwrite: bool,
    add_views: bool,
) -> Plan:
    """As `extract` plans, and without making a store where there is none."""
    everything = Plan({row.video_id: row for row in manifest.rows})
    interrupted = f"{RECORD}.partial"
    if not store.exists() or (store.is_dir() and all(entry.name == interrupted for entry in store.iterdir())):
        return everything
    opened = create_store(store, settings, overwrite, add_views)  # what is there is opened, or refused
    if compatibility.disagreements(opened, settings, add_views):
        return everything
    return plan(as_stored(manifest, opened), opened, settings, VideoFiles(root), retry_quarantined, overwrite)


class _Sampler:
    """Extracts the beginning of videos into a folder that is thrown away."""

    def __init__(self, client: Client, root: Path, scratch: Path, settings: ExtractionSettings, limit: float) -> None:
        self.client, self.root, self.scratch, self.settings, self.limit = client, root, scratch, settings, limit

    def sample(self, video: Video) -> Sampled:
        file = self.root / video.path
        wanted = min(SAMPLE_FRAMES, self.settings.decode.max_frames or SAMPLE_FRAMES)
        outcome = self.outcome(video, wanted)
        if outcome.status == "failed":
            raise Refusal(
                outcome.reason, where=str(self.scratch), remedy="make room for temporary files, or set TMPDIR"
            )
        if outcome.status != "stored":
            return Sampled(0, 0, 0.0, 0.0, refused=f"{video.video_id}: {outcome.reason}")
        folder = video_folder(self.scratch, video.video_id)
        stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        frames = outcome.frames if outcome.frames < wanted else frames_of(file, self.settings.decode)
        total, flow = (outcome.seconds.get(kind, 0.0) / outcome.frames for kind in ("total", "flow"))
        return Sampled(file.stat().st_size, frames, total, stored / outcome.frames, flow)

    def outcome(self, video: Video, frames: int) -> Outcome:
        """Of its first so many frames."""
        settings = replace(self.settings, decode=replace(self.settings.decode, max_frames=frames)).as_dict(running=True)
        arguments = (str(self.root), str(self.scratch), video, settings, self.limit)
        try:
            return self.client.submit(job.extract_video, *arguments, pure=False).result()
        except KilledWorker:
            return Outcome(video.video_id, "quarantined", "the worker process died", "worker")


def frames_of(file: Path, settings: DecodeSettings) -> int:
    """How many frames of a video are taken, by its header; by its packets where that does not tell, or tells of more
    than its bytes can hold."""
    header = probe(file)
    frames, duration = header.frames or round(header.duration * header.fps), header.duration
    if not 0 < LEAST_BYTES * frames <= file.stat().st_size:
        frames, duration = _packets(file), 0.0
    if settings.fps is not None and header.fps:
        frames = max(1, round((duration or frames / header.fps) * settings.fps))
    return min(frames, settings.max_frames or frames)


def _packets(file: Path) -> int:
    with open_container(file) as container:
        return (
            sum(1 for _ in container.demux(video=0)) - 1
        )  # the last is PyAV's own; others may be empty, and are frames


def _bytes_nearest(sizes: Sequence[int], places: Sequence[int]) -> list[int]:
    """Of sorted sizes, the sum of those that are nearest to each place."""
    sums = [0] * len(places)
    for number, size in enumerate(sizes if places else ()):
        nearest = min(range(len(places)), key=lambda index: abs(places[index] - number))
        sums[nearest] += size
    return sums


def _amount(rates: Sequence[tuple[float, int]]) -> Amount | None:
    """The sum of rates times shares, and its standard error if every rate were drawn at random around their mean."""
    if not rates:
        return None
    value = sum(rate * share for rate, share in rates)
    if len(rates) == 1:
        return Amount(value, None)
    mean = value / sum(share for _, share in rates)
    squares = sum((share * (rate - mean)) ** 2 for rate, share in rates)
    return Amount(value, math.sqrt(squares * len(rates) / (len(rates) - 1)))
