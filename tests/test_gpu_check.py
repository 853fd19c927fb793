"""`make gpu-check` and `make gpu-references`: gone through line by line on a CPU, with very little of everything."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import flow
from tests.gpu import check, references

TOP = Path(__file__).resolve().parents[1]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("references") / "references.zip"
    made = run("tests.gpu.references", "--out", out, "--tiny")
    assert not made.returncode, made.stderr
    return out


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("part", ["", "dali"])
def test_every_check_goes_through_on_a_cpu(archive: Path, tmp_path: Path, part: str) -> None:
    done = run("tests.gpu.check", "--references", archive, "--out", tmp_path, "--tiny", f"--part={part}")
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    wrong = {name: row for name, row in found.items() if row["right"] is False}
    assert not wrong and not done.returncode, f"{wrong}\n{done.stderr}"
    assert list(found) == [one.name for one in check.CHECKS if part in one.parts]
    page = (tmp_path / "gpu-check.md").read_text()
    assert all(f"## {name}\n" in page for name in found)
    assert found["machine"]["figures"]["device"] == "cpu"


@pytest.mark.slow
def test_references_are_what_was_computed(archive: Path, tmp_path: Path) -> None:
    large, small = references.load(archive)
    assert (large.first.shape, large.step) == ((2, 20, 21), references.STEP)
    assert large.flow.shape == (2, 2, 5, 6) and small.flow.shape == (1, 2, 5, 7)
    assert np.isfinite(large.flow).all()
    store = references.unpack_store(archive, tmp_path)
    assert (store / "zarr.json").is_file()
    with zipfile.ZipFile(archive) as opened:
        assert not opened.testzip()


@pytest.mark.slow
def test_references_of_the_full_size_are_small_enough_to_carry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By few iterations, whose flow takes as many bytes; and every pair is as it was made."""
    create, few = flow.create, {"tvl1-cpu": references.FEW}
    monkeypatch.setattr(flow, "create", lambda name, **settings: create(name, **few.get(name, settings)))
    monkeypatch.setattr(sys, "argv", ["references", "--out", str(tmp_path / "references.zip")])
    references.main()
    assert "544 pairs and a store of 4 videos" in capsys.readouterr().out
    amounts = references.Amounts()
    for pairs, (size, count) in zip(
        references.load(tmp_path / "references.zip"),
        [(amounts.size, amounts.pairs), *((size, amounts.other_pairs) for size in amounts.others)],
        strict=True,
    ):
        first, second = references.made(size, count)
        np.testing.assert_array_equal(pairs.first, first)
        np.testing.assert_array_equal(pairs.second, second)


def chosen(name: str, seconds: float) -> check.Check:
    return check.Check(name, "none such", seconds)


def options(tmp_path: Path, **changed: object) -> argparse.Namespace:
    given = {"references": tmp_path / "none.zip", "tiny": False, "part": "", "wheels": None, "out": tmp_path}
    return argparse.Namespace(**{**given, **changed})


def test_a_check_that_ends_or_hangs_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = {"ends": "import sys; sys.exit(7)", "hangs": "import time; time.sleep(1000)"}
    popen = subprocess.Popen

    def instead(command: list[str], **settings: object) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", starts[command[command.index("--one") + 1]]], **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(check.subprocess, "Popen", instead)
    checks = [chosen("hangs", 0.5), chosen("ends", 60.0)]
    found = check._all(checks, options(tmp_path), tmp_path, {})
    assert found["hangs"]["words"] == "it was ended after its limit of 0 s" and found["hangs"]["right"] is False
    assert found["ends"]["words"] == "it ended with 7 and no result" and found["ends"]["right"] is False
    assert json.loads((tmp_path / "gpu-check.json").read_text()).keys() == found.keys()


def test_what_no_time_is_left_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "ALL_SECONDS", 0.0)
    found = check._all([chosen("late", 60.0)], options(tmp_path), tmp_path, {})
    assert found["late"]["words"] == "not run: no time was left" and found["late"]["right"] is None


def test_without_references_the_check_says_how_to_make_them(tmp_path: Path) -> None:
    done = run("tests.gpu.check", "--references", tmp_path / "none.zip", "--out", tmp_path)
    assert done.returncode == 2 and "make gpu-references" in done.stderr


def test_in_earnest_skipped_gpu_tests_are_failures(tmp_path: Path) -> None:
    assert check._environment(options(tmp_path), tmp_path)["REQUIRE_GPU"] == "1"
    assert check._environment(options(tmp_path, tiny=True), tmp_path)["TRITON_INTERPRET"] == "1"
