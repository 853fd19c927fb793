"""What FFmpeg's command line makes of a video: the reference that decoding is held against."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def frames(path: Path) -> list[np.ndarray]:
    """Every frame of the first video stream (cover art is none), as uint8 RGB (H, W, 3), turned as the file asks.

    One thread: what FFmpeg hides of damage differs with their number. Sizes come with the frames, as PPM has them.
    """
    take = ["-map", "0:V:0", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-nostdin", "-threads", "1", "-i", str(path), *take]
    data = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=120).stdout
    found, start = [], 0
    while start < len(data):
        _, size, _, rest = data[start : start + 40].split(b"\n", 3)
        width, height = map(int, size.split())
        begin = start + data[start : start + 40].index(rest)
        start = begin + width * height * 3
        found.append(np.frombuffer(data[begin:start], np.uint8).reshape(height, width, 3))
    return found
