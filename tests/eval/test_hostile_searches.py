"""Whatever lies where features are kept, whatever is asked for and whatever a run says: `search`, `features` and
`duplicates` give what they should, or refuse by name; what belongs to others stays as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from eval import commands, embed, search
from eval.bank import FeatureBank
from pipeline import synthetic
from pipeline.errors import Refusal
from pipeline.storage import sealed
from pipeline.store import VideoStore
from tests import hostile
from tests.eval.test_hostile_run_files import another, changed_bank
from tests.pipeline.reference import run_here
from train import checkpoints
from train.checkpoints import METADATA
from train.run_folder import checkpoint_path

READ = {"reader": "opencv", "threads": 1}


def refused(what: str, action: Callable[[], object]) -> bool:
    try:
        action()
    except Refusal as refusal:
        assert refusal.what and refusal.remedy, what
        return True
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    return False


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are extracted in this process, without workers."""
    monkeypatch.setattr(embed, "extract", lambda *given, **_: run_here(*given))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A file of somebody else's."""
    path = tmp_path / "elsewhere"
    path.write_bytes(b"mine")
    return path


def of_bank(change: Callable[[h5py.File], None]) -> Callable[[Path, Path], None]:
    def put(path: Path, elsewhere: Path) -> None:
        if path.suffix == ".h5":
            path.write_bytes(changed_bank(path.read_bytes()[: -sealed.LENGTH], change))

    return put


def instead(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def put(path: Path, elsewhere: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return put


def linked(path: Path, elsewhere: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    def put(path: Path, elsewhere: Path) -> None:
        path.write_bytes(change(path.read_bytes() if path.is_file() else b"x" * 99))

    return put


PLACED: dict[str, Callable[[Path, Path], None]] = {
    **{name: raw(change) for name, change in hostile.RAW.items()},
    "a folder": instead(Path.mkdir),
    "a FIFO": instead(os.mkfifo),
    "a link": linked,
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "huge": of_bank(another("rgb", shape=(10**8, 1000), dtype="f4", chunks=(1000, 1000))),
    "narrow": of_bank(another("rgb", data=np.ones((3, 5), np.float32))),
    "no width": of_bank(another("rgb", data=np.ones((3, 0), np.float32))),
    "NaN": of_bank(another("rgb", data=np.full((3, 32), np.nan, np.float32))),
    "zeros": of_bank(another("rgb", data=np.zeros((3, 32), np.float32))),
    "others": of_bank(another("video_id", data=["x", "y", "z"], dtype=h5py.string_dtype())),
    "a stream": of_bank(lambda file: file.attrs.__setitem__("stream", "flow")),
    "no length": of_bank(lambda file: file.attrs.__setitem__("clip.length", "many")),
}


QUICK = ("cut", "a folder", "a FIFO", "a link", "narrow", "others")


@pytest.mark.parametrize("kinds", [QUICK, pytest.param(tuple(PLACED), marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("rgb.h5", marks=pytest.mark.remedy("delete it and run the same command again")),
        pytest.param("rgb.h5.rows", marks=pytest.mark.slow),
    ],
)
def test_whatever_lies_in_the_place_of_features(
    finished_run: Path, store: VideoStore, tmp_path: Path, elsewhere: Path, place: str, kinds: tuple[str, ...]
) -> None:
    videos = store.videos[:3]

    def searched() -> None:
        banks = embed.embed(finished_run, store, videos, folder, *READ.values())
        found.append({stream: bank.features for stream, bank in banks.items()})
        query = {stream: bank.features[0] for stream, bank in whole.items()}
        search.search(query, banks, store, 2)
        search.duplicates(banks, store, 0.5)

    found: list[dict[str, np.ndarray]] = []
    folder = tmp_path / "whole"
    whole = embed.embed(finished_run, store, videos, folder, *READ.values())
    for what in kinds:
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / what))
        PLACED[what](folder / place, elsewhere)
        wrong = refused(f"{place}, {what}", searched)
        if wrong and what in ("narrow", "no width"):
            (folder / place).unlink()
            searched()
        if not wrong and what != "zeros":  # of which nobody can tell
            assert np.array_equal(found[-1]["rgb"], whole["rgb"].features), what
        assert elsewhere.read_bytes() == b"mine", what
        shutil.rmtree(folder)


def video(path: Path) -> Path:
    synthetic.write_mp4(path.with_name("made.mp4"), synthetic.video(synthetic.CLASSES[0], 0, 9, 32, 48))
    os.rename(path.with_name("made.mp4"), path)
    return path


ASKED: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda path, elsewhere: None,
    "a folder": lambda path, elsewhere: path.mkdir(),
    "a FIFO": lambda path, elsewhere: os.mkfifo(path),
    "a link to itself": lambda path, elsewhere: path.symlink_to(path),
    "empty": lambda path, elsewhere: path.write_bytes(b""),
    "text": lambda path, elsewhere: path.write_bytes(b"no video\n" * 99),
    "zeros": lambda path, elsewhere: path.write_bytes(bytes(9999)),
    "a playlist": lambda path, elsewhere: path.write_text(f"#EXTM3U\n#EXTINF:1,\n{elsewhere}\n"),
    "a list of files": lambda path, elsewhere: path.write_text(f"ffconcat version 1.0\nfile {elsewhere}\n"),
    "cut": lambda path, elsewhere: video(path).write_bytes(path.read_bytes()[:900]),
}
QUICK = ("cut", "a folder", "a FIFO", "a link", "narrow", "others")
NAMED = "-[red]<b>&\n%s {x}\u202e\x1b[31m#?" + "x" * 200 + ".mp4"


def test_whatever_is_searched_for(
    finished_run: Path, store: VideoStore, tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))

    def searched(query: Path, out: str = "page.html") -> None:
        commands.search(query, run, str(store.root), 2, tmp_path / out, **READ)

    for number, (what, put) in enumerate(ASKED.items()):
        folder = tmp_path / f"asked {number}"
        folder.mkdir()
        put(folder / "clip.mp4", elsewhere)
        assert refused(what, lambda query=folder / "clip.mp4": searched(query)), what
    assert not (tmp_path / "page.html").exists() and not (run / "features").exists()
    bytewise = os.fsdecode(b"\xff.mp4")
    assert refused("no UTF-8", lambda: searched(video(tmp_path / bytewise)))
    searched(video(tmp_path / NAMED))
    assert "found 2 of 18 videos" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;" in page and "\x1b" not in page and "\u202e" not in page


