"""A picture is no video, whatever its name; rows of pictures and animated GIFs are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.video.decode import Undecodable, decode
from tests.pipeline.odd_videos import Encoding, pictures, write


def reason(path: Path) -> Undecodable:
    with pytest.raises(Undecodable) as refused:
        list(decode(path))
    return refused.value


PICTURES = {
    "jpeg": (Encoding("mjpeg", "yuvj420p"), "image2pipe", 1),
    "png": (Encoding("png", "rgb24"), "image2pipe", 1),
    "animated png": (Encoding("apng", "rgba"), "apng", 3),
    "bmp": (Encoding("bmp", "bgr24"), "image2pipe", 1),
    "gif of one picture": (Encoding("gif", "rgb8"), "gif", 1),
}


@pytest.mark.parametrize("name", ["v.mp4", "v.mjpeg", "v.gif", "v"])
@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_are_no_videos_whatever_their_name(tmp_path: Path, kind: str, name: str) -> None:
    encoding, muxer, count = PICTURES[kind]
    write(tmp_path / name, pictures(count), encoding, muxer)
    assert "a picture" in reason(tmp_path / name).reason
    assert reason(tmp_path / name).stage == "open"


def test_pictures_in_containers_of_videos_are_no_videos(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write(path, pictures(3))
    assert sum(map(len, decode(path)))
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftypavif", 1))
    assert reason(path).reason == "its content is a picture, no video"


def test_rows_of_jpegs_and_animated_gifs_are_videos_whatever_their_name(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", pictures(2), Encoding("mjpeg", "yuvj420p"), "mjpeg")
    write(tmp_path / "b.mp4", pictures(2), Encoding("gif", "rgb8"), "gif")
    assert [sum(map(len, decode(tmp_path / name))) for name in ("a.mp4", "b.mp4")] == [2, 2]
