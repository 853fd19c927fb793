"""How `schema1` was made, with its videos and what is expected of it; not run by the tests: `python -m tests.golden.make`.

Run it only for a new schema version, into a new folder: what is here must stay readable as it is.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline import synthetic
from pipeline.importers import folder
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline.reference import run_here

NAME = "schema1"
VIDEOS = {"walk/a [1]": 4, "jump/b": 3}  # frames
SETTINGS = ExtractionSettings({"rgb": RgbSettings(short_side=0), "flow": FlowSettings("dis", short_side=0)}).resolved()


def main() -> None:
    os.chdir(Path(__file__).parent)  # so that nothing in it tells of this machine
    top = Path(NAME)
    for seed, (video_id, frames) in enumerate(VIDEOS.items()):
        path = top / "videos" / f"{video_id}.mp4"
        path.parent.mkdir(parents=True)
        synthetic.write_mp4(path, synthetic.video(synthetic.CLASSES[seed], seed, frames, height=24, width=32))
    (top / "videos" / "jump" / "broken.mp4").write_bytes(b"no video")
    manifest = folder.read(top / "videos")
    manifest = replace(manifest, classes=["walk", "jump", "of no video"])
    run_here(manifest, top / "videos", top / "store", SETTINGS)
    (top / "store" / ".lock").unlink()
    store = open_store(top / "store")
    np.savez_compressed(
        top / "expected.npz",
        **{f"{name}:{view}": store.read(name, view, slice(None)) for name in VIDEOS for view in ("rgb", "flow")},
    )


if __name__ == "__main__":
    main()
