"""Classifiers tested end to end: probabilities against plain loops and a network by hand, files, fusion by id."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from eval import classification, commands, evaluate, published, results
from eval.bank import FeatureBank
from eval.classification import Probabilities, fused, read_json, write_json
from eval.protocols import PROTOCOLS, Look, Protocol, Windows
from eval.runs import stages
from eval.splits import judged
from eval.task import Task
from pipeline.errors import Refusal
from pipeline.store import VideoStore, annotation, open_store
from tests.train.oracle import clip_plan, plain
from tests.train.test_published import published_state
from train import backbones, checkpoints
from train.augment.windows import crops
from train.clips.streams import Stream
from train.commands import pretrain
from train.file_commands import import_files
from train.hardware import Hardware
from train.published import CLIPS

TEN = Protocol("ten", "Ten crops.", classifier=Look(Windows("uniform", 2), crops=10))
RECIPE: dict[str, Any] = {
    "title": "tiny classifiers",
    "clips": {"length": 4, "stride": 2, "size": [16, 16], "crop": 0.9},
    "augmentation": {"name": "classify"},
    "batch": 4,
    "log_every": 1,
    "stages": [
        {
            "name": stream,
            "method": "classify",
            "steps": 3,
            "settings": {
                "stream": stream,
                "backbone": "small",
                "backbone_settings": {"width": 0.25},
                "optimiser": {"name": "sgd", "lr": 0.05},
            },
        }
        for stream in ("rgb", "flow")
    ],
}


@pytest.fixture(scope="session")
def finished(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classifiers of both streams, a few steps old."""
    run = tmp_path_factory.mktemp("classifiers") / "tiny"
    recipe = run.with_name("recipe.yaml")
    recipe.write_text(yaml.safe_dump(RECIPE))
    hardware = Hardware(reader="opencv", threads=1, accelerator="cpu")
    assert pretrain("classify", str(store.root), run, recipe=str(recipe), hardware=hardware) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "tiny")


