"""Which reader `auto` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from train import reader
from train.reader import measuring
from train.reader.opencv import OpenCVExecutor


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As with a GPU, whose name is known; gives the lines that are told."""
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU one")
    monkeypatch.setattr(measuring, "tell", told.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return told


@pytest.mark.remedy("; --hardware.reader chooses)", told=True)
@pytest.mark.parametrize(("rates", "name"), [((9, 5), "opencv"), ((5, 9), "dali")])
def test_with_a_gpu_the_faster_one_is_taken_told_and_kept(
    gpu: list[str], store: VideoStore, monkeypatch: pytest.MonkeyPatch, rates: tuple[int, int], name: str
) -> None:
    times: list[int] = []

    def measured(store: VideoStore, threads: int, names: tuple[str, ...]) -> dict[str, float]:
        times.append(threads)
        return dict(zip(names, rates, strict=True))

    monkeypatch.setattr(measuring, "measured", measured)
    assert [measuring.fastest(store, 2), measuring.fastest(store, 2)] == [name] * 2
    assert times == [2]
    assert measuring.fastest(store, 4) == name and times == [2, 4]
    assert f"reader: {name}, by frames a second on this machine: opencv {rates[0]}, dali {rates[1]} (kept in " in gpu[0]
    assert len(json.loads(measuring.kept_in().read_text())) == 2
    chosen = reader.create("opencv", store, threads=1)
    assert isinstance(chosen, OpenCVExecutor)
    chosen.close()


@pytest.mark.parametrize("content", ["{", '{"GPU one": 3}', "[]"])
def test_what_is_kept_and_cannot_be_read_is_measured_again(
    gpu: list[str], store: VideoStore, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    measuring.kept_in().parent.mkdir()
    measuring.kept_in().write_text(content)
    monkeypatch.setattr(measuring, "measured", lambda *_: {"opencv": 2.0, "dali": 1.0})
    assert measuring.fastest(store, 1) == "opencv"


def test_both_are_measured_on_batches_of_the_store(store: VideoStore, on_cpu: None) -> None:
    rates = measuring.measured(store, 1, ("opencv", "dali"))
    assert list(rates) == ["opencv", "dali"] and all(rate > 0 for rate in rates.values())


def test_without_a_gpu_opencv_reads_and_nothing_is_measured(store: VideoStore, on_cpu: None) -> None:
    executor = reader.create("auto", store, threads=1)
    assert isinstance(executor, OpenCVExecutor)
    executor.close()


@pytest.mark.remedy("DALI, which decodes on the GPU, is not installed (pip install nvidia-dali-cuda130)", told=True)
def test_without_dali_opencv_reads_and_that_is_told(
    gpu: list[str], store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as missing:
        missing.setattr("importlib.util.find_spec", lambda name: None)
        assert measuring.fastest(store, 1) == "opencv"
    assert "not installed (pip install nvidia-dali-cuda130)" in gpu[0]
    monkeypatch.setattr(measuring, "measured", lambda *_: {"opencv": 1.0, "dali": 2.0})
    assert measuring.fastest(store, 1) == "dali"  # where it is installed


@pytest.mark.remedy("pip install nvidia-dali-cuda130, or read with opencv (--hardware.reader opencv; --reader opencv)")
def test_dali_that_is_asked_for_and_missing_is_refused_with_a_remedy(
    store: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "train.reader.dali", raising=False)
    with monkeypatch.context() as missing:
        for name in ("nvidia.dali", "nvidia.dali.types"):
            missing.setitem(sys.modules, name, None)
        with pytest.raises(UsageError) as refused:
            reader.create("dali", store, threads=1)
        reader.create("opencv", store, threads=1).close()
    reader.create("dali", store, threads=1).close()  # where it is installed
    assert "pip install nvidia-dali-cuda130" in refused.value.remedy and "--hardware.reader opencv" in str(
        refused.value
    )
