"""The wheel and the sdist hold all that a command needs, and the wheel runs from where it is unpacked."""

from __future__ import annotations

import re
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


def test_the_wheel_runs_where_it_is_installed(built: Path, tmp_path: Path, synthetic_videos: Path) -> None:
    """In an environment of its own that sees this one's packages, from another folder."""
    [wheel] = built.glob("*.whl")
    place = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    [packages] = place.glob("lib/python*/site-packages")
    there = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
    subprocess.run(
        [place / "bin" / "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel], **there
    )
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    assert "pretrain" in subprocess.run([place / "bin" / "costream", "--help"], **there).stdout
    found = subprocess.run([place / "bin" / "python", "-c", LIST], **there)
    where, recipes = found.stdout.split()
    assert where.startswith(str(packages))
    assert int(recipes) == len(list((TOP / "train" / "recipes").rglob("*.yaml")))
    listed = ["manifest", "--videos", str(synthetic_videos), "--out", "list.csv", "--dataset", "synthetic"]
    subprocess.run([place / "bin" / "costream", *listed], **there)
    assert len((tmp_path / "list.csv").read_text().splitlines()) == 13


def test_the_documentation_names_the_wheel_and_the_pins(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    text = (TOP / "docs" / "index.md").read_text(encoding="utf-8")
    [contrib] = re.findall(r'"(opencv-contrib-python==[^"]+)"', (TOP / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"pip install 'dist/{wheel.name}[cpu]'\n" in text
    assert f"pip install --force-reinstall --no-deps {contrib}\n" in text
