"""Stage two from the command line: what it prints, where it leaves things, and its exit codes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import called
from pipeline.__main__ import COMMANDS as PIPELINE
from pipeline.commands import console, extract, stores
from pipeline.errors import Refusal
from pipeline.extraction.journal import Summary
from pipeline.store import VideoStore, annotation, catalogue, layout, open_store
from pipeline.store.annotation import AnnotationSet, Said
from tests import printed, test_make
from tests.patience import PATIENCE
from tests.train import runs
from tests.train.runs import IN_BATCH, INFONCE, Run, pretrain
from tests.train.stores import write_store
from train import beginning, checkpoints, commands, run_folder
from train import recipe as recipes
from train.stage_data import refuse_without_split, training_set_of

COPY = test_make.folder  # a fixture: where make runs, with a Python that writes down what it would be run with


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return write_store(tmp_path_factory.mktemp("commands [1]") / "store", runs.VIDEOS)


@pytest.mark.remedy("`make annotate STORE={} TEST_SHARE", "or train on all of them: `--use_all true`")
def test_labels_without_a_split_ask_for_a_decision_and_each_remedy_works(
    tmp_path: Path, call: Run, COPY: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_store(tmp_path / "store [1]", runs.VIDEOS).root
    labels = {name: Said(f"class {number % 2}") for number, name in enumerate(runs.VIDEOS)}
    annotation.save(root, "extraction", AnnotationSet(["class 0", "class 1"], labels))
    short = IN_BATCH | {"steps": 1}
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(short, INFONCE | {"epochs": 1}))
    decided = runs.write(tmp_path / "decided.yaml", runs.settings(short, INFONCE | {"epochs": 1}, splits=["train", ""]))
    code, _, errors = call(*pretrain(root, tmp_path / "run", recipe))
    assert code == 1
    assert "no video has a split, though there are labels: of 13 none is kept for a test" in errors
    assert not (tmp_path / "run").exists()
    assert "`--use_all true`" in errors
    for number, options in enumerate(((recipe, "--use_all", "true"), (decided,))):
        assert call(*pretrain(root, tmp_path / f"run{number}", *options))[0] == 0
    with monkeypatch.context() as behind:
        behind.setattr(called, "by_costream", lambda: True)
        with pytest.raises(Refusal) as refused:
            refuse_without_split(open_store(root), recipes.load(Path(recipe)))
    (remedy,) = re.findall(r"`(costream annotate [^`]+)`", refused.value.remedy)
    printed.understood(printed.argv_of(remedy, COPY), monkeypatch)
    (remedy,) = re.findall(r"`(make annotate [^`]+)`", errors)
    assert printed.run(printed.argv_of(remedy, COPY), monkeypatch) == 0
    following = capsys.readouterr().err
    assert f"next: make pretrain METHOD=vicc RECIPE=small-real STORE='{root}' RUN='runs/store [1]'\n" in following
    assert open_store(root).annotated.count_splits() == {"train": 9, "test": 4}
    code, _, errors = call(*pretrain(root, tmp_path / "kept", recipe))
    assert code == 0
    assert "on 9 videos" in errors


def test_videos_without_labels_are_trained_on_without_a_question(tmp_path: Path, call: Run) -> None:
    root = write_store(tmp_path / "store", runs.VIDEOS).root
    annotation.save(root, "extraction", AnnotationSet([], dict.fromkeys(runs.VIDEOS, Said())))
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"steps": 1}, INFONCE | {"epochs": 1}))
    assert call(*pretrain(root, tmp_path / "run", recipe))[0] == 0


@pytest.mark.parametrize(
    ("short", "told"),
    [
        (
            "pad",
            "5 of 13 videos are shorter than a clip: their first frame is repeated in front (sampling.short: pad)\n",
        ),
        ("drop", "5 of 13 videos are shorter than a clip: they are left out (sampling.short: drop)\n"),
    ],
)
def test_short_videos_are_told_once(store: VideoStore, tmp_path: Path, call: Run, short: str, told: str) -> None:
    clips = {"length": 7, "stride": 1, "size": [16, 16]}
    stages_of_both = runs.settings(
        IN_BATCH | {"steps": 1}, INFONCE | {"epochs": 1}, clips=clips, sampling={"short": short}
    )
    recipe = runs.write(tmp_path / "recipe.yaml", stages_of_both)
    code, _, errors = call(*pretrain(store.root, tmp_path / "run", recipe))
    assert code == 0
    assert errors.count(told) == errors.count("shorter than a clip") == 1


def test_what_extraction_says_is_next_pretrains(
    store: VideoStore, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a recipe that is through in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores.errors, "width", 10_000)
    monkeypatch.setattr(extract, "run_extraction", lambda **_: Summary(stored=13))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v00.mp4").touch()
    monkeypatch.setattr(sys, "argv", ["pipeline", "extract", "--videos", "videos", "--store", str(store.root)])
    assert console.main(PIPELINE, "Stage one", "pipeline") == 0
    (told,) = re.findall("next: make pretrain (.*)", capsys.readouterr().err)
    given = dict(word.split("=", 1) for word in shlex.split(told))
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"steps": 1}))
    assert call(*pretrain(Path(given["STORE"]), Path(given["RUN"]), recipe))[0] == 0
    assert run_folder.checkpoint_path(tmp_path / "runs" / "store", "pixels").is_file()


def test_pretrains_continues_and_exports(store: VideoStore, tmp_path: Path, call: Run) -> None:
    """With brackets in the paths, which are not to be taken for markup."""
    run, recipe = tmp_path / "runs [b]" / "first", tmp_path / "recipe.yaml"
    runs.write(recipe, runs.settings(IN_BATCH | {"steps": 3}, INFONCE | {"epochs": 1}))
    command = pretrain(store.root, run, recipe)

    with runs.signalled(1):
        code, out, errors = call(*command)
    assert code == 128 + signal.SIGTERM
    assert out == ""
    path = run_folder.checkpoint_path(run, "pixels")
    assert f"stopped by SIGTERM in stage pixels at step 2; the same command continues there: {path}\n" in errors
    assert f"pre-training 'a tiny run' (stages: pixels, motion) on 13 videos of {store.root}, into {run}\n" in errors

    code, out, errors = call(*command)
    assert code == 0
    assert re.fullmatch(rf"pre-trained 2 stages in \d+ s: {re.escape(str(run))}\n", out)
    assert "%, pixels 3/3 steps, " in errors and "%, motion 3/3 steps, " in errors and " clips/s, data wait " in errors

    before = path.read_bytes()
    code, out, errors = call(*command)
    assert code == 0
    assert "stage pixels was finished already" in errors and "stage motion was finished already" in errors
    assert path.read_bytes() == before

    code, out, _ = call("export", "--checkpoint", path, "--stream", "rgb", "--out", tmp_path / "rgb.pt")
    assert code == 0
    assert (
        out == f"wrote the rgb backbone to {tmp_path / 'rgb.pt'}, and what it is to {tmp_path / 'rgb'}.json and .md\n"
    )
    assert torch.load(tmp_path / "rgb.pt", weights_only=True).keys() == (
        checkpoints.load_method(path).networks["rgb"].backbone.state_dict().keys()
    )


def test_interrupt_from_the_keyboard(store: VideoStore, tmp_path: Path, call: Run) -> None:
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH))
    with runs.signalled(0, signal.SIGINT):
        code, _, errors = call(*pretrain(store.root, tmp_path / "run", recipe))
    assert code == 130
    assert "stopped by SIGINT in stage pixels at step 1" in errors


@pytest.mark.parametrize("limit", ["0", "00:00:00"])
def test_time_limit_stops_after_a_step(store: VideoStore, tmp_path: Path, call: Run, limit: str) -> None:
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH))
    code, out, errors = call(*pretrain(store.root, tmp_path / "run", recipe, "--time_limit", limit))
    assert (code, out) == (124, "")
    path = run_folder.checkpoint_path(tmp_path / "run", "pixels")
    told = f"stopped by the time limit in stage pixels at step 1; the same command continues there: {path}\n"
    assert errors.endswith(told)


@given(hours=st.integers(0, 999), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_time_limits_are_read(hours: int, minutes: int, seconds: int) -> None:
    length = 3600 * hours + 60 * minutes + seconds
    assert commands.seconds(f"{hours:02}:{minutes:02}:{seconds:02}") == length
    assert commands.seconds(f"{hours}") == 3600 * hours
    assert commands.seconds(f"{length / 3600:.9f}") == pytest.approx(length, abs=1e-5)


def test_profile_is_written_where_it_says(store: VideoStore, tmp_path: Path, call: Run) -> None:
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"steps": 2}))
    code, _, errors = call(*pretrain(store.root, tmp_path / "run", recipe, "--profile", 1))
    assert code == 0
    folder = tmp_path / "run" / "pixels" / "profile"
    assert f"{folder / 'trace.json'} (for ui.perfetto.dev), {folder / 'operators.txt'}" in errors
    assert {path.name for path in folder.iterdir()} == {"trace.json", "operators.txt"}


def test_work_that_is_refused_fails_with_one(store: VideoStore, tmp_path: Path, call: Run) -> None:
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"steps": 1}))

    def refused(arguments: tuple[object, ...], *parts: str) -> None:
        code, out, errors = call(*arguments)
        assert code == 1
        assert out == ""
        assert f"train {arguments[0]}: " in errors and "where: " in errors and "to do: " in errors
        assert "Traceback" not in errors
        for part in parts:
            assert part in errors

    run = tmp_path / "run"
    refused(pretrain(tmp_path / "nothing", run, recipe), "there is no store", str(tmp_path / "nothing"))
    refused(pretrain(tmp_path, run, recipe), "this is not a costream store")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    refused(pretrain(store.root, tmp_path / "other", recipe), "not empty and not a run")
    long = runs.write(tmp_path / "long.yaml", runs.settings(IN_BATCH, clips={"length": 9, "stride": 3, "size": [8, 8]}))
    refused(pretrain(store.root, run, long), "a clip needs 27 frames (clips of 9, 3 apart)", str(store.root))
    assert not run.exists()

    assert call(*pretrain(store.root, run, recipe))[0] == 0
    other = runs.write(tmp_path / "other.yaml", runs.settings(IN_BATCH | {"steps": 2}))
    refused(pretrain(store.root, run, other), "the run belongs to another recipe", "stages.0.steps: stored 1, asked 2")
    refused(pretrain(store.root, run, recipe, "--seed", 8), "seed: stored 3, asked 8", str(run / "recipe.yaml"))
    last = run_folder.checkpoint_path(run, "pixels")
    refused(("export", "--checkpoint", last, "--stream", "flow", "--out", tmp_path / "a.pt"), "it has rgb")
    last.write_bytes(last.read_bytes()[:9000])
    refused(("export", "--checkpoint", last, "--stream", "rgb", "--out", tmp_path / "a.pt"), "cannot be read")
    refused(pretrain(store.root, run, recipe), "cannot be read", str(last))
    assert not (tmp_path / "a.pt").exists()


def test_wrong_usage_fails_with_two(store: VideoStore, tmp_path: Path, call: Run) -> None:
    good = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH))
    run = tmp_path / "run"

    def refused(arguments: tuple[object, ...], *parts: str) -> None:
        code, out, errors = call(*arguments)
        assert code == 2
        assert "Traceback" not in errors
        for part in parts:
            assert part in errors

    wrong = runs.write(tmp_path / "wrong.yaml", runs.settings(IN_BATCH, bacth=3))
    refused(pretrain(store.root, run, wrong), 'unknown key "bacth"', str(wrong), 'did you mean "batch"?')
    refused(pretrain(store.root, run, "smal"), 'unknown recipe "smal"', 'did you mean "small"?')
    refused(pretrain(store.root, run, tmp_path / "no.yaml"), "there is no such recipe", str(tmp_path / "no.yaml"))
    refused(pretrain(store.root, run, "small", "--method", "infonse"), 'did you mean "infonce"?')
    refused(pretrain(store.root, run, good, "--method", "vicc"), "no stage of the recipe trains 'vicc'", str(good))
    refused(pretrain(store.root, run, good, "--hardware.threads", 0), "hardware.threads")
    refused(pretrain(store.root, run, good, "--hardware.accelerator", "tpu"), "hardware.accelerator")
    refused(pretrain(store.root, run, good, "--hardware.devices", 3), "cannot be shared evenly by 3 processes")
    refused(pretrain(store.root, run, good, "--hardware.reader", "lmdb"), 'unknown reader "lmdb"', "opencv, dali")
    refused(pretrain(store.root, run, good, "--seed", "one"), "seed")
    (tmp_path / "file").write_text("mine")
    refused(pretrain(store.root, tmp_path / "file", good), "is a file, not a folder")
    refused(pretrain(store.root, run, good, "--sede", 1), "sede")
    for no_time in ("soon", "1:30", "1:60:00", "-1", ""):
        refused(pretrain(store.root, run, good, f"--time_limit={no_time}"), f"{no_time!r} is no length of time", "23.5")
    refused(pretrain(store.root, run, good, "--profile", "-1"), "-1 is out of range", "profile")
    refused(("pretrain",), "pretrain.store")
    refused((), "train")
    assert not run.exists()


def test_help_names_every_option(call: Run) -> None:
    code, out, _ = call("pretrain", "--help")
    assert code == 0
    options = "method store run recipe seed hardware.reader hardware.devices hardware.compile time_limit profile"
    for option in options.split():
        assert f"--{option} " in out
    assert "exit codes 130, 143 and 124" in " ".join(out.split())


@pytest.mark.slow
def test_sigterm_to_the_command_itself(store: VideoStore, tmp_path: Path) -> None:
    """Nothing is staged here: a signal from outside, at whatever step the run is when its bar is seen."""
    steps = 200
    recipe = runs.load(tmp_path / "recipe.yaml", IN_BATCH | {"steps": steps}, checkpoint_every=steps)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "train", *map(str, pretrain(store.root, run, tmp_path / "recipe.yaml"))]
    environment = os.environ | runs.same_threads()
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    printed = ""
    while " 0/" not in printed and process.poll() is None:
        printed += process.stderr.read(1)
    process.send_signal(signal.SIGTERM)
    printed += process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 128 + signal.SIGTERM, printed
    done = checkpoints.metadata(run_folder.checkpoint_path(run, "pixels"))["step"]
    assert 0 < done < steps
    runs.run(recipe, store, run)
    runs.run(recipe, store, tmp_path / "whole")
    runs.assert_same_runs(tmp_path / "whole", run, "pixels")


def test_training_on_fewer_videos_than_were_stored_is_told(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = Path(shutil.copytree(store.root, tmp_path / "store"))
    catalogue.save(root)
    gone = store.videos[3]
    shutil.rmtree(layout.video_folder(root, gone))
    recipe, opened = runs.load(tmp_path / "recipe.yaml", IN_BATCH), open_store(root)
    beginning.tell_of(recipe, opened, training_set_of(recipe, recipe.stages[0], opened), tmp_path / "run")
    told = f"1 stored video gone that nobody removed by a command: '{gone}'"
    assert told in capsys.readouterr().err
