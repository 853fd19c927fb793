"""Features of new folders, search by example and near-duplicates, without labels."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval import commands, embed, search
from eval.bank import FeatureBank
from pipeline import synthetic
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, open_store
from tests.eval.test_report import Page, words
from train import checkpoints
from train.checkpoints import METADATA
from train.stages import checkpoint_path


def plain_similarities(query: dict[str, np.ndarray], banks: dict[str, FeatureBank]) -> np.ndarray:
    """Video by video and stream by stream."""
    total = []
    for row in range(len(next(iter(banks.values())).video_ids)):
        cosines = []
        for stream, bank in banks.items():
            mean = bank.features.astype(np.float64).mean(0)
            one, other = query[stream] - mean, bank.features[row] - mean
            cosines.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        total.append(sum(cosines) / len(cosines))
    return np.array(total)


@pytest.fixture(scope="module")
def searched(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, for the module to write into."""
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("searched") / "tiny")


@pytest.fixture(scope="module")
def banks(searched: Path, store: VideoStore) -> dict[str, FeatureBank]:
    return search.gallery(searched, store, "opencv", 1)


def test_a_folder_of_new_videos_becomes_features_in_one_go_and_again_costs_nothing(
    searched: Path, store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "new", tmp_path / "out"
    videos.mkdir()
    for number in range(3):
        frames = synthetic.video(synthetic.CLASSES[number], (9, number), 21, 32, 48)
        synthetic.write_mp4(videos / f"clip [{number}].mp4", frames)
    (videos / "broken.mp4").write_bytes(b"no video")
    options = {"workers": 1, "reader": "opencv", "threads": 1}
    assert commands.embed_folder(videos, searched, out, **options) == 3
    table = pq.read_table(out / "features.parquet")
    assert table["video_id"].to_pylist() == [f"clip [{number}]" for number in range(3)]
    assert table["label"].to_pylist() == [None] * 3
    for stream in ("flow", "rgb"):
        bank = FeatureBank.load(out / f"{stream}.h5")
        assert bank.video_ids == table["video_id"].to_pylist()
        assert np.array_equal(np.array(table[stream].to_pylist(), dtype=np.float32), bank.features)
        assert table.schema.metadata[f"{stream}.checkpoint".encode()].decode() == bank.attributes["checkpoint"]
    assert open_store(out / "store").settings == store.settings  # as the run was trained on
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert commands.embed_folder(videos, searched, out, **options) == 3
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert "features of 3 videos" in capsys.readouterr().out


def test_a_run_that_does_not_say_how_its_videos_were_extracted_asks_for_a_store(
    run: Path, store: VideoStore, tmp_path: Path
) -> None:
    for stage in ("flow", "rgb"):
        path = checkpoint_path(run, stage)
        content = checkpoints.read(path)
        del content[METADATA]["store_settings"]
        checkpoints.write(content, path)
    with pytest.raises(Refusal, match="(?s)does not say how .* STORE="):
        commands.embed_folder(tmp_path, run, tmp_path / "out")
    assert embed.extraction_settings(run, store).as_dict() == store.settings


def test_a_video_of_the_store_finds_itself_and_then_what_plain_loops_find(
    searched: Path, store: VideoStore, banks: dict[str, FeatureBank], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = 5
    name = banks["rgb"].video_ids[row]
    query = {stream: bank.features[row] for stream, bank in banks.items()}
    found = search.search(query, banks, store, 4)
    similar = plain_similarities(query, banks)
    order = np.argsort(-similar, kind="stable")[:4]
    assert [one.video_id for one in found] == [banks["rgb"].video_ids[place] for place in order]
    assert [one.similarity for one in found] == pytest.approx(similar[order], abs=1e-5)
    assert found[0].video_id == name and found[0].similarity == pytest.approx(1.0)
    file = tmp_path / "a <b>&'.mp4"
    shutil.copyfile(Path(store.root).parent / "videos" / f"{name}.mp4", file)
    out = tmp_path / "search.html"
    commands.search(file, searched, str(store.root), neighbours=4, out=out, reader="opencv", threads=1)
    said, page = capsys.readouterr().out, out.read_text()
    assert f"| 1 | {name} |" in said and f"found 4 of 18 videos: {out}" in said
    assert all(value.startswith("data:image/jpeg;base64,") for value in Page(page).loads)
    assert "Videos like a &lt;b&gt;&amp;&#39;.mp4" in page and "<b>&" not in page
    assert len(Page(page).loads) == 5 and f"1. {name}" in words(page)


def test_an_unlabelled_store_is_searched_too(unlabelled_store: VideoStore) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    bank = FeatureBank("rgb", rows, list(unlabelled_store.videos), np.full(3, -1), ["train"] * 3, {})
    found = search.search({"rgb": rows[2]}, {"rgb": bank}, unlabelled_store, 9)
    assert len(found) == 3 and found[0].video_id == bank.video_ids[2] and found[0].label == ""


def test_duplicates_are_all_pairs_above_the_similarity(
    banks: dict[str, FeatureBank], store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(row: int) -> np.ndarray:
        return plain_similarities({stream: bank.features[row] for stream, bank in banks.items()}, banks)

    ids, least = banks["rgb"].video_ids, 0.3
    wanted = {(ids[i], ids[j]): of(i)[j] for i in range(len(ids)) for j in range(i + 1, len(ids)) if of(i)[j] >= least}
    monkeypatch.setattr(search, "PAIRS_AT_ONCE", 40)  # two rows at a time
    pairs = search.duplicates(banks, store, least)
    assert wanted and {(pair.first, pair.second): pytest.approx(pair.similarity, abs=1e-5) for pair in pairs} == wanted
    assert [pair.similarity for pair in pairs] == sorted((pair.similarity for pair in pairs), reverse=True)
    assert all(pair.splits == (store.info(pair.first).split, store.info(pair.second).split) for pair in pairs)
    monkeypatch.setattr(search, "MOST_PAIRS", 0)
    with pytest.raises(Refusal, match="more than 0 pairs"):
        search.duplicates(banks, store, least)


def test_planted_duplicates_are_told_with_their_splits(
    searched: Path,
    store: VideoStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(len(store.videos), 16)).astype(np.float32)
    train, test = (next(i for i, v in enumerate(store.videos) if v.startswith(split)) for split in ("train", "test"))
    rows[test] = rows[train] + 0.01
    bank = FeatureBank("rgb", rows, list(store.videos), np.zeros(len(rows), dtype=np.int64), [""] * len(rows), {})
    monkeypatch.setattr(search, "gallery", lambda *_: {"rgb": bank})
    commands.duplicates(searched, str(store.root), out=tmp_path / "pairs.csv")
    assert "1 pairs are similar by 0.98 or more, 1 of them a training and a test video" in capsys.readouterr().out
    head, line = (tmp_path / "pairs.csv").read_text().splitlines()
    assert head == "video,near-duplicate,similarity,split,its split"
    assert set(line.split(",")[:2]) == {store.videos[train], store.videos[test]}


def test_what_cannot_be_searched_fails(
    searched: Path, store: VideoStore, unlabelled_store: VideoStore, banks: dict[str, FeatureBank], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no such video"):
        commands.search(tmp_path / "none.mp4", searched, str(store.root))
    with pytest.raises(Refusal, match="looks at flow, which the store does not have"):
        search.gallery(searched, unlabelled_store, "opencv", 1)
    with pytest.raises(UsageError, match="0 videos"):
        search.search({}, banks, store, 0)
    for least in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="similarity of"):
            search.duplicates(banks, store, least)
    one = dataclasses.replace(banks["rgb"], features=banks["rgb"].features[:1], video_ids=["a"])
    with pytest.raises(Refusal, match="1 video to look among"):
        search.duplicates({"rgb": one}, store, 0.5)
