"""The README and the documentation: their links lead somewhere, and their commands are understood, and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
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
from tests.test_make import called, folder, made
from train import recipe as recipes
from train.clips.spec import ClipSpec
from train.sampling.sampling import Sample, Sampling

TOP = Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", TOP / "data_manifests" / "README.md", *sorted((TOP / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- needs: ([^>]*) -->\n)?^([ ]*)```(\w*)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
COMMAND = ("make ", "python -m ", "costream ")
INLINE = re.compile(r"`((?:make|python -m|costream) [^`]*=[^`\s][^`]*)`")  # whole commands, not their names alone
NEEDS = {
    "videos without a split",
    "a data set",
    "a GPU",
    "a data set and a GPU",
    "a cluster",
    "an S3 bucket",
    "published files",
    "Docker and a GPU",
    "another environment",
}
# Targets that run no command, or several, and what runs those.
OF_MAKE = {
    "demo": "tests/test_docs.py",
    "docs": "tests/test_docs.py",
    "test": ".ci/run",
    "check": ".ci/run",
    "gpu-references": "tests/test_gpu_check.py",
    "gpu-check": "tests/test_gpu_check.py",
    "tensorboard": "tests/train/test_tensorboard.py",
}
HOURS = ("make bench-methods ",)  # that a command takes, which is what its page tells of it
COPY = folder  # a fixture: where make runs, with a Python that writes down what it would be run with

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(TOP)))


def lines_of(page: Path) -> Iterator[tuple[str, str]]:
    """Each command of a page, in blocks and in sentences, in order; and what its block says it needs."""
    text, end = page.read_text(encoding="utf-8"), 0
    for block in [*BLOCK.finditer(text), None]:
        for line in INLINE.findall(text[end : block.start() if block else None]):
            yield " ".join(line.split()), ""
        if block and block[3] == "sh":
            for line in block[4].strip().splitlines():
                if line.strip().startswith(COMMAND):
                    yield line.strip(), block[1]
        end = block.end() if block else end


@every_page
def test_every_line_of_a_shell_is_a_command_of_ours_or_says_what_it_needs(page: Path) -> None:
    for needs, _, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in text.strip().splitlines():
            if language == "sh":
                assert needs or line.strip().startswith(COMMAND), line
            elif not language:
                assert not line.strip().startswith((*COMMAND, "pip ", "docker ", "dask ", "export ")), line


@every_page
def test_extras_and_modules_that_sentences_name_are_there(page: Path) -> None:
    with (TOP / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    text = page.read_text(encoding="utf-8")
    for listed in re.findall(r"costream(?:-[\w.-]+\.whl)?\[([a-z0-9,]+)\]", text):
        assert set(listed.split(",")) <= set(extras), listed
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert (path := TOP / module.replace(".", "/")).is_dir() or path.with_suffix(".py").is_file(), module


def test_the_versions_of_python_are_the_same_everywhere() -> None:
    with (TOP / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    listed = [kind.rpartition(" ")[2] for kind in project["classifiers"] if " :: Python :: " in kind]
    first, last = (tuple(map(int, version.split("."))) for version in (listed[0], listed[-1]))
    assert project["requires-python"] == f">={listed[0]},<{last[0]}.{last[1] + 1}"
    assert f"not {first} <= sys.version_info[:2] <= {last} and" in (TOP / "Makefile").read_text()
    for page in ("README.md", "docs/index.md"):
        assert f"Linux, Python {listed[0]} to {listed[-1]}, about" in (TOP / page).read_text()


def test_the_citation_is_of_this_version() -> None:
    """Valid by the schema of the Citation File Format 1.2.0: what it asks for, and nothing that it does not know."""
    with (TOP / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    cited = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], cited["version"], cited["license"]) == (
        "1.2.0",
        project["version"],
        project["license"],
    )
    assert all(cited[key] for key in ("message", "title", "authors")) and all(one["name"] for one in cited["authors"])
    assert cited.keys() <= {"cff-version", "message", "title", "type", "authors", "version", "license"}


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
        if line.startswith("make ") and (target := line.split()[1]) in OF_MAKE:
            assert re.search(rf"^{target}: ", (TOP / "Makefile").read_text(), re.MULTILINE)
            assert target in (TOP / OF_MAKE[target]).read_text()
            continue
        argv = argv_of(line, COPY)
        if line.startswith(HOURS):
            assert (TOP / f"{argv[0].replace('.', '/')}.py").is_file()
        else:
            printed.understood(argv, monkeypatch)


CUT = {"steps": 1}
FIRST = [
    PAGES[0],
    *(TOP / "docs" / name for name in ("own-videos.md", "flow.md", "data-sets.md")),
]  # others use what they write


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_of_the_documentation_run(
    COPY: Path, synthetic_videos: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that need no data set, GPU or cluster, page by page, in one folder.

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
    ran = set()

    def run(*argv: str, line: str) -> None:
        argv = tuple(word.replace("=tvl1", "=dis") if word.startswith("--flow.estimator") else word for word in argv)
        assert printed.run(list(argv), monkeypatch) == 0, line

    for page in [*FIRST, *(page for page in PAGES if page not in FIRST)]:
        for line, needs in lines_of(page):
            if line in ran or line.startswith(HOURS):
                continue
            ran.add(line)
            if needs == "videos without a split":
                run("pipeline", "extract", f"--videos={synthetic_videos / 'train'}", "--store=unsplit", *DIS, line=line)
                run(*argv_of(line.replace("stores/mine", "unsplit"), COPY), line=line)
            elif line.startswith("make demo"):
                for argv in demo(line, COPY):
                    run(*argv, line=line)
            elif not needs and not (line.startswith("make ") and line.split()[1] in OF_MAKE):
                if "runs/other" in line:
                    if not (there / "runs" / "other").exists():
                        train = ("--method=vicc", "--recipe=small-real", "--store=stores/mine", "--run=runs/other")
                        run("train", "pretrain", *train, "--seed=1", line=line)
                    for name in ("mine", "other"):  # anew: pages before this one have changed the store
                        run("eval", "evaluate", f"--run=runs/{name}", "--store=stores/mine", line=line)
                run(*argv_of(line, COPY), line=line)
    text = (TOP / "docs" / "library.md").read_text(encoding="utf-8")
    code = "\n".join(code for _, _, language, code in BLOCK.findall(text) if language == "python")
    exec(compile(code, "library.md", "exec", dont_inherit=True), {})


DIS = ("--flow.estimator=dis", "--flow.short_side=48", "--rgb.short_side=48")


def demo(line: str, there: Path) -> list[list[str]]:
    """What `make demo` runs, with few videos."""
    (there / "called").unlink(missing_ok=True)
    made(there, "demo", dict(word.split("=", 1) for word in line.split()[2:]))
    listed = [words[1:] for words in called(there)]
    assert [argv[:2] for argv in listed] == [
        ["pipeline", "synthetic"],
        ["pipeline", "extract"],
        ["train", "pretrain"],
        ["eval", "evaluate"],
    ]
    listed[0] += ["--train_per_class=2", "--test_per_class=1"]
    return listed


@pytest.mark.slow
def test_the_documentation_is_built(tmp_path: Path) -> None:
    """As `make docs` does; strict, so that nothing is left open."""
    pytest.importorskip("mkdocs")
    built = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "docs")]
    done = subprocess.run(built, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docs" / "index.html").is_file()


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
            for name in {"queue", "prototypes"} & stage.get("settings", {}).keys():
                stage["settings"][name] = 4
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
    clips = sampling.draw(spec, Sample(1, np.array([9, 5]), 2), np.random.default_rng(0))
    assert [clip.frames.tolist() for clip in clips] == [[0, 2, 4, 4]] * 2
    assert sampling.least(spec) == 8
