"""What refusals of recipes, files of networks and numbers say is to be done helps: each is done here."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import pytest
import torch

from pipeline.errors import Refusal
from tests import remedies
from tests.remedies import helps
from tests.train import runs
from tests.train.runs import IN_BATCH
from tests.train.stores import write_store
from tests.train.test_reader import MOST, SIZE, clip_plan
from train import published as files
from train import reader, recipe
from train.clips.spec import ClipSpec
from train.clustering.agreement import cluster_scores
from train.hardware import Hardware, device
from train.networks.settings import NetworkSettings
from train.optim import OptimiserSettings
from train.published import import_published
from train.published.networks import refuse_without
from train.reader.dali import DaliExecutor
from train.settings import read

CLIPS = ClipSpec(length=4, stride=1, size=(16, 16))
NETWORK = {"stream": "rgb", "backbone": "small", "backbone_settings": {"width": 0.25}, "dim": 8}


def optimiser(**given: Any) -> OptimiserSettings:
    return read(OptimiserSettings, given, "optimiser")


def network(**given: Any) -> NetworkSettings:
    return read(NetworkSettings, given, "network")


def loaded(folder: Path, *stages: dict[str, Any], **changes: Any) -> recipe.Recipe:
    return runs.load(folder / "recipe.yaml", *(stages or (IN_BATCH,)), **changes)


def stage(**settings: Any) -> dict[str, Any]:
    return IN_BATCH | {"settings": IN_BATCH["settings"] | settings}  # type: ignore[operator]


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


def cut(folder: Path) -> None:
    (folder / "whole.pth").write_bytes(saved(folder, {"a": torch.zeros(99)}).read_bytes())
    (folder / "file.pth").write_bytes((folder / "whole.pth").read_bytes()[:-99])
    files.files.load(folder / "file.pth", "")


def copied(folder: Path) -> None:
    shutil.copy(folder / "whole.pth", folder / "file.pth")
    files.files.load(folder / "file.pth", "")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "score the labelled videos alone",
            lambda folder: cluster_scores(np.array([0, 1, 1]), np.array([0, 1, -1])),
            lambda folder: cluster_scores(np.array([0, 1]), np.array([0, 1])),
        ),
        remedies.case(
            "give both for the same videos in the same order",
            lambda folder: cluster_scores(np.array([0, 1, 1]), np.array([0, 1])),
            lambda folder: cluster_scores(np.array([0, 1]), np.array([0, 1])),
        ),
        remedies.case("use a copy, or delete it and train (or fetch) it again", lambda folder: cut(folder), copied),
        remedies.case(
            "give a file with tensors by name",
            lambda folder: import_published([torch.zeros(1)]),
            lambda folder: helps_to_be_told_apart({"a": torch.zeros(1)}),
        ),
        remedies.case(
            "give a file with tensors, each under a name of its own",
            lambda folder: import_published({"a": 1}),
            lambda folder: helps_to_be_told_apart({"a": torch.zeros(1)}),
        ),
        remedies.case(
            "keep the file that it was read from",
            lambda folder: refuse_without("coclr", {"head": "classifier"}),
            lambda folder: shutil.copy(saved(folder, {"a": torch.zeros(1)}), folder / "kept.pth"),
        ),
        remedies.case(
            "--hardware.devices 1, GPUs, or sync_batchnorm: false in the recipe",
            lambda folder: device(Hardware(accelerator="cpu", devices=2), "32-true", True),
            lambda folder: [
                device(Hardware(accelerator="cpu", devices=1), "32-true", True),
                device(Hardware(accelerator="cpu", devices=2), "32-true", False),
            ],
        ),
    ],
)
def test_of_files_numbers_and_hardware(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


@pytest.mark.remedy("give another file; or, of one that you trust, its tensors alone", told=True)
@pytest.mark.parametrize(
    ("held", "name", "zipped"),
    [(argparse.Namespace(lr=1), "argparse.Namespace", True), (np.float64(3), "numpy", False)],
)
def test_what_is_neither_tensor_nor_plain_value_is_named(
    held: Any, name: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that is told is done by this Python, which has torch."""
    file, new = tmp_path / "file.pth", tmp_path / "new.pth"
    state = {"a": torch.ones(2)}
    torch.save({"state_dict": state, "held": held}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Refusal, match=f"the file holds a .*{name}") as refused:
        files.files.load(file, "")
    command = shlex.split(refused.value.remedy.partition("alone: ")[2])
    program, option, code, *given = command
    assert (program, option, given) == ("python", "-c", ["FILE", "NEW"])
    monkeypatch.setattr(sys, "argv", [option, str(file), str(new)])
    exec(code, {"__name__": "__main__"})
    assert torch.equal(files.files.load(new, "")["state_dict"]["a"], state["a"])


@pytest.mark.remedy("download it again: a site may have sent a page in its place")
def test_a_page_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.ones(2)})
    whole = file.read_bytes()
    file.write_text("<!DOCTYPE html><html>")
    with pytest.raises(Refusal, match="no checkpoint: it begins with b'<!DOCTYPE html><'"):
        files.files.load(file, "")
    file.write_bytes(whole)
    assert torch.equal(files.files.load(file, "")["a"], torch.ones(2))


def helps_to_be_told_apart(state: dict[str, torch.Tensor]) -> None:
    """It is a state dict, though of none of the layouts."""
    with pytest.raises(Refusal, match="the layout of the checkpoint cannot be told"):
        import_published(state)


@pytest.mark.remedy("read with the executor opencv, or use a smaller batch if device memory ran out")
def test_a_batch_that_dali_alone_fails_on_is_read_by_opencv_or_in_parts(
    tmp_path: Path, on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "store", {"a": (4, 30, 40), "b": (4, 30, 40)})
    both = [clip_plan(v, range(4)) for v in store.videos]
    small, usual = reader.create("dali", store, threads=1), DaliExecutor._images

    def images(self: DaliExecutor, view: str, planes: Any, streams: Any) -> Any:
        if len(streams) > 4:
            raise RuntimeError("out of memory")
        return usual(self, view, planes, streams)

    monkeypatch.setattr(DaliExecutor, "_images", images)
    with pytest.raises(Refusal, match="(?s)although each frame decodes: out of memory.*a, b"):
        small.run("rgb", both, SIZE)
    other = reader.create("opencv", store, threads=1)
    parts = torch.cat([small.run("rgb", [one], SIZE) for one in both])
    np.testing.assert_allclose(parts.int().numpy(), other.run("rgb", both, SIZE).int().numpy(), atol=MOST)
    for executor in (small, other):
        executor.close()
