"""Runs of GOCA: what is read, stopped and continued, handed on, imported and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from tests.train import batches, runs
from tests.train.stores import write_store
from tests.train.test_goca import SMALL
from train import checkpoints
from train.clips.spec import ClipSpec
from train.methods import settings_of
from train.methods.goca import GOCA
from train.methods.method import Method
from train.reader.jpeg import WindowDecoder
from train.sampling.multiscale import Multiscale

SAMPLING: dict[str, Any] = {"name": "multiscale", "longer": 2, "shorter": 2, "shorter_length": 2, "apart": 2}
SETTINGS = SMALL | {
    "head_settings": {"hidden": 8},
    "optimiser": {"name": "larc", "lr": 0.3, "schedule": "cosine", "warm_up": 1},
}
# Of three steps an epoch; a queue of 8 is full after two.
KINDS: dict[str, dict[str, Any]] = {
    "fixed prototypes, queue, prior from epoch 1": {"queue": 8, "prior_start": 1},
    "learned prototypes kept apart, as released": {"prototype_kind": "learned", "separation": 2.0, "prior_sign": -1},
}


def stage(name: str = "both", start: dict[str, str] | None = None, **settings: Any) -> dict[str, Any]:
    return {"name": name, "method": "goca", "steps": 6, "start": start or {}, "settings": SETTINGS | settings}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_continues_at_every_step(kind: str, store: VideoStore, tmp_path: Path) -> None:
    recipe = runs.load(tmp_path / "recipe.yaml", stage(**KINDS[kind]), sampling=SAMPLING)
    runs.run(recipe, store, tmp_path / "whole")
    for done in range(1, 6):
        runs.stop(recipe, store, tmp_path / "parts", done)
    runs.run(recipe, store, tmp_path / "parts")
    runs.assert_same_runs(tmp_path / "whole", tmp_path / "parts", "both")
    lines = runs.lines(tmp_path / "whole", "both")
    guided = [line["guidance_kl"] > 0 for line in lines]
    assert guided == ([False] * 3 + [True] * 3 if "prior_start" in KINDS[kind] else [True] * 6)
    method = checkpoints.load_method(runs.last(tmp_path / "whole", stage()))
    assert list(method.networks) == ["rgb", "flow"] and method.prototypes.weight.any()
    assert not hasattr(method, "queue") or method.queue.full


def test_a_second_stage_goes_on_from_the_first_with_heads_and_prototypes(store: VideoStore, tmp_path: Path) -> None:
    """Fixed prototypes too are those of the first stage: they are not placed anew."""
    second = stage("two", {"rgb": "one", "flow": "one"})
    recipe = runs.load(tmp_path / "recipe.yaml", stage("one"), second, sampling=SAMPLING)
    began: dict[str, torch.Tensor] = {}

    def keep(method: Method, batch: Any) -> None:
        if method.global_step == 0:
            began.update({name: tensor.clone() for name, tensor in method.state_dict().items()})

    with runs.in_step(keep):
        runs.run(recipe, store, tmp_path / "run")
    ended = runs.content(tmp_path / "run", "one")["state_dict"]
    handed = [name for name in began if name.startswith(("encoders.", "prototypes."))]
    assert handed and all(torch.equal(began[name], ended[name]) for name in handed)
    shared = settings_of("goca").model_validate(SETTINGS).starts
    assert shared["rgb"].takes == ("backbone", "head", "prototypes") and shared["flow"].takes == ("backbone",)
    own = settings_of("goca").model_validate(SETTINGS | {"shared_head": False}).starts
    assert own["flow"].takes == ("backbone", "head")


def test_networks_of_other_methods_are_a_start_with_fresh_heads_which_is_told(
    store: VideoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = runs.INFONCE["settings"]
    listed = [{"name": s, "method": "infonce", "steps": 1, "settings": small | {"stream": s}} for s in ("rgb", "flow")]
    for one in listed:
        one["settings"] = one["settings"] | {"optimiser": {"name": "sgd"}}  # type: ignore[operator]
    both = stage("both", {"rgb": "rgb", "flow": "flow"}, shared_head=False, head="coclr", head_settings={})
    recipe = runs.load(tmp_path / "recipe.yaml", *listed, both, sampling=SAMPLING)
    runs.run(recipe, store, tmp_path / "run")
    told = " ".join(capsys.readouterr().err.split())
    assert "rgb has no prototypes like this network's: rgb starts with a fresh one" in told


def test_clips_of_two_lengths_cost_what_their_frames_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the published lengths 2 x 32 + 4 x 16 = 128 frames of each view a sample, not 6 x 32 = 192; and of these each
    once, however many clips show it."""
    decoded: list[int] = []
    decode = WindowDecoder.__call__

    def counted(decoder: WindowDecoder, streams: Any) -> Any:
        decoded.extend([1] * len(streams))
        return decode(decoder, streams)

    monkeypatch.setattr(WindowDecoder, "__call__", counted)
    store = write_store(tmp_path / "store", {f"v{number}": (100, 20, 24) for number in range(2)})
    reads = {stream: tuple(range(6)) for stream in ("rgb", "flow")}
    loader = batches.make(
        store, batch=2, reads=reads, clips=ClipSpec(length=32, stride=2, size=(16, 16)), sampling=Multiscale()
    )
    plans = [loader.planner.plans(int(sample), 0) for sample in loader.order.samples(0)]
    shown = [{int(n) for clip in sample for n in clip[stream].frames} for sample in plans for stream in reads]
    [batch] = batches.epochs(loader, 1)
    lengths = [[clip.shape[2] for clip in batch.views(stream)] for stream in reads]
    assert lengths == [[32, 32, 16, 16, 16, 16]] * 2
    assert len(decoded) == sum(map(len, shown)) < 2 * 2 * (2 * 32 + 4 * 16)


def test_shorter_clips_that_are_too_short_for_the_backbone_are_refused_before_anything_runs(tmp_path: Path) -> None:
    clips = {"length": 32, "stride": 1, "size": [64, 64]}
    short = stage(backbone="s3d", backbone_settings={"width": 0.125})
    with pytest.raises(UsageError, match=r"(?s)4x64x64 .*too small for the backbone s3d.*clips"):
        runs.load(tmp_path / "recipe.yaml", short, clips=clips, sampling=SAMPLING | {"shorter_length": 4})


def test_the_method_reads_what_the_sampling_draws() -> None:
    assert GOCA.Settings.model_validate(SETTINGS).reads == {"rgb": (0, 1, 2, 3), "flow": (0, 1, 2, 3)}
    assert Multiscale().clips == settings_of("goca").model_fields["clips"].default
