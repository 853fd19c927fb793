"""Export: what lies in the store comes out whole, in every format, or nothing does."""

from __future__ import annotations

import dataclasses
import errno
import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import synthetic
from pipeline.errors import Refusal, UsageError
from pipeline.existing import open_source
from pipeline.existing.bring import Existing, bring, manifest_of
from pipeline.extraction import job
from pipeline.flow.quantisation import quantise
from pipeline.manifest import Video
from pipeline.show import export, npy
from pipeline.store import VideoStore, open_store, shard
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.video import mp4
from pipeline.video.decode import decode, probe
from pipeline.views.colour import colour_code
from pipeline.views.flow import FLOW, FlowSettings
from pipeline.views.rgb import RgbSettings

Run = Callable[..., tuple[int, str, str]]
MP4_NEAR = 3.0  # grey levels, mean: half-size chroma and H.264 together


class FullDisk(io.BufferedWriter):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def video_id(synthetic_store: VideoStore) -> str:
    return synthetic_store.videos[0]


@pytest.fixture(autouse=True, params=[64, 7], ids=["one block", "blocks of 7"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with whole videos at once, and with seams that must not show."""
    monkeypatch.setattr(export, "BLOCK_FRAMES", request.param)


def stored(folder: Path, frames: np.ndarray, flow: FlowSettings | None, fps: int = 25) -> VideoStore:
    """A store that holds `frames` as the video `v`."""
    synthetic.write_mp4(folder / "v.mp4", frames, fps=fps)
    views = {"rgb": RgbSettings(), **({"flow": flow} if flow else {})}
    settings = ExtractionSettings(views).resolved()
    create_store(folder / "store", settings)
    outcome = job.extract_video(str(folder), str(folder / "store"), Video("v", "v.mp4"), settings.as_dict())
    assert outcome.status == "stored"
    return open_store(folder / "store")


def decoded(path: Path) -> np.ndarray:
    return np.concatenate(list(decode(path)))


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance of the worst frame in grey levels."""
    return float(np.abs(first.astype(float) - second).mean(axis=(1, 2, 3)).max())


def test_mp4_holds_the_frames_at_their_rate(tmp_path: Path) -> None:
    frames = synthetic.video(synthetic.CLASSES[1], 3, frames=20, height=48, width=64)
    store = stored(tmp_path, frames, flow=None, fps=12)
    told = export.export(store, "v", tmp_path / "new" / "out.MP4")
    assert told == "20 rgb frames of 64x48, H.264 at 12 fps"
    header = probe(tmp_path / "new" / "out.MP4")
    assert (header.codec, header.fps, header.frames) == ("h264", 12, 20)
    assert header.duration == pytest.approx(20 / 12, abs=0.01)
    shown = decoded(tmp_path / "new" / "out.MP4")
    assert shown.shape == frames.shape
    assert apart(shown, store.read("v", "rgb", slice(None))) < MP4_NEAR
    assert apart(shown[1:], store.read("v", "rgb", slice(-1))) > MP4_NEAR  # a shift by one would be seen


def test_mp4_of_flow_holds_its_colours(synthetic_store: VideoStore, video_id: str, tmp_path: Path) -> None:
    told = export.export(synthetic_store, video_id, tmp_path / "out.mp4", "flow")
    flow = synthetic_store.flow(video_id, slice(None))
    longest = np.percentile(np.hypot(flow[:, 0], flow[:, 1]), 99)
    assert told == f"19 flow frames of 64x48, full colour at {longest:.1f} px, H.264 at 25 fps"
    # Half-size chroma blurs the edges of colours: the mean over patches is what must agree.
    shown, expected = (
        np.stack([cv2.resize(frame, (8, 6), interpolation=cv2.INTER_AREA) for frame in frames])
        for frames in (decoded(tmp_path / "out.mp4"), colour_code(flow, float(longest)))
    )
    assert shown.shape == expected.shape
    assert apart(shown, expected) < MP4_NEAR


@pytest.mark.parametrize("size", [(33, 49), (32, 49), (33, 48)])
def test_mp4_of_odd_sizes_repeats_the_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = synthetic.video(synthetic.CLASSES[0], 3, frames=3, height=size[0], width=size[1])
    mp4.write(tmp_path / "out.mp4", [frames], 25.0)
    shown = decoded(tmp_path / "out.mp4")
    assert shown.shape == (3, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    # The frames' noise is in their colours too, which this chroma cannot hold: their brightness must agree.
    bright, expected = (pixels.mean(axis=3, keepdims=True) for pixels in (shown[:, : size[0], : size[1]], frames))
    assert apart(bright, expected) < MP4_NEAR


@pytest.mark.remedy("take the frames as a folder of JPEGs or as .npy instead")
def test_frames_larger_than_h264_allows_are_refused_as_that(tmp_path: Path) -> None:
    frames = tmp_path / "frames" / "v"
    frames.mkdir(parents=True)
    cv2.imwrite(str(frames / "img_1.jpg"), np.zeros((16, 20000, 3), np.uint8))
    with open_source(frames.parent) as source:
        existing = Existing(source, None)
        bring(manifest_of(existing), existing, tmp_path / "store", 1, "again")
    store = open_store(tmp_path / "store")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refusal, match=r"H.264 cannot hold it"):
        export.export(store, "v", tmp_path / "out.mp4")
    assert sorted(tmp_path.iterdir()) == before
    export.export(store, "v", tmp_path / "out")
    assert (tmp_path / "out" / "img_00001.jpg").read_bytes() == (frames / "img_1.jpg").read_bytes()
    export.export(store, "v", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (1, 16, 20000, 3)


def test_what_differs_from_the_store_is_told(tmp_path: Path) -> None:
    store = stored(tmp_path, synthetic.video(synthetic.CLASSES[0], 3, frames=3, height=33, width=48), flow=None)
    store.infos = {"v": dataclasses.replace(store.info("v"), fps=0.0)}
    told = export.export(store, "v", tmp_path / "out.mp4")
    assert "at 25 fps (the video's own rate is not known), edges repeated to make the size even" in told


@pytest.mark.parametrize(
    ("fps", "rate"), [(30000 / 1001, Fraction(30000, 1001)), (25.0, Fraction(25)), (12.5, Fraction(25, 2)), (0.0, 25)]
)
def test_rates_are_those_of_containers(fps: float, rate: Fraction) -> None:
    assert mp4.rate(fps) == rate


@pytest.mark.parametrize("view", ["rgb", "flow"])
def test_npy_is_what_the_store_reads(synthetic_store: VideoStore, video_id: str, tmp_path: Path, view: str) -> None:
    advances: list[int] = []
    told = export.export(synthetic_store, video_id, tmp_path / "out.npy", view, advances.append)
    read = synthetic_store.flow if view == "flow" else lambda *what: synthetic_store.read(what[0], "rgb", what[1])
    expected = read(video_id, slice(None))
    array = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert array.dtype == expected.dtype
    assert np.array_equal(array, expected)
    assert sum(advances) == len(expected)
    assert f"{expected.dtype} {expected.shape}" in told


def test_a_folder_holds_the_stored_bytes(synthetic_store: VideoStore, video_id: str, tmp_path: Path) -> None:
    told = export.export(synthetic_store, video_id, tmp_path / "out")
    assert told == "20 rgb frames of 64x48, the stored JPEGs as img_00001.jpg and so on"
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [f"img_{number:05d}.jpg" for number in range(1, 21)]
    for name, stream in zip(names, synthetic_store.encoded(video_id, "rgb", slice(None)), strict=True):
        assert (tmp_path / "out" / name).read_bytes() == stream.tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        FlowSettings(estimator="dis"),
        FlowSettings(estimator="dis", codec="zstd", mapping="sqrt"),
        FlowSettings(estimator="dis", bound=30.0),
    ],
    ids=["the papers' bytes", "zstd and sqrt", "another bound"],
)
def test_a_folder_of_flow_is_denseflows(tmp_path: Path, settings: FlowSettings) -> None:
    store = stored(tmp_path, synthetic.video(synthetic.CLASSES[0], 3, frames=9, height=32, width=48), settings)
    told = export.export(store, "v", tmp_path / "out", "flow")
    assert told.endswith("bound 20 px, JPEG quality 95")
    expected = quantise(store.flow("v", slice(None)))
    if settings.mapping == "linear" and settings.bound == 20:
        assert np.array_equal(expected, store.read("v", "flow", slice(None)))
    names = {f"flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in range(1, 9)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for number, planes in enumerate(expected, start=1):
        for axis, plane in zip("xy", planes, strict=True):
            image = cv2.imread(str(tmp_path / "out" / f"flow_{axis}_{number:05d}.jpg"), cv2.IMREAD_UNCHANGED)
            assert image is not None
            assert image.shape == (32, 48)
            assert np.abs(image.astype(float) - plane).mean() < 2


def test_large_frames_come_in_smaller_pieces(
    synthetic_store: VideoStore, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BLOCK_PIXELS", 48 * 64 * 3 + 1)
    pieces = list(export.spans(synthetic_store, video_id, 8))
    assert pieces == [slice(0, 3), slice(3, 6), slice(6, 8)]
    monkeypatch.setattr(export, "BLOCK_PIXELS", 1)
    assert len(list(export.spans(synthetic_store, video_id, 8))) == 8


def test_the_scale_of_the_colours_is_measured_in_part_of_large_frames(
    synthetic_store: VideoStore, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export.picture_scale(synthetic_store, video_id, FLOW, 19)
    monkeypatch.setattr(export, "MEASURED_PIXELS", 48 * 64 // 4)
    assert export.picture_scale(synthetic_store, video_id, FLOW, 19) == pytest.approx(whole, rel=0.1)


def test_export_refuses(synthetic_store: VideoStore, video_id: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "away").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    kinds: list[tuple[str, str, str, type[Refusal], str]] = [
        (video_id + "x", "a.mp4", "rgb", Refusal, f"nearest is '{video_id}'"),
        (video_id, "a.avi", "rgb", UsageError, "cannot be exported as '.avi'"),
        (video_id, ".MP4", "rgb", UsageError, "cannot be exported as '.MP4'"),
        (video_id, "a.mp4", "flwo", UsageError, 'did you mean "flow"'),
        (video_id, "file", "rgb", Refusal, "it is there already"),
        (video_id, "folder", "rgb", Refusal, "it is there already"),
        (video_id, "away", "rgb", Refusal, "it is there already"),
        (video_id, "file/a.mp4", "rgb", Refusal, "it cannot be written"),
        (video_id, "file/a.npy", "rgb", Refusal, "it cannot be written"),
        (video_id, "file/a", "flow", Refusal, "it cannot be written"),
    ]
    for video, out, view, kind, message in kinds:
        with pytest.raises(Refusal) as caught:
            export.export(synthetic_store, video, tmp_path / out, view)
        assert type(caught.value) is kind
        assert message in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_video_without_flow_has_none_to_export(tmp_path: Path) -> None:
    frames = synthetic.video(synthetic.CLASSES[0], 3, frames=1, height=32, width=48)
    store = stored(tmp_path, frames, FlowSettings(estimator="dis"))
    with pytest.raises(Refusal, match="a single frame, so no flow"):
        export.export(store, "v", tmp_path / "a.mp4", "flow")
    export.export(store, "v", tmp_path / "a.mp4")
    assert len(decoded(tmp_path / "a.mp4")) == 1
    (tmp_path / "without").mkdir()
    without = stored(tmp_path / "without", frames, flow=None)
    with pytest.raises(Refusal, match="has no view 'flow'"):
        export.export(without, "v", tmp_path / "b.mp4", "flow")


@pytest.mark.parametrize("out", ["out.mp4", "out.npy", "out"])
def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """Neither of a damaged video, whose damage shows after its first frames, nor where the disk is full."""
    store = stored(tmp_path, synthetic.video(synthetic.CLASSES[0], 3, frames=12, height=32, width=48), flow=None)
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(npy.GrowingArray, "finish", full)
        patch.setattr("pipeline.storage.disk.flush_file_system", full)
        with pytest.raises(Refusal, match="it cannot be written: No space left on device"):
            export.export(store, "v", tmp_path / out)
    assert sorted(tmp_path.iterdir()) == before

    path = shard.path(store.path("v", "rgb"), 0, 4)
    data = bytearray(path.read_bytes())
    data[-16 * 12 - 4 - 100] ^= 1  # in the last frame, which stands before the index
    path.write_bytes(data)
    with pytest.raises(Refusal, match="'v' is damaged"):
        export.export(store, "v", tmp_path / out)
    assert sorted(tmp_path.iterdir()) == before


def test_the_file_of_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg writes through a Python file, whose error must come out as itself."""
    frames = synthetic.video(synthetic.CLASSES[0], 3, frames=3, height=32, width=48)
    monkeypatch.setattr("builtins.open", lambda *_: FullDisk((tmp_path / "x").open("wb").detach()))
    with pytest.raises(OSError, match="No space left"):
        mp4.write(tmp_path / "new" / "out.mp4", [frames], 25.0)
    assert not list((tmp_path / "new").iterdir())


def test_the_command_tells_what_it_wrote(run: Run, synthetic_store: VideoStore, video_id: str, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    code, told, _ = run("export", synthetic_store.root, video_id, "--out", out)
    assert code == 0
    assert told.strip() == f"exported {video_id}: 20 rgb frames of 64x48, uint8 (20, 48, 64, 3): {out}"
    code, _, err = run("export", synthetic_store.root, video_id, "--out", out)
    assert code == 1
    assert "to do: remove it, or give another --out" in err
    code, _, err = run("export", synthetic_store.root, video_id, "--out", tmp_path / "a", "--view", "rbg")
    assert code == 2
    assert 'did you mean "rgb"' in err
    code, _, err = run("export", synthetic_store.root, "nobody", "--out", tmp_path / "a")
    assert code == 1
    assert "'nobody' is not in the store" in err