@pytest.mark.parametrize(
    "kinds",
    [("a FIFO", "a link"), pytest.param(("a folder", "a link to itself", "zeros"), marks=pytest.mark.slow)],
    ids=["some", "others"],
)
def test_whatever_lies_where_features_of_a_folder_are_written(
    finished_run: Path, store: VideoStore, tmp_path: Path, elsewhere: Path, kinds: tuple[str, ...]
) -> None:
    (tmp_path / "videos").mkdir()
    video(tmp_path / "videos" / "a.mp4")

    def written(out: Path) -> None:
        commands.embed_folder(tmp_path / "videos", finished_run, out, workers=1, **READ)

    written(tmp_path / "whole")
    whole = FeatureBank.load(tmp_path / "whole" / "rgb.h5").features
    places = {"": False, "store": True, "rgb.h5": False, "features.parquet": False}
    for number, (place, asked) in enumerate(places.items()):
        for what in kinds:
            if (place, what) == ("", "a folder"):
                continue
            out = tmp_path / f"{number} {what}"
            if place:
                shutil.copytree(tmp_path / "whole", out)
                if asked:
                    shutil.rmtree(out / place)
            PLACED[what](out / place if place else out, elsewhere)
            if not refused(f"{place}, {what}", lambda out=out: written(out)):
                assert np.array_equal(FeatureBank.load(out / "rgb.h5").features, whole)
            assert elsewhere.read_bytes() == b"mine", (place, what)


@pytest.mark.parametrize("share", [0.01, pytest.param(0.3, marks=pytest.mark.slow)])
def test_whatever_a_checkpoint_says(run: Path, store: VideoStore, tmp_path: Path, share: float) -> None:
    path, count = checkpoint_path(run, "rgb"), 0
    shutil.rmtree(run / "flow")
    whole = torch.load(path, weights_only=True)

    def used() -> None:
        embed.extraction_settings(run)
        banks = embed.embed(run, store, store.videos[:2], tmp_path / "banks", *READ.values())
        embed.write_parquet(banks, store, tmp_path / "features.parquet")
        search.search({stream: bank.features[0] for stream, bank in banks.items()}, banks, store, 2)

    for what, facts in hostile.mutated(whole[METADATA], share):
        checkpoints.write({**whole, METADATA: facts}, path)
        count += refused(what, used)
    assert count > 2
