"""Workers that have several videos at once and die: only the video that is to blame is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import open_store
from tests.faults import gate
from tests.pipeline.fake_gpu import fake_gpus, plain_store, settings
from tests.pipeline.reference import content


@pytest.mark.slow
def test_only_videos_that_kill_or_hang_a_process_of_several_threads_are_blamed(eight: Path, tmp_path: Path) -> None:
    with fake_gpus("0,1", Path(gate.__file__)) as patch:
        undisturbed = content(plain_store(eight, tmp_path / "plain"))
        for name, value in {"GATE": str(tmp_path), "DEADLY_VIDEOS": "b f", "HANGING_VIDEOS": "d"}.items():
            patch.setenv(name, value)
        summary = extract(folder.read(eight), eight, tmp_path / "store", settings(), workers=6, time_limit=6)
    assert summary.stored == 5
    store = open_store(tmp_path / "store")
    assert store.quarantine == summary.quarantined
    assert store.quarantine["walk/d"] == "it gave no further frame for 6 s"
    assert all("worker process died" in store.quarantine[name] for name in ("walk/b", "jump/f"))
    assert len(store.quarantine) == 3
    refused = tuple(f"videos/{name}/" for name in store.quarantine)
    expected = {name: data for name, data in undisturbed.items() if not name.startswith(refused)}
    found = content(tmp_path / "store")
    del expected["catalogue.parquet"], found["catalogue.parquet"]
    assert found == expected
