"""The Dockerfile, as far as it can be tried without Docker: linted, and held against the files that it speaks of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
TEXT = (TOP / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = dict(
    re.findall(r"^([A-Z]+) (.*)$", TEXT.replace("\\\n", ""), re.MULTILINE)  # the last one of each kind
)


def test_it_passes_the_linter() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if linter is None:
        pytest.skip("hadolint is not installed (pyproject.toml's dev has it)")
    done = subprocess.run([linter, TOP / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_its_python_is_one_that_the_project_takes() -> None:
    [version] = re.findall(r"^python:(\d+\.\d+)\.\d+-", INSTRUCTIONS["FROM"])
    with (TOP / "pyproject.toml").open("rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    assert f"Programming Language :: Python :: {version}" in classifiers


def test_make_installs_nothing_in_a_container_that_runs() -> None:
    """Both stamps are there, so whether or not a driver is seen, what was installed stays."""
    made = re.search(r"^override STAMP := \$\(VENV\)/(.*)\$\(FAISS\)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert made is not None
    assert f"make setup && cp .venv/{made[1]}cpu .venv/{made[1]}gpu" in TEXT
    assert INSTRUCTIONS["ENTRYPOINT"] == '["make"]'
    assert re.search(rf"^{INSTRUCTIONS['CMD'][2:-2]}: ", (TOP / "Makefile").read_text(), re.MULTILINE)


def test_what_git_ignores_is_not_copied() -> None:
    left_out = set((TOP / ".dockerignore").read_text().splitlines())
    for line in (TOP / ".gitignore").read_text().splitlines():
        assert left_out & {line.strip("/"), f"**/{line.strip('/')}"}, line


def test_it_names_no_host() -> None:
    """Packages come from wherever the machine that builds it is set up to take them."""
    assert not re.search(r"://|\w\.(com|io|org)\b", TEXT)
