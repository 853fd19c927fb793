"""The embedded data set: procedurally generated videos whose class is defined by motion alone."""

from __future__ import annotations

from pipeline.synthetic.scene import CLASSES, truth, video
from pipeline.synthetic.writing import generate, write_mp4

__all__ = ["CLASSES", "generate", "truth", "video", "write_mp4"]
