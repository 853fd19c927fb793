"""Files of weights of RAFT and ptlflow's other networks, and the settings of estimators that hold them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import flow
from pipeline.errors import UsageError
from pipeline.flow import raft
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline.random_weights import noise, save, small


@pytest.mark.remedy("give the path of a file, or a name that ptlflow publishes, with its")
def test_missing_weights_are_refused_with_their_address(
    hub: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError) as refused:
        flow.create("raft")
    assert 'the weights "things" of ptlflow\'s raft are not here' in str(refused.value)
    assert f"where: {hub / 'raft-things-802bbcfd.ckpt'}" in str(refused.value)
    assert "https://github.com/hmorimitsu/ptlflow/releases/download/weights1/raft-things-" in str(refused.value)
    with pytest.raises(UsageError) as refused:
        flow.create("raft-small", weights="mine.ckpt")
    for expected in ("where: mine.ckpt", "things: https://github.com/", str(hub)):
        assert expected in str(refused.value)
    small(weights)
    import ptlflow  # here, as `networks` must import it first

    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    model = ptlflow.get_model_reference("raft_small")
    monkeypatch.setattr(model, "pretrained_checkpoints", {"mine": f"https://example.org/mine-{digest[:8]}.ckpt"})
    (hub / f"mine-{digest[:8]}.ckpt").write_bytes(Path(weights).read_bytes())
    small("mine")


@pytest.mark.remedy("to there, or give the path of a file as weights")
def test_published_weights_are_found_where_torch_keeps_them(
    weights: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ptlflow  # here, as `networks` must import it first

    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    model = ptlflow.get_model_reference("raft_small")
    monkeypatch.setattr(model, "pretrained_checkpoints", {"things": f"https://example.org/small-{digest[:8]}.ckpt"})
    kept = hub / f"small-{digest[:8]}.ckpt"
    kept.write_bytes(Path(weights).read_bytes())
    found = flow.create("raft-small")
    assert (found.running["weights"], found.settings["digest"]) == ("things", digest)
    kept.write_bytes(Path(weights).read_bytes()[:-1])
    with pytest.raises(UsageError, match="the download is damaged"):
        flow.create("raft-small")
    assert flow.create("raft-small", weights=weights).settings["digest"] == digest
    kept.write_bytes(Path(weights).read_bytes())  # downloaded again
    assert flow.create("raft-small").settings["digest"] == digest


@pytest.mark.remedy("see whether it is the right file, and whole; download it again")
def test_files_that_are_no_weights_are_refused(weights: str, tmp_path: Path) -> None:
    whole, path = Path(weights).read_bytes(), tmp_path / "wrong.ckpt"
    for content in (b"", b"hello", whole[:-100], noise(1000).tobytes()):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="this is no file of weights"):
            small(str(path))
    path.write_bytes(whole)
    small(str(path))


ELSEWHERE = pytest.mark.remedy('weights from elsewhere: torch.save({"state_dict": tensors named as in ptlflow')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda state: [], 'holds no "state_dict"', marks=ELSEWHERE),
        pytest.param(lambda state: state, 'holds no "state_dict"', marks=ELSEWHERE),
        (lambda state: {"state_dict": dict(list(state.items())[1:])}, "1 tensors missing"),
        (lambda state: {"state_dict": {**state, "more": torch.zeros(1)}}, r"1 tensors unknown \(more\)"),
        (
            lambda state: {"state_dict": {name: value[..., None] for name, value in state.items()}},
            "tensors of another shape",
        ),
    ],
)
def test_weights_must_be_exactly_the_models(weights: str, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(change(torch.load(weights, weights_only=True)["state_dict"]), path)
    with pytest.raises(UsageError, match=message) as refused:
        small(str(path))
    assert str(path) in str(refused.value)
    torch.save({"state_dict": torch.load(weights, weights_only=True)["state_dict"]}, path)
    small(str(path))


def test_weights_of_another_model_are_refused(weights: str) -> None:
    with pytest.raises(UsageError, match=r"these are not weights of ptlflow's raft: \d+ tensors missing \("):
        flow.create("raft", weights=weights)


def test_settings_make_the_same_estimator_again(weights: str) -> None:
    estimator = flow.create("raft-small", weights=weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    assert estimator.settings == {"digest": digest, "iterations": 32, "precision": "fp32"}
    assert estimator.running == {"weights": weights, "batch_size": raft.ON_CPU, "device": None}
    again = flow.create(estimator.name, **json.loads(json.dumps({**estimator.settings, **estimator.running})))
    assert (again.settings, again.running) == (estimator.settings, estimator.running)


@pytest.mark.remedy("put the recorded file back; other weights need a store of their own")
def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    path = save("raft_small", tmp_path / "w.ckpt")
    before, frames, recorded = small(path), noise(2, 32, 48, 3), Path(path).read_bytes()
    save("raft_small", tmp_path / "w.ckpt", seed=1)
    with pytest.raises(UsageError, match=f"sha256 [0-9a-f]{{64}}, recorded {before.settings['digest']}"):
        flow.create("raft-small", **before.settings, **before.running)
    (tmp_path / "recorded.ckpt").write_bytes(recorded)
    put_back = before.running | {"weights": str(tmp_path / "recorded.ckpt")}
    assert flow.create("raft-small", **before.settings, **put_back).settings == before.settings
    after = small(path)
    assert after.settings["digest"] != before.settings["digest"]
    found = [estimator.estimate(frames[:1], frames[1:]) for estimator in (before, after)]
    assert not np.array_equal(*found)


def test_a_store_is_continued_with_the_same_weights_elsewhere_on_any_device(weights: str, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes(Path(weights).read_bytes())

    def resolved(**parameters: Any) -> ExtractionSettings:
        flow_settings = FlowSettings(estimator="raft-small", parameters=parameters)
        return ExtractionSettings({"rgb": RgbSettings(), "flow": flow_settings}).resolved()

    one = resolved(weights=weights, batch_size=4)
    two = resolved(weights=str(moved), batch_size=2, device="cpu")
    assert one.as_dict() == two.as_dict()
    assert one != two
    for settings, file in ((one, weights), (two, str(moved))):
        sent = json.loads(json.dumps(settings.as_dict(running=True)))  # as a worker gets it
        assert ExtractionSettings.from_dict(sent) == settings == settings.resolved()
        assert sent["flow"]["running"]["weights"] == file
    assert resolved(weights=weights, iterations=3).as_dict() != one.as_dict()


def test_the_settings_of_a_store_depend_on_the_weights(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    parameters = {"weights": str(path), "batch_size": 4}
    views = {"rgb": RgbSettings(), "flow": FlowSettings(estimator="ptlflow:raft_small", parameters=parameters)}
    hashes = set()
    for seed in (0, 1):
        save("raft_small", path, seed)
        resolved = ExtractionSettings(views).resolved()
        assert resolved.resolved() == resolved
        assert resolved.as_dict()["flow"]["estimator"] == "raft-small"
        hashes.add(settings_hash(resolved.as_dict()))
    assert len(hashes) == 2
