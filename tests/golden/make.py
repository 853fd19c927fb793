"""How `schema2` was made, of the videos of `schema1`; not run by the tests: `python -m tests.golden.make`.

Run it only for a new schema version, into a new folder: what is here must stay readable as it is. (`schema1` was made
so, too, by the version that had it; its videos were made by `synthetic.video`, and `expected.npz` is what could be read
then.)
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pipeline.importers import folder
from pipeline.store import annotation
from pipeline.store.annotation import AnnotationSet, Said
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline.reference import run_here

NAME = "schema2"
SETTINGS = ExtractionSettings({"rgb": RgbSettings(short_side=0), "flow": FlowSettings("dis", short_side=0)}).resolved()
OTHERS = AnnotationSet(["x"], {"walk/a [1]": Said("x", "a, b", "train"), "gone": Said("", "", "test")})


def main() -> None:
    os.chdir(Path(__file__).parent)  # so that nothing in it tells of this machine
    videos, store = Path("schema1", "videos"), Path(NAME, "store")
    store.parent.mkdir()
    manifest = replace(folder.read(videos), classes=["walk", "jump", "of no video"])
    run_here(manifest, videos, store, SETTINGS)
    annotation.save(store, "others", OTHERS)
    (store / ".lock").unlink()


if __name__ == "__main__":
    main()
