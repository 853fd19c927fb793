"""Frames as H.264 in an MP4 file, block after block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from pipeline import storage
from pipeline.errors import Refusal

UNKNOWN_RATE = Fraction(25)
# Half-size chroma because browsers and QuickTime play nothing else. The JPEGs' own matrix (BT.601) is written into the
# file: players guess another one for large frames.
_PLAYABLE = "yuv420p"
_FINE = {"preset": "fast", "crf": "10", "x264-params": "colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m"}


def rate(fps: float) -> Fraction:
    """A video's frame rate as containers write it (29.97 is 30000/1001); 25 where it is not known (0)."""
    return Fraction(fps).limit_denominator(1001) or UNKNOWN_RATE


def write(path: Path, blocks: Iterable[np.ndarray], fps: float) -> None:
    """Write RGB frames, uint8 (n, H, W, 3) a block, so that any player shows them; the whole file or none.

    Sizes must be even for that: the last row or column of an odd one is repeated. Folders above are made. Raises
    OSError, and Refusal where the encoder refuses the frames, as it does when they are larger than H.264 allows.
    """
    with storage.writing_aside(path) as aside, open(aside, "wb") as file:
        try:
            encode(file, map(_even, blocks), rate(fps), _PLAYABLE, _FINE)
        except av.FFmpegError as error:
            remedy = "take the frames as a folder of JPEGs or as .npy instead"
            raise Refusal(f"H.264 cannot hold it: {error.strerror}", where=str(path), remedy=remedy) from error


def encode(
    file: BinaryIO,
    blocks: Iterable[np.ndarray],
    fps: int | Fraction,
    pixels: str,
    options: Mapping[str, str],
    comment: str = "",
) -> None:
    """Encode RGB frames, uint8 (n, H, W, 3) a block, into an open file; `comment` goes to the container's metadata."""
    with av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=fps, options=dict(options))
        stream.pix_fmt = pixels
        for number, block in enumerate(blocks):
            if not number:
                stream.height, stream.width = block.shape[1:3]
            for frame in block:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _even(block: np.ndarray) -> np.ndarray:
    _, height, width, _ = block.shape
    return np.pad(block, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
