"""The store: how a video's arrays lie in it, how they are written, read and checked."""

from __future__ import annotations

from pipeline.store.damage import Damaged, corrupt
from pipeline.store.reading import VideoInfo, VideoStore, open_store, there_is_a_store

__all__ = ["Damaged", "VideoInfo", "VideoStore", "corrupt", "open_store", "there_is_a_store"]
