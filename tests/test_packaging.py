"""The wheel and the sdist hold all that a command needs, and the wheel runs from where it is unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PACKAGES = ("costream", "data_manifests", "eval", "pipeline", "train")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv.pop())"
LIST = (
    "import costream, eval, pipeline, train; from train import recipe;"
    " print(costream.__file__, len([recipe.load(p) for p in recipe.FOLDER.rglob('*.yaml')]))"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, of a copy of the sources; nothing is fetched."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in PACKAGES:
        shutil.copytree(TOP / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    for kind in ("wheel", "sdist"):
        made = [sys.executable, "-c", BUILD.format(kind), str(out)]
        subprocess.run(made, cwd=source, check=True, capture_output=True)
    return out


def wanted() -> set[str]:
    files = (path for name in PACKAGES for path in (TOP / name).rglob("*") if path.is_file())
    return {str(path.relative_to(TOP)) for path in files if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_file_of_the_packages(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        held = {name for name in content.namelist() if ".dist-info/" not in name}
        points = next(content.read(name).decode() for name in content.namelist() if name.endswith("entry_points.txt"))
    assert held == wanted()
    assert "costream = costream.__main__:main" in points
    assert "costream.jpeg = pipeline.views.codec:JpegCodec" in points


def test_the_sdist_holds_them_too(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        held = {name.partition("/")[2] for name in content.getnames()}
    assert held >= wanted() | {"pyproject.toml", "LICENSE"}


def test_the_wheel_runs_from_where_it_is_unpacked(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    there = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(tmp_path / "site")}, "text": True}
    listed = subprocess.run([sys.executable, "-m", "costream", "--help"], check=True, capture_output=True, **there)
    assert "pretrain" in listed.stdout
    found = subprocess.run([sys.executable, "-c", LIST], check=True, capture_output=True, **there)
    place, recipes = found.stdout.split()
    assert place.startswith(str(tmp_path / "site"))
    assert int(recipes) == len(list((TOP / "train" / "recipes").rglob("*.yaml")))
