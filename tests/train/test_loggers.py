"""Weights & Biases and MLflow, by Lightning's loggers; in their place packages that write down what they are told."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH, Run, pretrain
from train import loggers

STAND_INS = {
    "mlflow": {
        "__init__.py": "def set_tracking_uri(uri): pass\n",
        "entities.py": """
class Metric:
    def __init__(self, key, value, timestamp, step):
        self.told = step, key, value

class Param:
    def __init__(self, key, value):
        self.told = key, value
""",
        "utils/__init__.py": "",
        "utils/mlflow_tags.py": "MLFLOW_RUN_NAME = 'mlflow.runName'\n",
        "tracking/__init__.py": """
import json, os, types, urllib.parse, urllib.request, pathlib

class MlflowClient:
    def __init__(self, uri):
        assert os.environ["MLFLOW_ALLOW_FILE_STORE"] == "true"  # the real one refuses a folder without it
        self.folder = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlparse(uri).path))
        self.folder.mkdir(parents=True, exist_ok=True)

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id=name, lifecycle_stage="active")

    def create_run(self, experiment_id, tags):
        run_id = f"run-{len(list(self.folder.iterdir()))}"
        (self.folder / run_id).write_text(json.dumps([experiment_id, tags]) + chr(10))
        return self.get_run(run_id)

    def get_run(self, run_id):
        assert (self.folder / run_id).is_file()
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id, experiment_id="costream"))

    def log_batch(self, run_id, metrics=(), params=()):
        with (self.folder / run_id).open("a") as file:
            for one in metrics:
                file.write(json.dumps(one.told) + chr(10))

    def set_terminated(self, run_id, status):
        pass
""",
        "tracking/context/__init__.py": "",
        "tracking/context/registry.py": "def resolve_tags(tags): return tags\n",
    },
    "wandb": {
        "__init__.py": """
import json, os, pathlib
from wandb.wandb_run import Run
run = None

def init(name, project, dir, id, resume, anonymous, group):
    global run
    run = Run(pathlib.Path(dir) / "wandb" / id, [project, {"mlflow.runName": name}])
    return run
""",
        "sdk/__init__.py": "",
        "sdk/lib.py": "class RunDisabled: pass\n",
        "wandb_run.py": """
import json, wandb

class Run:
    def __init__(self, path, begun):
        self.path, self.config = path, {}
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(begun) + chr(10))

    def log(self, values):
        step = values.pop("trainer/global_step")
        with self.path.open("a") as file:
            for key, value in values.items():
                file.write(json.dumps([step, key, value]) + chr(10))

    def finish(self):
        wandb.run = None
""",
        "../wandb-0.31.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: wandb\nVersion: 0.31.0\n",
    },
}


@pytest.fixture(params=STAND_INS)
def installing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packages are looked for; `<name>` is its name, and installing is to write it there."""
    place = tmp_path / "packages"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield place / request.param
    for module in [module for module in sys.modules if module.split(".")[0] == request.param]:
        del sys.modules[module]
    importlib.invalidate_caches()


@pytest.mark.remedy("or leave --logger out")
def test_figures_go_where_they_are_asked_to(
    store: VideoStore, tmp_path: Path, call: Run, installing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is written where it is not installed; a run that goes on is the same one there."""
    name, run = installing.name, tmp_path / "mine"
    later = IN_BATCH | {"name": "later", "steps": 1}
    recipe = runs.write(tmp_path / "recipe.yaml", runs.settings(IN_BATCH | {"steps": 3}, later))
    asked = pretrain(store.root, run, recipe, "--logger", name)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, name, None)
        code, _, errors = call(*asked)
    assert code == 2 and f"{name} is not installed" in errors and f"pip install 'costream[{name}]'" in errors
    assert not run.exists()

    for path, text in STAND_INS[name].items():
        (installing / path).resolve().parent.mkdir(parents=True, exist_ok=True)
        (installing / path).resolve().write_text(text)
    importlib.invalidate_caches()
    with runs.signalled(1):
        assert call(*asked)[0] == 143
    assert call(*asked)[0] == 0
    there = run / {"mlflow": "mlruns", "wandb": "wandb"}[name]
    assert len(list(there.iterdir())) == 2
    for stage in ("pixels", "later"):
        found = (there / (run / stage / f"{name}.txt").read_text().strip()).read_text().splitlines()
        begun, *told = map(json.loads, found)
        assert begun == [loggers.PROJECT, {"mlflow.runName": f"mine, {stage}"}]
        wanted = {(line["step"], key): value for line in runs.lines(run, stage) for key, value in line.items()}
        got = {(step, key): value for step, key, value in told if not key.endswith("_time")}
        assert got == {(step, key): value for (step, key), value in wanted.items() if key not in ("step", "epoch")}
        assert next((run / stage / "tensorboard").iterdir())
