"""Videos so small that a store of them is made in a moment, to be broken in every way there is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline import synthetic
from pipeline.importers import folder
from pipeline.store import layout
from pipeline.store.settings import ExtractionSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline.reference import run_here

SMALL = ExtractionSettings({"rgb": RgbSettings(short_side=0, quality=90)}).resolved()
OTHER = ExtractionSettings({"rgb": RgbSettings(short_side=0, quality=80)}).resolved()


def write(path: Path, seed: int, frames: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    synthetic.write_mp4(path, synthetic.video(synthetic.CLASSES[seed % 3], seed, frames, 16, 24))


def make(videos: Path) -> Path:
    """Three videos of two classes, and a file that is none."""
    for seed, name in enumerate(("walk/a", "walk/b", "jump/c")):
        write(videos / f"{name}.mp4", seed)
    (videos / "jump" / "broken.mp4").write_bytes(b"no video")
    return videos


def store(videos: Path, path: Path, settings: ExtractionSettings = SMALL) -> Path:
    """The store of them."""
    assert run_here(folder.read(videos), videos, path, settings).stored == 3
    return path


def copied(few: Path, to: Path) -> Path:
    """The store beside some videos, beside copies of those: what is in quarantine tells where its file lies."""
    store = shutil.copytree(few / "store", to / "store")
    entry = layout.quarantine_path(store, "jump/broken")
    told = json.loads(entry.read_text().replace(str(few), str(to)))
    told.pop("digest")
    entry.write_bytes(layout.quarantine_file(told))
    return store