@pytest.fixture
def ten(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    monkeypatch.setitem(PROTOCOLS, "ten", TEN)
    return TEN


def classified(run: Path, store: VideoStore, protocol: Protocol, videos: list[str] | None = None) -> Any:
    chosen = videos or [video for video, info in store.infos.items() if info.split == "test"]
    return classification.tested(Task(run, stages(run), store, chosen, [protocol], "opencv", 1))


def probabilities(run: Path, store: VideoStore, protocol: str, stream: str) -> Probabilities:
    return classification.of_run(run, stages(run), store, protocol, stream)


def clips_by_hand(
    store: VideoStore, video: str, stream: Stream, starts: list[int], length: int, stride: int, side: float
) -> Iterator[torch.Tensor]:
    """Every crop of every window of a video, one at a time (1, C, T, h, w), from decoded frames."""
    info, bound = store.info(video), stream.bound(store.settings)
    for start in starts:
        for window, mirrored in crops((info.height, info.width), side, 10):
            plan = clip_plan(video, start + stride * np.arange(length), window=window, flip=mirrored)
            pixels = plain(store, stream.view, [plan], stream.size)[0].astype(np.float64)
            affine = bound.affine(mirrored)
            clip = np.einsum("ij,jthw->ithw", affine[:, :-1], pixels) + affine[:, -1, None, None, None]
            yield torch.from_numpy(clip[None].astype(np.float32))


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_probabilities_are_the_means_of_a_plain_loop(run: Path, store: VideoStore, ten: Protocol, stream: str) -> None:
    classified(run, store, ten)
    found = probabilities(run, store, "ten", stream)
    network = checkpoints.load_method(run / stream / "checkpoints" / "last.ckpt").networks[stream].eval()
    [stage] = [stage for stage in stages(run) if stage.name == stream]
    clips, _ = evaluate.provenance.clips_of(stage.metadata, stage.checkpoint)
    frames = store.shape(found.video_ids[0], stream)[0]
    starts = [0, frames - 8]
    for video, row in zip(found.video_ids[:2], found.values[:2], strict=True):
        by_hand = clips_by_hand(store, video, clips.stream(stream), starts, 4, 2, 0.9)
        with torch.no_grad():
            each = [functional.softmax(network(clip), dim=1)[0] for clip in by_hand]
        assert len(each) == 20
        torch.testing.assert_close(torch.from_numpy(row), torch.stack(each).mean(dim=0), rtol=0, atol=1e-5)
    assert found.classes == store.classes and found.values.sum(1) == pytest.approx(1)


def test_a_published_probe_gives_what_the_same_network_gives_by_hand(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    backbone = backbones.create("s3d")
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    weight, bias = torch.randn(3, 1024, generator=generator) * 0.1, torch.randn(3, generator=generator)
    norm = {
        name: torch.rand(1024, generator=generator) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")
    }
    state |= {"final_fc.0.weight": weight, "final_fc.0.bias": bias, "final_bn.num_batches_tracked": torch.tensor(3)}
    state |= {f"final_bn.{name}": tensor for name, tensor in norm.items()}
    torch.save({"state_dict": state, "epoch": 99}, tmp_path / "probe.pth.tar")
    (tmp_path / "classInd.txt").write_text("".join(f"{place} {name}\n" for place, name in enumerate(store.classes, 1)))
    import_files(tmp_path / "run", rgb=tmp_path / "probe.pth.tar", classes=tmp_path / "classInd.txt")
    small = Protocol(
        "small",
        "Ten small crops.",
        classifier=Look(Windows("centre"), crops=10, frames=8, size=(32, 32), pixels="ours"),
    )
    monkeypatch.setitem(PROTOCOLS, "small", small)
    video = next(video for video, info in store.infos.items() if info.split == "test")
    records, left_out = classified(tmp_path / "run", store, small, [video])
    assert {record.metric for record in records} == {"probe_top1", "probe_top5"} and not left_out
    found = probabilities(tmp_path / "run", store, "small", "rgb")

    stream = CLIPS.changed(size=(32, 32), pixels="ours").stream("rgb")
    backbone.eval()
    each = []
    for clip in clips_by_hand(store, video, stream, [(21 - 8) // 2], 8, 1, 0.9333):
        with torch.no_grad():
            rows = functional.normalize(backbone(clip).mean(dim=(2, 3, 4)), dim=1)
        rows = (rows - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt() * norm["weight"] + norm["bias"]
        each.append(functional.softmax(rows @ weight.T + bias, dim=1)[0])
    torch.testing.assert_close(torch.from_numpy(found.values[0]), torch.stack(each).mean(dim=0), rtol=0, atol=1e-5)


def test_results_do_not_depend_on_batches_and_order(
    run: Path, store: VideoStore, ten: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, _ = classified(run, store, ten)
    whole = probabilities(run, store, "ten", "rgb")
    shutil.rmtree(run / "features")
    monkeypatch.setattr("eval.features.BATCH", 20)
    again, _ = classified(run, store, ten, list(reversed(whole.video_ids)))
    other = probabilities(run, store, "ten", "rgb")
    assert other.video_ids == list(reversed(whole.video_ids))
    np.testing.assert_allclose(other.of(whole.video_ids, whole.classes), whole.values, rtol=0, atol=1e-6)
    assert again == records


def test_an_evaluation_has_the_classifiers_and_computes_nothing_twice(
    run: Path, store: VideoStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("eval.evaluate.log.propagate", True)
    evaluate.evaluate(run, store, ["clean", "coclr"], "opencv", 1)
    records = results.read(run / "results.json")
    found = {(r.protocol, r.stream, r.metric): r for r in records if r.metric.startswith("finetune")}
    streams = ("rgb", "flow", "two-stream")
    assert set(found) == {
        (protocol, stream, f"finetune_top{k}") for protocol in ("clean", "coclr") for stream in streams for k in (1, 5)
    }
    assert found["clean", "rgb", "finetune_top1"].chance == pytest.approx(1 / 3)
    rgb, flow = (probabilities(run, store, "clean", stream) for stream in ("rgb", "flow"))
    labels = [store.classes.index(store.info(video).label) for video in rgb.video_ids]
    both = (rgb.values + flow.values).argmax(axis=1) == labels
    assert found["clean", "two-stream", "finetune_top1"].value == pytest.approx(both.mean())
    assert found["clean", "two-stream", "finetune_top1"].stage == "rgb+flow"
    assert any(r.metric == "R@1" for r in records)
    before = (run / "results.json").read_bytes()
    monkeypatch.setattr("eval.features.compute", lambda *_, **__: pytest.fail("computed again"))
    evaluate.evaluate(run, store, ["clean", "coclr"], "opencv", 1)
    assert (run / "results.json").read_bytes() == before


def test_a_classifier_is_tested_by_the_protocol_of_the_method_that_it_began_with(run: Path, store: VideoStore) -> None:
    for stream, after in (("rgb", ["infonce", "coclr"]), ("flow", [])):
        path = run / stream / "checkpoints" / "last.ckpt"
        content = torch.load(path, weights_only=True)
        content["costream"]["after"] = after
        checkpoints.write(content, path)
    _, records = evaluate.evaluate(run, store, None, "opencv", 1)
    assert {r.protocol for r in records if r.metric == "finetune_top1"} == {"clean", "coclr"}


def test_published_numbers_stand_beside_what_was_begun_as_theirs(
    run: Path, store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here those of a small network on the test's store; from random weights it is the supervised one."""
    name = store.root.name
    theirs = {"network": "small", "clip": "4x16x16", "data": name, "pretraining": name, "protocol": "clean"}
    own = next(n for n in published.numbers() if (n.method, n.metric) == ("supervised", "finetune_top1"))
    quoted = dataclasses.replace(own, **theirs)
    monkeypatch.setattr(published, "numbers", lambda: (quoted,))
    _, records = evaluate.evaluate(run, store, ["clean"], "opencv", 1)
    found = {(r.stream, r.metric): r.published for r in records if r.published is not None}
    assert found == {("rgb", "finetune_top1"): pytest.approx(0.77)}
    assert "published fine-tuned" in (run / "tables" / "results-clean.csv").read_text()


def test_what_cannot_be_tested_is_told(run: Path, store: VideoStore, ten: Protocol) -> None:
    checkpoint = run / "rgb" / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["settings"]["classes"] = ["one", "two", "three"]
    checkpoints.write(content, checkpoint)
    content = torch.load(run / "flow" / "checkpoints" / "last.ckpt", weights_only=True)
    content["costream"]["clips"]["crop"] = "whole"
    checkpoints.write(content, run / "flow" / "checkpoints" / "last.ckpt")
    records, left_out = classified(run, store, ten)
    assert records == []
    assert "stage rgb is not tested by protocol ten: it knows none of the store's classes" in left_out[0]
    assert "stage flow is not tested by protocol ten: it has 10 crops" in left_out[1]


def test_a_classifier_is_not_tested_on_videos_whose_labels_it_was_told(
    run: Path, store: VideoStore, tmp_path: Path
) -> None:
    """Another split of the same videos, and a part that is held out of the training videos afterwards."""
    folder = shutil.copytree(store.root, tmp_path / "store")
    own = store.annotated.as_set()
    turned = {"train": "test", "test": "train"}
    for name, splits in (("turned", turned), ("alone", {"test": ""})):
        said = {video: one._replace(split=splits.get(one.split, one.split)) for video, one in own.said.items()}
        annotation.save(folder, name, dataclasses.replace(own, said=said))
    records, left_out = classified(run, open_store(str(folder), "turned"), PROTOCOLS["clean"])
    assert not records and len(left_out) == 2
    assert left_out[0].endswith("rgb is not tested: its training showed it 12 of the 12 test videos with their labels")
    held_out, _ = judged(open_store(str(folder), "alone"))
    records, left_out = classified(run, held_out, PROTOCOLS["clean"])
    assert not records and left_out[1].endswith("its training showed it 3 of the 3 test videos with their labels")


def given(order: tuple[int, ...] = (0, 1, 2)) -> Probabilities:
    values = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    names = ["a", "b", "c"]
    return Probabilities([f"v{place}" for place in order], names, values[list(order)])


def test_streams_are_fused_by_id_and_class() -> None:
    one, other = given(), given((2, 0, 1))
    mixed = Probabilities(other.video_ids, ["c", "a", "b"], other.values[:, [2, 0, 1]])
    for weights in (None, [3.0, 1.0]):
        np.testing.assert_allclose(fused([one, mixed], weights).of(one.video_ids, one.classes), one.values)
    half = dataclasses.replace(other, values=other.values[:, [1, 0, 2]])
    np.testing.assert_allclose(
        fused([one, half], [3, 1]).of(["v0"], one.classes), [[0.7 * 0.75 + 0.05, 0.15 + 0.7 / 4, 0.1]]
    )
    labels = {"v0": "a", "v1": "a", "v2": "zebra"}
    assert one.accuracy(labels) == {1: pytest.approx(1 / 3), 5: pytest.approx(2 / 3)}


def test_a_missing_id_or_class_fails() -> None:
    with pytest.raises(Refusal, match=r"1 of 3 have no probabilities, the first video: 'v1'"):
        fused([given(), given((0, 2))])
    with pytest.raises(Refusal, match="other classes"):
        fused([given(), dataclasses.replace(given(), classes=["a", "b", "d"])])
    with pytest.raises(Refusal, match="no probabilities"):
        given().accuracy({"v7": "a"})
    with pytest.raises(Refusal, match="cannot be weighted"):
        fused([given(), given()], [1.0])


def test_the_authors_files_are_written_and_read(run: Path, store: VideoStore, ten: Protocol, tmp_path: Path) -> None:
    classified(run, store, ten)
    found = probabilities(run, store, "ten", "rgb")
    write_json(found, tmp_path / "ten.json")
    content = json.loads((tmp_path / "ten.json").read_text())
    assert list(content) == [f"{video}/" for video in found.video_ids]
    assert all(np.shape(entry["mean_prob"]) == (1, 3) for entry in content.values())
    back = read_json(tmp_path / "ten.json", store)
    assert back.video_ids == found.video_ids and back.classes == store.classes
    np.testing.assert_array_equal(back.values, found.values)
    theirs = {f"/root/frames/{name}": entry["mean_prob"] for name, entry in content.items()}  # of a probe on features
    (tmp_path / "lp.json").write_text(json.dumps(theirs))
    np.testing.assert_array_equal(read_json(tmp_path / "lp.json", store).values, found.values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"/x/nowhere/": {"mean_prob": [[0.1, 0.2, 0.7]]}}', "none of the store's videos"),
        ('{"VIDEO/": {"mean_prob": [[0.5, 0.5]]}}', "probabilities of 2 classes, and the store has 3"),
        ('{"VIDEO/": {"prob": 1}}', "no probabilities"),
        ('{"VIDEO/": [[0.5, 0.7, -0.2]]}', "not all of it are probabilities"),
        ('{"VIDEO/": [[0.5, 0.2, 0.3]], "VIDEO/": [[0.5, 0.2, 0.3]]}', "no probabilities"),
        ("[1, 2]", "no probabilities"),
        ("{", "no probabilities"),
    ],
)
def test_files_that_are_none_fail(store: VideoStore, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "prob.json").write_text(content.replace("VIDEO", store.videos[0]))
    with pytest.raises(Refusal, match=message):
        read_json(tmp_path / "prob.json", store)


@pytest.mark.remedy("tests it, or tells why not")
def test_the_command_fuses_runs_streams_and_files(
    run: Path, store: VideoStore, ten: Protocol, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    classified(run, store, ten)
    commands.fuse([f"{run}:rgb"], str(store.root), protocol="ten", out=tmp_path / "rgb.json")
    inputs = [str(tmp_path / "rgb.json"), f"{run}:flow"]
    commands.fuse(inputs, str(store.root), [2.0, 1.0], protocol="ten", out=tmp_path / "both.json")
    assert "top-1 " in capsys.readouterr().out
    both = read_json(tmp_path / "both.json", store)
    rgb, flow = (probabilities(run, store, "ten", stream) for stream in ("rgb", "flow"))
    wanted = (2 * rgb.values + flow.of(rgb.video_ids, rgb.classes)) / 3
    np.testing.assert_allclose(both.of(rgb.video_ids, rgb.classes), wanted, atol=1e-6)
    with pytest.raises(Refusal, match="classifiers of rgb, flow"):
        commands.fuse([str(run)], str(store.root), protocol="ten")
    with pytest.raises(Refusal, match="not tested by protocol 'clean'"):
        commands.fuse([f"{run}:rgb"], str(store.root), protocol="clean")
    classified(run, store, PROTOCOLS["clean"])
    commands.fuse([f"{run}:rgb"], str(store.root), protocol="clean")


def test_the_network_that_held_out_videos_chose_is_the_one_tested(run: Path, store: VideoStore) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    folder = run / "rgb" / "checkpoints"
    shutil.copyfile(folder / "last.ckpt", folder / "best.ckpt")
    assert [stage.checkpoint.name for stage in stages(run)] == ["last.ckpt", "last.ckpt"]
    recipe["keep_best"] = {"metric": "held_out_top1", "mode": "max"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert [stage.checkpoint.name for stage in stages(run)] == ["best.ckpt", "last.ckpt"]


@pytest.mark.remedy("give the class list of the data set that it was trained on as --classes")
def test_a_published_file_of_another_number_of_classes_fails(tmp_path: Path) -> None:
    state = {
        name.replace("encoder_q.0.", "backbone."): tensor
        for name, tensor in published_state("infonce").items()
        if name.startswith("encoder_q.0.")
    }
    state |= {"final_fc.1.weight": torch.zeros(7, 1024), "final_fc.1.bias": torch.zeros(7)}
    torch.save({"state_dict": state}, tmp_path / "tuned.pth.tar")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(Refusal, match="the classifier has 7 classes, and 2 are listed"):
        import_files(tmp_path / "run", rgb=tmp_path / "tuned.pth.tar", classes=tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\nf\ng\n")
    import_files(tmp_path / "run", rgb=tmp_path / "tuned.pth.tar", classes=tmp_path / "classes.txt")


def test_banks_of_classes_are_feature_banks(run: Path, store: VideoStore, ten: Protocol) -> None:
    classified(run, store, ten)
    [path] = (run / "features").rglob("trained-ten-rgb-classes.h5")
    bank = FeatureBank.load(path)
    assert bank.attributes["layer"] == "classes" and bank.features.shape == (6, 3)
