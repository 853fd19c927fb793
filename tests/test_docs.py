"""The README and the documentation: their links lead somewhere, and their commands are understood, and run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline import flow, synthetic
from pipeline.store import VideoStore
from tests import printed
from tests.printed import argv_of
from tests.test_make import folder
from train import recipe as recipes
from train.clips.spec import ClipSpec
from train.sampling.sampling import Sampling

TOP = Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", TOP / "data_manifests" / "README.md", *sorted((TOP / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- needs: ([^>]*) -->\n)?^([ ]*)```(\w*)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
NEEDS = {
    "a trained run",
    "videos without a split",
    "a data set",
    "a GPU",
    "a data set and a GPU",
    "a cluster",
    "an S3 bucket",
    "published files",
}
OF_MAKE = {"demo", "test", "check", "docs", "setup", "gpu-references", "gpu-check"}  # which run no command, or several
COPY = folder  # a fixture: where make runs, with a Python that writes down what it would be run with

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(TOP)))


def lines_of(page: Path) -> Iterator[tuple[str, str]]:
    """Each command of a page's blocks, and what its block says it needs."""
    for needs, _, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "sh" or (not language and "make " in text):
            for line in text.strip().splitlines():
                if line.strip().startswith(("make ", "python -m ", "costream ")):
                    yield line.strip(), needs


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "gallery/")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.is_file(), target
        headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in map(slug, headings), target


def test_every_page_is_in_the_navigation() -> None:
    text = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (TOP / "docs").glob("*.md"))
    assert yaml.safe_load(text)["hooks"] == ["docs/made.py"]


@every_page
def test_every_command_is_understood_or_says_what_it_needs(
    page: Path, COPY: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets, variables, commands, options and their types: all but what the commands do."""
    for line, needs in lines_of(page):
        assert not needs or needs in NEEDS, needs
        if line.startswith("make ") and line.split()[1] in OF_MAKE:
            assert re.search(rf"^{line.split()[1]}: ", (TOP / "Makefile").read_text(), re.MULTILINE)
        else:
            printed.understood(argv_of(line, COPY), monkeypatch)


CUT = {"steps": 1}
WALK = (
    "own-videos.md",
    "flow.md",
    "data-sets.md",
    "bring-export.md",
    "library.md",
    "store.md",
    "results.md",
    "protocols.md",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_documentation_run(
    COPY: Path, synthetic_videos: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that need no data set, GPU or cluster, in the order of the pages, in one folder.

    Recipes have one step, and flow is DIS: TV-L1 would compile for longer than all the rest takes.
    """
    there = tmp_path_factory.mktemp("walk")
    shutil.copytree(synthetic_videos, there / "my-videos")
    (there / "my-videos" / "walk").mkdir()
    shutil.copy(next((synthetic_videos / "train").rglob("*.mp4")), there / "my-videos" / "walk" / "walk_0.mp4")
    (there / "new-videos").symlink_to(synthetic_videos / "test")
    clip = next((synthetic_videos / "test").rglob("*.mp4"))
    for name in ("clip.mp4", "video.mp4"):
        (there / name).symlink_to(clip)
    for name, number in (("A.png", 0), ("B.png", 1)):
        frames = synthetic.video(synthetic.CLASSES[0], 0, frames=2, height=64, width=64)
        flow_picture(there / name, frames[number])
    shorten(there / "recipes", monkeypatch)
    monkeypatch.chdir(there)
    for page in WALK:
        for line, needs in lines_of(TOP / "docs" / page):
            if needs or "runs/other" in line and not (there / "runs" / "other").exists():
                continue
            package, *words = argv_of(line, COPY)
            words = [word.replace("=tvl1", "=dis") if word.startswith("--flow.estimator") else word for word in words]
            assert printed.run([package, *words], monkeypatch) == 0, line


def flow_picture(path: Path, frame: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(path), frame[..., ::-1])


def shorten(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipes that come along, with one step a stage, clips of four frames and batches of few videos."""
    for path in recipes.FOLDER.rglob("*.yaml"):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        data["batch"] = 4
        data["clips"].update(length=4, stride=2)
        for stage in data["stages"]:
            stage.pop("epochs", None)
            stage.update(CUT)
            if "queue" in stage.get("settings", {}):
                stage["settings"]["queue"] = 4
        copy = there / path.relative_to(recipes.FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps(data))
    monkeypatch.setattr(recipes, "FOLDER", there)


def example(heading: str) -> dict[str, Any]:
    """What the code below a heading of `developing.md` defines."""
    text = (TOP / "docs" / "developing.md").read_text(encoding="utf-8")
    code = text.partition(f"## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, heading, "exec", dont_inherit=True), names)
    return names


def test_the_code_of_the_library_page_runs(
    synthetic_store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "mine").symlink_to(synthetic_store.root)
    monkeypatch.chdir(tmp_path)
    text = (TOP / "docs" / "library.md").read_text(encoding="utf-8")
    for needs, _, language, code in BLOCK.findall(text):
        if language == "python" and not needs:
            exec(compile(code, "library.md", "exec", dont_inherit=True), {})
    assert "(20, 48, 64, 3) (19, 2, 48, 64) torch.Size([3, 8, 32, 32])" in capsys.readouterr().out


def test_the_estimator_of_the_documentation_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    made_estimator = example("A flow estimator")["PhaseShift"]
    monkeypatch.setattr(sys.modules[__name__], "PhaseShift", made_estimator, raising=False)
    monkeypatch.setitem(flow.ESTIMATORS, "phase-shift", f"{__name__}:PhaseShift")
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (64, 64), dtype=np.uint8)
    found = flow.create("phase-shift").estimate(frame[None], np.roll(frame, (2, -3), axis=(0, 1))[None])
    assert found.shape == (1, 2, 64, 64)
    assert np.allclose(found[0, :, 0, 0], [-3, 2], atol=0.1)
    assert flow.choose("phase-shift", largest=1.0).settings["largest"] == 1.0


def test_the_sampling_of_the_documentation_draws() -> None:
    sampling: Sampling = example("A sampling")["Beginning"]()
    spec = ClipSpec(length=4, stride=2, size=(16, 16))
    clips = sampling.draw(spec, 1, np.array([9, 5]), 2, np.random.default_rng(0))
    assert [clip.frames.tolist() for clip in clips] == [[0, 2, 4, 4]] * 2
    assert sampling.least(spec) == 8
