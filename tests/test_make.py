"""Variables of make are data: whatever they hold reaches the commands as it is, and nothing of it is run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
# fmt: off
ODD = [
    "2; touch ran", "$(shell touch ran)", "$(touch ran)", "`touch ran`", "$$(touch ran)", "${shell touch ran}",
    "a' ; touch ran; '", 'a"; touch ran; "', "a$$b", "a$b", "a b", "a  b ", "\\", "\\\"", "a\\", "#a", "a#b", "-a",
    "--help", "@a", "%", "a,b", "(a", "a)", "a\nb", "a:b=c", "é", "e\u0301", "\U0001f600", "*", "~",
    "& touch ran", "| touch ran", "> ran", "!!", "--",
]
TARGETS = {
    "manifest": "VIDEOS OUT DATASET SPLIT LISTS CLASSES", "annotate": "STORE MANIFEST NAME TEST_SHARE SEED",
    "status": "STORE SHOW",
    "extract-flow": "VIDEOS STORE DATASET SPLIT LISTS CLASSES MANIFEST VIEWS FLOW WORKERS SCHEDULER",
    "verify": "STORE", "bring": "FRAMES STORE FLOWS MANIFEST WORKERS", "preview": "STORE OUT",
    "export": "STORE VIDEO OUT VIEW", "preview-clips": "STORE METHOD RECIPE SEED OUT",
    "pretrain": "STORE RUN METHOD RECIPE SEED STEPS EPOCHS BATCH DEVICES MORE_STEPS", "evaluate": "RUN STORE",
    "finetune": "STORE RUN RECIPE OUT SEED STEPS EPOCHS BATCH DEVICES",
    "probe": "STORE RUN RECIPE OUT SEED", "compare": "RUNS OUT", "report": "RUNS STORE OUT", "tables": "RUNS OUT",
    "features": "VIDEOS RUN OUT STORE MANIFEST WORKERS", "search": "QUERY RUN STORE OUT",
    "duplicates": "RUN STORE OUT", "bench-methods": "STORE OUT", "remove": "STORE VIDEO",
    "gpu-references": "OUT VIDEOS", "gpu-check": "REFERENCES OUT PART WHEELS",
    "tensorboard": "RUN PORT",
}
# fmt: on
# Stands for the Python of the virtual environment: adds to `called` what it would be run with, as how many words and
# those.
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then
    code=$2
    shift 2
    exec {real} -S -c "import sys; sys.executable = '$0'
$code" "$@"
fi
printf '%s\\0' $# "$@" >> called
exit ${{CODE:-0}}
"""
# The same with a pip: `installed` lists packages, the last one that owns a module last.
PIP = """#!/bin/sh
exec {real} - "$@" <<'EOF'
import pathlib, re, runpy, sys, types
sys.path.insert(0, {top!r})
listed = pathlib.Path("installed")
there = listed.read_text().split()
arguments = sys.argv[1:]
if arguments[:2] == ["-m", "pip"]:
    named = [name for name in arguments[3:] if not name.startswith("-")]
    if arguments[2] == "uninstall":
        there = [name for name in there if name not in named]
    for name in named if arguments[2] == "install" else []:
        extra = re.search(r"\\[(cpu|gpu)", name)
        new = [f"faiss-{{extra[1]}}", "opencv-contrib-python", "opencv-python"] if extra else [name.partition("==")[0]]
        there += [name for name in new if name not in there or "--force-reinstall" in arguments]
    listed.write_text("\\n".join(there) + "\\n")
elif arguments[0] == "-c":
    cv2 = types.ModuleType("cv2")
    cv2.__version__, cv2.__file__ = "5", "cv2"
    if [name for name in there if name.startswith("opencv")][-1] == "opencv-contrib-python":
        cv2.optflow = None
    sys.modules["cv2"] = cv2
    from pipeline import environment
    environment.version = lambda name: "1" if name in there else None
    exec(arguments[1])
EOF
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where make runs: a copy of the Makefile, and a virtual environment that seems to be installed."""
    (tmp_path / "Makefile").write_bytes((TOP / "Makefile").read_bytes())
    for name in ("pyproject.toml", "pipeline/people/requirements.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(real=shlex.quote(sys.executable)))
    python.chmod(0o755)
    for kind in ("cpu", "gpu"):
        (tmp_path / ".venv" / f".installed-{kind}").touch()
    return tmp_path


def made(folder: Path, target: str, variables: dict[str, str], by_environment: bool = False) -> list[str]:
    """What `make TARGET NAME=VALUE...` runs Python with."""
    given = [] if by_environment else [f"{name}={value}" for name, value in variables.items()]
    environment = {"PATH": "/usr/bin:/bin", **(variables if by_environment else {})}
    done = subprocess.run(["make", target, *given], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (folder / "ran").exists()
    return called(folder)[-1]


def called(folder: Path) -> list[list[str]]:
    """What Python was run with so far."""
    words = iter((folder / "called").read_bytes().decode().split("\0")[:-1])
    return [[next(words) for _ in range(int(count))] for count in words]


@pytest.mark.parametrize(
    ("target", "by_environment"),
    [
        *((target, False) for target in TARGETS),
        *(
            pytest.param(target, True, marks=() if target in ("bring", "compare") else pytest.mark.slow)
            for target in TARGETS
        ),
    ],
)
def test_every_variable_of_every_target_is_data(folder: Path, target: str, by_environment: bool) -> None:
    names = TARGETS[target].split()
    words = {name: ODD[(7 * TARGETS[target].count("E") + 3 * place) % len(ODD)] for place, name in enumerate(names)}
    if "RUNS" in words:
        words["RUNS"] = shlex.join([words["RUNS"], "b c"])
    taken = made(folder, target, words, by_environment)
    values = [word.partition("=")[2] if word.startswith("--") and word != "--" else word for word in taken]
    for name, word in words.items():
        listed = {"RUNS": shlex.split, "VIDEO": lambda word: [word]}.get(name)
        wanted = [word] if listed is None else [word, json.dumps(listed(word))]
        assert set(wanted) & set(values), name


def test_every_odd_word_is_data(folder: Path) -> None:
    names = TARGETS["extract-flow"].split()
    for first in range(0, len(ODD), len(names)):
        words = ODD[first : first + len(names)]
        variables = dict(zip(names, [*words, *ODD], strict=False)) | {"ARGS": shlex.join(words)}
        taken = made(folder, "extract-flow", variables)
        assert taken[-len(words) :] == words
        values = [word.partition("=")[2] for word in taken[: -len(words)]]
        assert [word for word in words if word not in values] == []


def test_runs_and_options_are_split_as_a_shell_does(folder: Path) -> None:
    runs, options = "runs/a 'runs/b c' \"[d]\" $(shell touch ran) \\;", "--protocol coclr --x 'a b'"
    assert made(folder, "compare", {"RUNS": runs, "ARGS": options}) == [
        "-m", "eval", "compare", "--out=comparison.html", "--protocol", "coclr", "--x", "a b",
        '--runs=["runs/a", "runs/b c", "[d]", "$(shell", "touch", "ran)", ";"]',
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "strict", "ends"), [(3, "", 0), (3, "1", 2), (1, "", 2), (0, "", 0)])
@pytest.mark.parametrize("target", ["extract-flow VIDEOS=v STORE=s", "bring FRAMES=f STORE=s"])
def test_quarantine_is_no_failure_of_make(folder: Path, target: str, code: int, strict: str, ends: int) -> None:
    environment = {"PATH": "/usr/bin:/bin", "CODE": str(code), "STRICT": strict}
    done = subprocess.run(["make", *target.split()], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == ends
    assert ("warning: some videos are in quarantine" in done.stderr) == (code == 3 and not strict)


def test_an_id_that_begins_with_a_dash_is_exported(folder: Path) -> None:
    given = {"STORE": "s", "VIDEO": "-a", "OUT": "o.mp4", "ARGS": "--view flow"}
    assert made(folder, "export", given) == [
        "-m", "pipeline", "export", "--out=o.mp4", "--view", "flow", "--", "s", "-a",
    ]  # fmt: skip


def test_changes_of_a_recipe_are_split_as_a_shell_does(folder: Path) -> None:
    given = {"STORE": "s", "RUN": "r", "SET": "batch=16 'title=a b' stages.*.steps=3 x=$(shell touch ran)"}
    assert made(folder, "pretrain", given, by_environment=True)[-6:] == [
        "--set=batch=16", "--set=title=a b", "--set=stages.*.steps=3", "--set=x=$(shell", "--set=touch",
        "--set=ran)",
    ]  # fmt: skip


@pytest.mark.remedy("`make repair`, or: pip uninstall opencv", "`make repair`, or: pip uninstall faiss", told=True)
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_repair_puts_mixed_up_packages_right(folder: Path, kind: str) -> None:
    """With a pip that keeps a list of what is installed, where packages that own the same folder overwrite each
    other."""
    other = {"cpu": "gpu", "gpu": "cpu"}[kind]
    (folder / "pyproject.toml").write_bytes((TOP / "pyproject.toml").read_bytes())
    (folder / ".venv" / "bin" / "python").write_text(PIP.format(real=shlex.quote(sys.executable), top=str(TOP)))
    makefile = (folder / "Makefile").read_text()
    (folder / "Makefile").write_text(makefile.replace("/proc/driver/nvidia/version", str(folder / "driver")))
    if kind == "gpu":
        (folder / "driver").touch()
    (folder / "installed").write_text(f"opencv-contrib-python\nopencv-python\nfaiss-{kind}\nfaiss-{other}\n")
    python = str(folder / ".venv" / "bin" / "python")
    check = [python, "-c", "from pipeline import environment as e; e.require_optflow(); e.require_one_faiss()"]
    wrong = subprocess.run(check, cwd=folder, capture_output=True, text=True)
    assert "to do: `make repair`" in wrong.stderr
    done = subprocess.run(["make", "repair"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(check, cwd=folder).returncode == 0
    assert {f"faiss-{kind}", "opencv-contrib-python"} <= set((folder / "installed").read_text().split())
    assert [path.name for path in (folder / ".venv").glob(".installed-*")] == [f".installed-{kind}"]


@pytest.mark.parametrize("name", ["ARGS", "RUNS"])
def test_an_open_quotation_mark_is_told_fails(folder: Path, name: str) -> None:
    given = {"RUNS": "a", "ARGS": "b"} | {name: "a 'b"}
    words = [f"{key}={value}" for key, value in given.items()]
    done = subprocess.run(["make", "compare", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{name}= cannot be split into words" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["a b", "a:b", "$(shell touch ran)"])
def test_a_place_of_the_environment_that_make_cannot_name_is_refused_fails(folder: Path, place: str) -> None:
    done = subprocess.run(["make", "status", f"VENV={place}"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert "VENV= cannot hold" in done.stderr
    assert not (folder / "ran").exists()


def test_a_quotation_mark_that_is_open_is_told_and_closed(folder: Path) -> None:
    command = ["make", "extract-flow", "VIDEOS=a", "STORE=b", "ARGS=--views 'rgb"]
    done = subprocess.run(command, cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "close every quotation mark" in done.stderr
    assert made(folder, "extract-flow", {"VIDEOS": "a", "STORE": "b", "ARGS": "--views 'rgb'"})[-2:] == [
        "--views",
        "rgb",
    ]


def test_the_demo_takes_any_method(folder: Path) -> None:
    assert made(folder, "demo", {})[3:5] == ["--run=runs/demo", "--store"]
    for word in ("dpc", "a b;touch ran"):
        assert f"--run=runs/demo-{word}" in made(folder, "demo", {"METHOD": word})
        assert f"--run=runs/demo-{word}" in made(folder, "demo", {"METHOD": word}, by_environment=True)
