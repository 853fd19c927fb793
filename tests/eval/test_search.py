"""Features of new folders, search by example and near-duplicates, without labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval import commands, embed, search, splits
from eval.bank import FeatureBank
from pipeline import synthetic
from pipeline.commands.remove import remove
from pipeline.errors import Refusal, UsageError
from pipeline.importers import read
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from tests.eval.test_report import Page, words
from tests.pipeline.reference import run_here
from train import checkpoints
from train.checkpoints import METADATA
from train.run_folder import checkpoint_path
from train.training_set import TrainingSet, of_splits


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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are extracted in this process, without workers."""
    monkeypatch.setattr(embed, "extract", lambda *given, **_: run_here(*given))


def test_a_folder_of_new_videos_becomes_features_in_one_go_and_again_costs_nothing(
    searched: Path, store: VideoStore, tmp_path: Path, here: None, capsys: pytest.CaptureFixture[str]
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


@pytest.mark.remedy("give a store that was extracted as they were, STORE=: its settings are taken")
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


@pytest.mark.remedy("give a video file as QUERY=")
def test_a_video_of_the_store_finds_itself_and_then_what_plain_loops_find(
    searched: Path,
    store: VideoStore,
    banks: dict[str, FeatureBank],
    tmp_path: Path,
    here: None,
    capsys: pytest.CaptureFixture[str],
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
    with pytest.raises(UsageError, match="no such video"):
        commands.search(file, searched, str(store.root))
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


@pytest.mark.remedy("ask for a higher similarity: --least .999")
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
    assert search.duplicates(banks, store, 0.999) == []


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
    assert "1 pair similar by 0.98 or more, 1 of them a training and a test video" in capsys.readouterr().out
    head, line = (tmp_path / "pairs.csv").read_text().splitlines()
    assert head == "video,near-duplicate,similarity,split,its split"
    assert set(line.split(",")[:2]) == {store.videos[train], store.videos[test]}


def test_what_cannot_be_searched_fails(store: VideoStore, banks: dict[str, FeatureBank]) -> None:
    with pytest.raises(UsageError, match="0 videos"):
        search.search({}, banks, store, 0)
    for least in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="similarity of"):
            search.duplicates(banks, store, least)


@pytest.mark.remedy(
    "add it: make extract-flow VIDEOS= STORE=",
    "extract more videos into it: make extract-flow VIDEOS= STORE=",
    "extract videos of two frames or more: make extract-flow VIDEOS= STORE=",
    "`make remove STORE= VIDEO=` takes it out of the store; flow has one frame less than its video",
)
def test_a_store_of_one_picture_becomes_one_that_is_searched(
    searched: Path, tmp_path: Path, extraction_settings: ExtractionSettings
) -> None:
    """Step by step as the refusals say: its flow, videos of more frames, and without the picture."""
    (tmp_path / "videos").mkdir()
    picture = synthetic.video(synthetic.CLASSES[0], 0, frames=1, height=32, width=48)
    synthetic.write_mp4(tmp_path / "videos" / "picture.mp4", picture)
    root, flow = tmp_path / "store", extraction_settings
    run_here(read("folder", tmp_path / "videos"), tmp_path / "videos", root, flow.only({"rgb"}))

    def embedded(videos: list[str]) -> dict[str, FeatureBank]:
        return embed.embed(searched, open_store(root), videos, tmp_path / "banks", "opencv", 1)

    with pytest.raises(Refusal, match="looks at flow, which the store does not have"):
        embedded([])
    listed = read("folder", tmp_path / "videos")
    run_here(listed, tmp_path / "videos", root, flow, add_views=True)
    for nothing in (splits.judged, lambda opened: TrainingSet(of_splits(opened, [""]), "")):
        with pytest.raises(Refusal, match="extract videos of two frames or more"):
            nothing(open_store(root))
    with pytest.raises(Refusal, match="no frame of flow is there"):
        embedded(["picture"])
    banks = []
    for count in (1, 2):
        name = f"{count}.mp4"
        synthetic.write_mp4(
            tmp_path / "videos" / name, synthetic.video(synthetic.CLASSES[0], count, frames=9, height=32, width=48)
        )
        run_here(read("folder", tmp_path / "videos"), tmp_path / "videos", root, flow)
        banks.append(embedded([str(number) for number in range(1, count + 1)]))
    remove(str(root), ["picture"])
    opened = open_store(root)
    assert opened.videos == embed.usable(opened)[0] == ["1", "2"] and splits.judged(opened)
    assert len(TrainingSet(of_splits(opened, [""]), "")) == 2
    with pytest.raises(Refusal, match="1 video to look among"):
        search.duplicates(banks[0], opened, 0.5)
    assert search.duplicates(banks[1], opened, 0.5) == []


@pytest.mark.remedy("repair or replace them")
def test_a_folder_of_broken_videos_is_refused_with_the_reasons(
    searched: Path, synthetic_videos: Path, tmp_path: Path, here: None
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    listed, settings = read("folder", tmp_path), embed.extraction_settings(searched)
    with pytest.raises(Refusal, match="none of the videos can be used: "):
        embed.extracted(listed, tmp_path, tmp_path / "store", settings, 1)
    shutil.copy(min(synthetic_videos.rglob("*.mp4")), broken)
    opened, summary = embed.extracted(listed, tmp_path, tmp_path / "store", settings, 1)
    assert opened.videos == ["broken"] and summary.stored == 1
