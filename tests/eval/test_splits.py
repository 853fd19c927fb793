"""Evaluation of stores with any labels and splits, and with videos that cannot be used."""

from __future__ import annotations

import csv
import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval import clusters, evaluate, results, splits
from eval.bank import FeatureBank
from eval.report import write_report
from eval.runs import bank_path, stages
from pipeline.commands.annotate import annotate
from pipeline.commands.stores import verify
from pipeline.errors import Refusal
from pipeline.manifest import SPLITS, Manifest, Video
from pipeline.store import VideoStore, annotation, layout, open_store
from pipeline.store.annotation import AnnotationSet, Said


@pytest.fixture
def said(store: VideoStore, tmp_path: Path) -> Path:
    """A copy of the store, to write annotation sets into."""
    return shutil.copytree(store.root, tmp_path / "store")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What evaluations say that they left out."""
    lines: list[str] = []
    monkeypatch.setattr(evaluate.log, "warning", lambda form, *given: lines.append(form % given))
    return lines


def annotated(root: Path, name: str, split: dict[str, str], label: bool = True, source: str = "") -> VideoStore:
    """The store with other splits ("train" -> ...), each video its own recording unless `source`."""
    store = open_store(root)
    rows = {
        video: Said(info.label if label else "", source, split.get(info.split, info.split))
        for video, info in store.infos.items()
    }
    annotation.save(root, name, AnnotationSet(store.classes if label else [], rows))
    return open_store(root, name)


def of(store: VideoStore, split: str) -> list[str]:
    return [video for video, info in store.infos.items() if info.split == split]


def test_splits_that_are_there_stay(store: VideoStore) -> None:
    found, told = splits.judged(store)
    assert found is store and told == []


def test_of_a_split_that_is_alone_whole_recordings_of_every_class_are_held_out(said: Path) -> None:
    for name, split, names in (
        ("alone", {"test": "train"}, "train"),
        ("none", {"test": "", "train": ""}, "none"),
        ("tested", {"train": "test"}, "test"),
    ):
        store = annotated(said, name, split)
        rows = {
            video: Said(info.label, video[:-1] + str(int(video[-1]) // 2), info.split)
            for video, info in store.infos.items()
        }
        annotation.save(said, name, AnnotationSet(store.classes, rows))
        store = open_store(said, name)
        found, [left_out] = splits.judged(store)
        assert found.annotated.name == f"{name}.{names}-held-out" and "are held out and tested" in str(left_out)
        tested, gallery = (of(found, part) for part in ("test", "train"))
        assert len(tested) + len(gallery) == 18 and len(tested) >= 0.25 * 18
        assert {found.info(video).label for video in tested} == set(store.classes)
        assert not {found.info(video).source for video in tested} & {found.info(video).source for video in gallery}
        again, _ = splits.judged(open_store(said, name))
        assert of(again, "test") == tested and again.annotated.digest == found.annotated.digest


@pytest.mark.parametrize(
    ("split", "name"),
    [({"test": "val"}, "train+val"), ({"train": ""}, "none+test"), ({"train": "", "test": "val"}, "none+val")],
)
def test_other_splits_stand_in(said: Path, split: dict[str, str], name: str) -> None:
    found, [told] = splits.judged(annotated(said, "other", split))
    assert found.annotated.name == f"other.{name}" and "stand in" in str(told)
    assert (len(of(found, "train")), len(of(found, "test"))) == (12, 6)


@pytest.mark.remedy("or a manifest that tells their recordings (source): make annotate STORE= MANIFEST=")
def test_one_recording_fails(said: Path, tmp_path: Path) -> None:
    store = annotated(said, "one", {"test": "train"}, label=False, source="only")
    with pytest.raises(Refusal, match=r"(?s)18 videos of one recording: too few.*make annotate"):
        splits.judged(store)
    rows = [Video(video, f"{video}.mp4", source=video[:-1], split="train") for video in store.videos]
    Manifest(rows, []).save(tmp_path / "manifest.csv")
    annotate(str(said), tmp_path / "manifest.csv", name="one")
    splits.judged(open_store(said, "one"))


@pytest.mark.remedy("no video has a label (make annotate STORE= MANIFEST= gives some)", told=True)
def test_a_manifest_gives_labels(said: Path, tmp_path: Path) -> None:
    store = annotated(said, "bare", {}, label=False)
    assert set(splits.lacks(store, store.videos).values()) == {
        "no video has a label (make annotate STORE= MANIFEST= gives some)"
    }
    rows = [Video(video, f"{video}.mp4", label=video.split("-")[1]) for video in store.videos]
    rows = [dataclasses.replace(row, split=store.info(row.video_id).split) for row in rows]
    Manifest(rows, sorted({row.label for row in rows})).save(tmp_path / "manifest.csv")
    annotate(str(said), tmp_path / "manifest.csv", name="labelled")
    assert splits.lacks(open_store(said, "labelled"), store.videos) == {}


def test_what_labels_do_not_suffice_for_is_told(said: Path) -> None:
    def found(**labels: str) -> set[str]:
        base = open_store(said)
        kinds = {"train": iter(labels["train"]), "test": iter(labels["test"])}
        rows = {}
        for video, info in base.infos.items():
            label = next(kinds[info.split], "-")
            rows[video] = Said("" if label == "-" else label, video, info.split)
        annotation.save(said, "few", AnnotationSet(sorted(set("".join(labels.values())) - {"-"}), rows))
        store = open_store(said, "few")
        return set(splits.lacks(store, splits.compared_videos(store)[0]))

    assert found(train="aabb", test="ab") == set()
    assert found(train="aaaa", test="aa") == found(train="abcd", test="ab") == {"probe"}
    assert found(train="", test="ab") == {"retrieval", "probe"}
    assert found(train="ab", test="a") == found(train="", test="") == {"retrieval", "probe", splits.SCORES}


def test_a_store_with_the_split_train_alone_is_evaluated(run: Path, said: Path, told: list[str]) -> None:
    store = annotated(said, "alone", {"test": "train"})
    page, records = evaluate.evaluate(run, store, ["clean"], "opencv", 1)
    assert page.name == "report.html" and any("held out and tested" in line for line in told)
    assert {record.set_name for record in records} == {"alone.train-held-out"}
    assert {record.metric for record in records} >= {"R@1", "linear_top1"}
    (run / "report.html").unlink()
    assert write_report(run, splits.judged(open_store(said, "alone"))[0]).is_file()


def test_a_store_without_labels_gives_features_and_neighbours(
    run: Path, said: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = annotated(said, "bare", {"test": "train"}, label=False)
    found, records = evaluate.evaluate(run, store, ["clean"], "opencv", 1)
    assert records == [] and found == run / "features"
    assert any("no retrieval: no video has a label" in line for line in told)
    assert any("no probe: no video has a label" in line for line in told)
    assert any("no scores of clusters: no video has a label" in line for line in told)
    judged, _ = splits.judged(store)
    path = bank_path(run, judged, "rgb", "trained", "clean", "rgb")
    bank = FeatureBank.load(path)
    assert len(bank.video_ids) == 18 and set(bank.splits) == {"train", "test"}
    with open(path.with_name(f"{path.stem}-neighbours.csv"), newline="") as file:
        lines = list(csv.DictReader(file))
    tested, gallery = (np.flatnonzero(np.array(bank.splits) == part) for part in ("test", "train"))
    sides = [bank.features[part] - bank.features[part].mean(axis=0) for part in (tested, gallery)]
    query, found_rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in sides)
    wanted = [
        (bank.video_ids[tested[row]], bank.video_ids[gallery[place]], similarity)
        for row, similarities in enumerate(query @ found_rows.T)
        for place, similarity in sorted(enumerate(similarities), key=lambda pair: -pair[1])[:10]
    ]
    assert [(line["video_id"], line["neighbour"]) for line in lines] == [(one, other) for one, other, _ in wanted]
    assert [float(line["similarity"]) for line in lines] == pytest.approx([value for *_, value in wanted], abs=1e-5)
    with open(path.with_name(f"{path.stem}-clusters.csv"), newline="") as file:
        grouped = list(csv.DictReader(file))
    assert [line["video_id"] for line in grouped] == bank.video_ids
    for one in clusters.cluster(bank.features, bank.labels, seed=int(bank.attributes["seed"])):
        assert [int(line[one.algorithm]) for line in grouped] == one.assignments.tolist()
    monkeypatch.setattr("eval.features.compute", lambda *_, **__: pytest.fail("computed again"))
    evaluate.evaluate(run, store, ["clean"], "opencv", 1)


def damage(store: VideoStore, video: str) -> None:
    [path] = [path for path in layout.record_path(store.root, video).parent.glob("rgb/c/**/*") if path.is_file()]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.remedy("damaged, and left out (make verify STORE= tells more)", told=True)
def test_a_damaged_video_is_named_and_left_out_and_the_rest_evaluated(
    run: Path, said: Path, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(said)
    bad = [of(store, "test")[1], of(store, "train")[5]]
    for video in bad:
        damage(store, video)
    _, records = evaluate.evaluate(run, store, ["clean"], "opencv", 1)
    [line] = [line for line in told if "damaged" in line]
    assert line.startswith("2 videos damaged, and left out") and all(repr(video) in line for video in bad)
    assert {record.metric for record in records} >= {"R@1", "linear_top1"}
    bank = FeatureBank.load(bank_path(run, store, "rgb", "trained", "clean", "rgb"))
    assert sorted(set(store.videos) - set(bank.video_ids)) == sorted(bad)
    assert results.read(run / "results.json") == sorted(records, key=results._order)
    assert verify(str(said), threads=1) == 1
    said_more = "".join(capsys.readouterr())
    assert all(video in said_more for video in bad)


def test_videos_without_label_and_without_frames_do_not_count(said: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(said)
    labels = store.annotated.labels.copy()
    labels[:2] = -1
    store = store.said_by(dataclasses.replace(store.annotated, labels=labels))
    videos, [left_out] = splits.compared_videos(store)
    assert len(videos) == 16 and str(left_out).startswith("2 videos without a label, left out: ")
    store.table.frames[4] = 0
    videos, left = splits.compared_videos(store)
    assert len(videos) == 15 and any("1 video without a frame" in str(one) for one in left)


def test_what_is_said_by_others_leaves_the_store_as_it_is(store: VideoStore) -> None:
    nothing = np.zeros_like(store.annotated.splits)
    other = store.said_by(dataclasses.replace(store.annotated, splits=nothing))
    assert {info.split for info in other.infos.values()} == {SPLITS[0]}
    assert {info.split for info in store.infos.values()} == {"train", "test"}
    assert other.videos == store.videos


def test_every_stage_keeps_its_last_network_where_nothing_chose(run: Path) -> None:
    assert {stage.checkpoint.name for stage in stages(run)} == {"last.ckpt"}
    assert logging.getLogger("eval.evaluate") is evaluate.log
