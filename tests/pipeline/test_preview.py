"""Contact sheets and clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import synthetic
from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.manifest import Video
from pipeline.show import export, preview
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.video.decode import decode
from pipeline.views.colour import colour_code, full_colour, key
from pipeline.views.rgb import RgbSettings


def test_a_sheet_shows_frames_above_their_flow_and_when_they_are(synthetic_store: VideoStore) -> None:
    video_id = synthetic_store.videos[0]
    sheet = preview.contact_sheet(synthetic_store, video_id, columns=4, width=128)
    tile_height, tile_width = 96 + preview.GAP, 128 + preview.GAP
    below = preview.LINE + preview.GAP
    top = sheet.shape[0] - 2 * tile_height - below
    assert sheet.shape[1] == 4 * tile_width
    frame = cv2.resize(synthetic_store.read(video_id, "rgb", [0])[0], (128, 96), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(sheet[top : top + 96, :128], frame)
    flow = sheet[top + tile_height : -preview.GAP - below, :128]
    assert len(np.unique(flow.reshape(-1, 3), axis=0)) > 10
    assert all((place < 100).any() for place in np.split(sheet[-below:], 4, axis=1))  # the number and time of each


def test_the_key_stands_beside_the_caption_and_covers_nothing(synthetic_store: VideoStore) -> None:
    video_id = synthetic_store.videos[0]
    sheet = preview.contact_sheet(synthetic_store, video_id, columns=3, width=128)
    right = slice(-preview.KEY - preview.GAP, -preview.GAP)
    assert np.array_equal(sheet[: preview.KEY, right], key(preview.KEY))
    assert (sheet[: preview.KEY, : -preview.KEY - 2 * preview.GAP] < 100).any(axis=(0, 2)).sum() > 100  # the caption
    assert (sheet[preview.LINE : 2 * preview.LINE, : -preview.KEY - 2 * preview.GAP] < 100).any()  # on several lines


def test_a_video_that_stands_upright_has_a_sheet_of_bounded_height(
    tmp_path: Path, extraction_settings: ExtractionSettings
) -> None:
    synthetic.write_mp4(tmp_path / "v.mp4", synthetic.video(synthetic.CLASSES[0], 0, frames=3, height=96, width=32))
    create_store(tmp_path / "store", extraction_settings)
    job.extract_video(str(tmp_path), str(tmp_path / "store"), Video("v", "v.mp4"), extraction_settings.as_dict())
    sheet = preview.contact_sheet(open_store(tmp_path / "store"), "v")
    captions = 5 * preview.LINE + preview.KEY
    assert 2 * preview.HIGHEST < sheet.shape[0] < 2 * preview.HIGHEST + captions


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_videos_have_sheets(tmp_path: Path, extraction_settings: ExtractionSettings, frames: int) -> None:
    pictures = synthetic.video(synthetic.CLASSES[0], 0, frames=frames, height=32, width=48)
    synthetic.write_mp4(tmp_path / "v.mp4", pictures)
    for name, settings in (
        ("two", extraction_settings),
        ("rgb", ExtractionSettings({"rgb": RgbSettings()}).resolved()),
    ):
        create_store(tmp_path / name, settings)
        outcome = job.extract_video(str(tmp_path), str(tmp_path / name), Video("v", "v.mp4"), settings.as_dict())
        assert (outcome.status, outcome.frames) == ("stored", frames)
        store = open_store(tmp_path / name)
        assert preview.contact_sheet(store, "v").ndim == 3
        flow = name == "two" and frames > 1
        (block,) = preview.clip(store, "v")
        assert block.shape == (frames - flow, round(32 * 200 / 48), 400 if flow else 200, 3)


def test_sheets_are_written_below_the_names_of_their_videos(synthetic_store: VideoStore, tmp_path: Path) -> None:
    written = preview.write_contact_sheets(synthetic_store, synthetic_store.videos[:2], tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in written] == [f"{i}.png" for i in synthetic_store.videos[:2]]
    assert all(cv2.imread(str(path)) is not None for path in written)


def test_a_clip_shows_frames_beside_their_flow(synthetic_store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    video_id = synthetic_store.videos[0]
    monkeypatch.setattr(preview, "CLIP_WIDTH", 0)
    (whole,) = preview.clip(synthetic_store, video_id)
    flow = synthetic_store.flow(video_id, slice(None))
    assert np.array_equal(whole[:, :, :64], synthetic_store.read(video_id, "rgb", slice(19)))
    assert np.array_equal(whole[:, :, 64:], colour_code(flow, full_colour(flow)))
    monkeypatch.setattr(export, "BLOCK_FRAMES", 4)
    assert np.array_equal(np.concatenate(list(preview.clip(synthetic_store, video_id))), whole)
    monkeypatch.setattr(preview, "CLIP_SECONDS", 0.4)
    assert sum(map(len, preview.clip(synthetic_store, video_id))) == 10


def test_clips_are_written_below_the_names_of_their_videos_again_and_again(
    synthetic_store: VideoStore, tmp_path: Path
) -> None:
    for _ in range(2):
        written = preview.write_clips(synthetic_store, synthetic_store.videos[:2], tmp_path)
        assert [str(path.relative_to(tmp_path)) for path in written] == [f"{i}.mp4" for i in synthetic_store.videos[:2]]
    (block,) = decode(written[0])
    assert block.shape == (19, 150, 400, 3)


def test_what_cannot_be_written_is_refused(synthetic_store: VideoStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for write in (preview.write_clips, preview.write_contact_sheets):
        with pytest.raises(Refusal, match="it cannot be written"):
            write(synthetic_store, synthetic_store.videos[:1], tmp_path / "file")
