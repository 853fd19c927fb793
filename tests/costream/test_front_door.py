"""The front door: what `import costream` gives, beside the modules that do the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import costream
from costream.__main__ import COMMANDS, listing, main
from eval import embed
from pipeline.store import VideoStore
from pipeline.views.flow import FLOW_SCALE
from train.clips import sliding_windows

TOP = Path(__file__).resolve().parents[2]


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, costream, costream.__main__; print(sorted({'torch', 'numpy', 'zarr', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["train pretrain", "eval search", "costream pretrain"])
def test_a_command_says_that_it_loads_before_it_imports_what_takes_seconds(tmp_path: Path, command: str) -> None:
    for name in ("torch", "cv2", "lightning", "numba", "zarr", "jsonargparse"):
        (tmp_path / f"{name}.py").write_text(f"import sys\nsys.exit('it wants {name}')\n")
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    said, *_, stopped = done.stderr.splitlines()
    assert said == "loading PyTorch"
    assert stopped.startswith("it wants ")


def test_all_that_is_promised_is_there() -> None:
    assert set(costream.__all__) == set(costream.PLACES) == set(dir(costream))
    for name in costream.__all__:
        assert getattr(costream, name).__doc__, name


def test_another_name_is_refused_fails() -> None:
    with pytest.raises(AttributeError, match="costream has no 'stores'; it has .*open"):
        _ = costream.stores


def test_a_store_tells_what_it_is(store: VideoStore) -> None:
    opened = costream.open(store.root)
    told = "18 videos (6 test, 12 train), 3 classes, views rgb, flow)"
    assert repr(opened) == f"VideoStore({str(store.root)!r}: {told}"
    video = opened.videos[0]
    assert np.array_equal(opened.frames(video), store.read(video, "rgb", slice(None)))
    assert np.array_equal(opened.flow(video), store.flow(video, slice(None)))
    assert opened.labels == {name: store.info(name).label for name in store.videos}


def test_clips_of_the_middle_are_the_readers_pixels(store: VideoStore) -> None:
    clips = costream.clips(store, ("rgb", "flow"), length=4, stride=2, size=(16, 24), windows="middle", split="test")
    assert len(clips) == 6
    assert "rgb 3x4x16x24, flow 2x4x16x24" in repr(clips)
    item = clips[2]
    video, frames = clips.videos[2], item["frames"]
    windows = sliding_windows(20, 4, 2)  # flow has one frame less than the video's 21
    assert np.array_equal(frames, windows[len(windows) // 2])
    assert item["label"] == store.classes.index(store.info(video).label)
    flow = store.flow(video, frames)
    assert item["flow"].shape == (2, 4, 16, 24)
    assert float(item["flow"].mean()) == pytest.approx(float(flow.mean()) / FLOW_SCALE, abs=0.02)


def test_a_loader_gets_whole_batches_and_items_follow_from_seed_and_epoch(store: VideoStore) -> None:
    clips = costream.clips(store, length=4, size=16, seed=3)
    [first, second] = DataLoader(clips, batch_size=9)
    assert first["rgb"].shape == (9, 3, 4, 16, 16)
    assert first["video"] + second["video"] == store.videos
    assert torch.equal(first["rgb"][4], clips[4]["rgb"])
    clips.set_epoch(1)
    drawn = [item["frames"].tolist() for item in clips.__getitems__(range(18))]
    assert drawn != torch.cat([first["frames"], second["frames"]]).tolist()
    again = costream.clips(store, length=4, size=16, seed=3)
    assert torch.equal(again[4]["rgb"], first["rgb"][4])


def test_workers_of_a_loader_read_the_same(store: VideoStore) -> None:
    clips = costream.clips(store, length=4, size=16, windows="middle", threads=1)
    here = [clips[0]["rgb"], clips[-1]["rgb"]]
    batches = list(DataLoader(clips, batch_size=17, num_workers=1, multiprocessing_context="fork"))
    assert torch.equal(batches[0]["rgb"][0], here[0])
    assert torch.equal(batches[1]["rgb"][0], here[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"streams": ("depth",)}, 'unknown view "depth"'),
        ({"streams": ()}, "no stream is asked for"),
        ({"split": "tset"}, 'did you mean "test"'),
        ({"windows": "midle"}, 'did you mean "middle"'),
        ({"length": 0}, "clips: length"),
        ({"augmentation": "evaluat"}, 'did you mean "evaluate"'),
    ],
)
def test_clips_that_cannot_be_meant_are_refused_fails(store: VideoStore, options: dict, told: str) -> None:
    with pytest.raises(costream.UsageError, match=told):
        costream.clips(store, **options)


def test_a_split_without_videos_is_refused_fails(store: VideoStore) -> None:
    with pytest.raises(costream.Refusal, match="there is no video to show"):
        costream.clips(store, split="val")


def test_a_run_with_two_streams_asks_which_is_meant_fails(finished_run: Path) -> None:
    with pytest.raises(costream.UsageError, match='stream="flow" or stream="rgb"'):
        costream.load(finished_run)
    with pytest.raises(costream.UsageError, match='unknown stream "pose"'):
        costream.load(finished_run, "pose")
    with pytest.raises(costream.UsageError, match='unknown stage "rbg"'):
        costream.load(finished_run, "rgb", stage="rbg")
    with pytest.raises(costream.Refusal, match="there is no run and no file"):
        costream.load(finished_run / "missing")


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_network_is_shown_arrays_as_it_is_shown_a_store(store: VideoStore, finished_run: Path, stream: str) -> None:
    network = costream.load(finished_run, stream)
    video = store.videos[0]
    clips = network.clips(store)
    own = [number for number in range(len(clips)) if clips[number]["video"] == video]
    wanted = torch.stack([clips[number][stream] for number in own])
    given = network.preprocess(store.read(video, stream, slice(None)))
    assert torch.equal(given, wanted)
    assert network(given).shape == (len(own), network.size)
    assert not network.training
    assert f"shown {stream} as" in repr(network)


@pytest.mark.parametrize("shape", [(3, 16, 16), (4, 16, 16), (0, 16, 16, 3), (4, 3, 16, 16)])
def test_frames_of_another_shape_are_refused_fails(finished_run: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"frames of rgb are uint8 \(F, H, W, 3\)"):
        costream.load(finished_run, "rgb").preprocess(np.zeros(shape, np.uint8))


def test_features_are_those_of_the_command(store: VideoStore, finished_run: Path, tmp_path: Path) -> None:
    banks = embed.embed(finished_run, store, store.videos, tmp_path, "opencv", 1)
    for stream, bank in banks.items():
        found = costream.features(store, costream.load(finished_run, stream), threads=1)
        assert found.videos == bank.video_ids
        assert np.array_equal(found.rows, bank.features)
    assert found.labels == [store.info(video).label for video in found.videos]
    centred = found.rows - found.rows.mean(0)
    cosines = [row @ centred[0] / np.linalg.norm(row) / np.linalg.norm(centred[0]) for row in centred]
    nearest = found.nearest(found.videos[0], 3)
    order = sorted(range(1, 18), key=lambda row: -cosines[row])[:3]
    assert [video for video, _ in nearest] == [found.videos[row] for row in order]
    assert [score for _, score in nearest] == pytest.approx([cosines[row] for row in order], abs=1e-5)


def test_a_split_of_a_store_has_features_of_its_own(store: VideoStore, finished_run: Path) -> None:
    network = costream.load(finished_run, "flow")
    found = costream.features(str(store.root), network, split="test")
    assert found.splits == ["test"] * 6
    with pytest.raises(costream.UsageError, match='unknown video "v"'):
        found.nearest("v")


@pytest.mark.slow
def test_features_of_new_videos_are_those_of_their_store(store: VideoStore, finished_run: Path, tmp_path: Path) -> None:
    network, video = costream.load(finished_run, "rgb"), store.videos[0]
    file = store.root.parent / "videos" / f"{video}.mp4"
    found = costream.features(file, network, store=tmp_path / "kept")
    wanted = costream.features(store, network)
    assert found.videos == [video]
    assert np.allclose(found.rows[0], wanted.rows[wanted.videos.index(video)], atol=1e-6)
    assert costream.open(tmp_path / "kept").views == ("rgb",)


def test_features_of_what_is_not_there_are_refused_fails(store: VideoStore, finished_run: Path) -> None:
    network = costream.load(finished_run, "rgb")
    with pytest.raises(costream.Refusal, match="there is no such video or folder"):
        costream.features("nowhere", network)
    with pytest.raises(costream.UsageError, match="in a store already"):
        costream.features(store, network, store="elsewhere")
    with pytest.raises(costream.UsageError, match="have no split"):
        costream.features(finished_run, network, split="test")


def test_every_command_of_the_three_packages_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import eval.__main__
    import pipeline.__main__
    import train.__main__

    there = {("pipeline", name) for name in pipeline.__main__.COMMANDS}
    there |= {("train", name) for name in train.__main__.COMMANDS}
    there |= {("eval", name) for name in eval.__main__.COMMANDS}
    assert sorted((place.package, place.name) for place in COMMANDS.values()) == sorted(there)


def test_a_command_runs_under_its_name_here(
    store: VideoStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["costream", "status", "--store", str(store.root)])
    assert main() == 0
    assert "18  (6 test, 12 train)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["costream", "status", "--store", str(store.root.parent / "missing")])
    assert main() == 1
    assert capsys.readouterr().err.startswith("costream status: there is no store")


def test_commands_are_listed_and_a_wrong_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["costream", "--help"])
    assert main() == 0
    assert capsys.readouterr().out.strip() == listing()
    monkeypatch.setattr(sys, "argv", ["costream", "pretain"])
    assert main() == 2
    assert 'did you mean "pretrain"' in capsys.readouterr().err


def test_the_notebook_runs(
    store: VideoStore, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STORE", str(store.root))
    monkeypatch.setenv("RUN", str(finished_run))
    notebook = json.loads((TOP / "docs" / "notebooks" / "nearest_neighbours.ipynb").read_text())
    names: dict = {}
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["windows"].shape[1:] == (2, 4, 16, 16)
    assert "of 18 videos are nearest to one of their own class" in capsys.readouterr().out
