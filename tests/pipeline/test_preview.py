"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import job, preview, synthetic
from pipeline.manifest import Video
from pipeline.settings import ExtractionSettings
from pipeline.store import VideoStore, open_store
from pipeline.views.rgb import RgbSettings
from pipeline.writer import create_store


def test_a_sheet_shows_frames_above_their_flow(synthetic_store: VideoStore) -> None:
    video_id = synthetic_store.videos[0]
    sheet = preview.contact_sheet(synthetic_store, video_id, columns=4, width=128)
    tile_height, tile_width = 96 + preview.GAP, 128 + preview.GAP
    assert sheet.shape == (preview.CAPTION_HEIGHT + 2 * tile_height, 4 * tile_width, 3)
    top = preview.CAPTION_HEIGHT
    frame = cv2.resize(synthetic_store.read(video_id, "rgb", [0])[0], (128, 96), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(sheet[top : top + 96, :128], frame)
    flow = sheet[top + tile_height : -preview.GAP, :128]
    assert len(np.unique(flow.reshape(-1, 3), axis=0)) > 10
    assert (sheet[:top] < 100).any()


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
        assert preview.contact_sheet(open_store(tmp_path / name), "v").ndim == 3


def test_sheets_are_written_below_the_names_of_their_videos(synthetic_store: VideoStore, tmp_path: Path) -> None:
    written = preview.write_contact_sheets(synthetic_store, synthetic_store.videos[:2], tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in written] == [f"{i}.png" for i in synthetic_store.videos[:2]]
    assert all(cv2.imread(str(path)) is not None for path in written)
