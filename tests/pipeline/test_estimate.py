"""`extract --dry_run`: what it tells, how near it comes, and that it writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import importers, synthetic
from pipeline.errors import Refusal
from pipeline.extraction import estimate as estimating
from pipeline.extraction.estimate import estimate, evenly_spaced, frames_of
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore
from pipeline.store.settings import ExtractionSettings
from pipeline.video.decode import DecodeSettings
from tests.pipeline.test_extract import mtimes

Run = Callable[..., tuple[int, str, str]]


def test_an_estimate_is_near_what_a_run_makes(
    synthetic_videos: Path, synthetic_store: VideoStore, extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    manifest = importers.read("folder", synthetic_videos)
    steps: list[tuple[int, int]] = []
    plan = estimate(
        *(manifest, synthetic_videos, tmp_path / "store", extraction_settings),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert not (tmp_path / "store").exists()
    assert steps == [(done, 8) for done in range(9)]
    assert (plan.todo, plan.summary.skipped) == (12, 0)
    assert plan.size == sum(path.stat().st_size for path in synthetic_videos.rglob("*.mp4"))
    assert [one.frames for one in plan.sample] == [20] * 8
    assert [one.size for one in plan.sample] == sorted(one.size for one in plan.sample)
    assert plan.frames
    assert plan.stored
    assert plan.seconds
    stored = sum(path.stat().st_size for path in (synthetic_store.root / "videos").rglob("*") if path.is_file())
    assert plan.frames.value == pytest.approx(240, rel=0.2)
    assert plan.stored.value == pytest.approx(stored, rel=0.2)
    assert plan.seconds.value > 0
    for amount in (plan.frames, plan.stored, plan.seconds):
        assert amount.error is not None
        assert 0 < amount.error < amount.value


@pytest.mark.usefixtures("sampled_here")
def test_only_the_beginning_of_a_long_video_is_worked_on(
    extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    pixels = synthetic.video(synthetic.CLASSES[0], 0, frames=100, height=32, width=48)
    synthetic.write_mp4(tmp_path / "v.mp4", pixels)
    one = Manifest([Video("v", "v.mp4")], [])
    plan = estimate(one, tmp_path, tmp_path / "store", extraction_settings)
    assert plan.frames
    assert (plan.frames.value, plan.frames.error) == (100, None)
    few = replace(extraction_settings, decode=DecodeSettings(fps=12.5, max_frames=30))
    short = estimate(one, tmp_path, tmp_path / "store", few)
    assert short.frames
    assert short.frames.value == 30
    assert frames_of(tmp_path / "v.mp4", DecodeSettings(fps=12.5)) == 50


def test_frames_are_counted_where_the_header_does_not_tell_or_cannot_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with av.open(str(tmp_path / "v.h264"), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in synthetic.video(synthetic.CLASSES[0], 0, frames=45, height=32, width=48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert frames_of(tmp_path / "v.h264", DecodeSettings()) == 45
    told = estimating.probe(tmp_path / "v.h264")
    for wrong in ({"frames": 2**31 - 1}, {"duration": 1e9}, {"frames": 2**31 - 1, "duration": 1e9}):
        monkeypatch.setattr(estimating, "probe", lambda _, wrong=wrong: replace(told, **wrong))
        assert frames_of(tmp_path / "v.h264", DecodeSettings()) == 45
        assert frames_of(tmp_path / "v.h264", DecodeSettings(fps=told.fps / 5)) == 9


@pytest.mark.usefixtures("sampled_here")
def test_what_is_there_is_not_estimated_again_and_not_touched(
    run: Run, synthetic_videos: Path, synthetic_store: VideoStore, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(synthetic_store.root, tmp_path / "store"))
    gone = synthetic_store.videos[0]
    shutil.rmtree(store / "videos" / gone)
    before = mtimes(tmp_path)
    dry = ("extract", "--videos", synthetic_videos, "--store", store, "--dry_run", "true", "--workers", 4)
    code, out, _ = run(*dry, "--rgb.quality", 90, "--flow.estimator", "dis")
    assert code == 0
    assert "to do 1 video" in " ".join(out.split())
    assert "11 are there already, 0 in quarantine" in out
    assert "minutes with 4 workers" in out
    assert "nothing was written" in out
    code, _, err = run(*dry, "--rgb.quality", 80, "--flow.estimator", "dis")
    assert code == 1
    assert "made with other settings" in err
    assert mtimes(tmp_path) == before


def test_what_a_run_would_refuse_is_refused(extraction_settings: ExtractionSettings, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    one = Manifest([Video("v", "v.mp4")], [])
    with pytest.raises(Refusal, match="not empty and not a store"):
        estimate(one, tmp_path, tmp_path / "mine", extraction_settings)
    with pytest.raises(Refusal, match="no such folder of videos"):
        estimate(one, tmp_path / "none", tmp_path / "store", extraction_settings)
    with pytest.raises(Refusal, match="lists no video"):
        estimate(Manifest([], []), tmp_path, tmp_path / "store", extraction_settings)


@pytest.mark.usefixtures("sampled_here")
@pytest.mark.remedy("nothing was written; without --dry_run the run begins: {}", told=True)
def test_videos_of_the_sample_that_are_broken_are_told(run: Run, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "broken.mp4").write_bytes(bytes(5000))
    dry = ("extract", "--videos", videos, "--store", tmp_path / "store", "--dry_run", "true", "--views", "rgb")
    code, out, _ = run(*dry)
    assert code == 0
    assert "would land in quarantine broken: it cannot be opened as a video" in out
    assert "nothing to estimate from" in out
    synthetic.write_mp4(videos / "good.mp4", synthetic.video(synthetic.CLASSES[0], 0, 5, 32, 48))
    code, out, _ = run(*dry)
    assert code == 0
    assert "would land in quarantine broken" in out
    assert "(from one video)" in out
    assert f"nothing was written; without --dry_run the run begins: {tmp_path / 'store'}" in out
    assert not (tmp_path / "store").exists()
    assert "stored 1 video" in run(*dry[:-4], "--views", "rgb", "--workers", 1)[1]
    assert (tmp_path / "store").exists()


@pytest.mark.usefixtures("sampled_here")
def test_a_dry_run_for_slurm_prints_the_job(run: Run, synthetic_videos: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        *[
            "extract",
            "--videos",
            synthetic_videos,
            "--store",
            tmp_path / "store",
            "--views",
            "rgb",
            "--dry_run",
            "true",
        ],
        *["--scheduler", "slurm", "--workers", 6, "--slurm.cores", 3, "--slurm.queue", "short"],
    )
    assert code == 0
    assert "#SBATCH -p short" in out
    assert "--nworkers 3" in out
    assert "minutes with 6 workers" in out
    assert not (tmp_path / "store").exists()


@given(st.integers(0, 10_000), st.integers(2, 20))
def test_a_sample_is_spread_over_the_whole(count: int, wanted: int) -> None:
    places = evenly_spaced(count, wanted)
    assert places == sorted(set(places))
    assert len(places) == min(count, wanted)
    if count:
        assert (places[0], places[-1]) == (0, count - 1)
        steps = [two - one for one, two in zip(places, places[1:], strict=False)]
        assert not steps or max(steps) - min(steps) <= 1
