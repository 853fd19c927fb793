"""A trained network with all that it must be shown: of a run of ours, or of a published file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train  # noqa: F401  (mends torchvision before anything imports it)

# isort: split
import numpy as np
from torch import Tensor, nn

from costream.shown import Clips, Windows, checked_windows, of_split
from eval import embed
from eval.runs import Stage
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.store import VideoStore, open_store
from train import augment, checkpoints, imported, provenance
from train.augment import ClipPlan, Draws
from train.clips.spec import ClipSpec
from train.clips.streams import Stream
from train.networks import network as networks
from train.reader import opencv
from train.reader.affine import normalise
from train.sampling import Sampling


@dataclass(frozen=True)
class Origin:
    """Where a network comes from. source: the run or file. stage: of the run. facts: of its checkpoint."""

    source: Path
    stage: str
    facts: Mapping[str, Any]


class Network(nn.Module):
    """A trained network of one stream, in evaluation mode, on the CPU; a Module like any other.

    `stream`: rgb or flow, say. `layer`: by whose rows videos are compared. `spec`, `sampling`: the clips that it was
    trained on. `inner`: backbone, pool and head (`train.networks.network.Network`). `origin`: where it comes from.
    """

    def __init__(
        self, inner: networks.Network, stream: str, layer: str, spec: ClipSpec, sampling: Sampling, origin: Origin
    ) -> None:
        super().__init__()
        self.inner, self.stream, self.layer = inner, stream, layer
        self.spec, self.sampling, self.origin = spec, sampling, origin
        self.eval()

    def forward(self, clips: Tensor) -> Tensor:
        """Rows of its layer, float32 (B, `size`), of normalised clips (B, C, T, h, w), as `clips` and `preprocess` give
        them. Raises ValueError for clips of another shape."""
        return self.inner.embed(clips, self.layer)

    @property
    def size(self) -> int:
        """Length of a row."""
        return self.inner.size(self.layer)

    @property
    def shown(self) -> Stream:
        """The view and the form in which it is given it."""
        return self.spec.stream(self.stream)

    @property
    def weights(self) -> int:
        """How many numbers were trained."""
        return sum(weight.numel() for weight in self.inner.parameters())

    def __repr__(self) -> str:
        shown = self.shown
        height, width = shown.size
        return (
            f"Network({type(self.inner.backbone).__name__} of {self.origin.source}, {self.weights:,} weights; shown"
            f" {shown.view} as {shown.input}, {shown.channels}x{self.spec.length}x{height}x{width}, every"
            f" {self.spec.stride}. frame; gives {self.size} numbers, layer {self.layer})"
        )

    def clips(
        self,
        store: VideoStore | str | os.PathLike[str],
        *,
        windows: Windows = "all",
        split: str | None = None,
        seed: int = 0,
        threads: int = 0,
    ) -> Clips:
        """Clips of a store as this network was evaluated on them; the arguments are those of `costream.clips`."""
        opened = store if isinstance(store, VideoStore) else open_store(store)
        policy = augment.policy("evaluate", crop=self.spec.crop)
        chosen = checked_windows(windows), of_split(opened, split)
        return Clips(opened, self.spec, self.sampling, [self.stream], policy, *chosen, seed, threads)

    def preprocess(self, frames: np.ndarray, settings: Mapping[str, Any] | None = None) -> Tensor:
        """All windows of a video that is given as an array, as network input: float32 (W, C, T, h, w).

        The same pixels as of a store that holds these very frames, bit for bit.

        Args:
            frames: as `VideoStore.read` gives the view: rgb uint8 (F, H, W, 3); of flow its bytes, uint8 (F, 2, H, W).
            settings: of that view, `store.settings[view]`, which say what the bytes of flow mean; by default those of
                the store that the network was trained on.

        Raises:
            ValueError: an array of another type or shape.
            UsageError: flow, without a store whose settings are known.
        """
        view, size = self.shown.view, self.shown.size
        told = dict(settings or (self.origin.facts.get("store_settings") or {}).get(view, {}))
        if not told and view != "rgb":
            raise UsageError(
                f"what the bytes of {view} mean is not known of this network",
                where="settings",
                remedy=f'store.settings["{view}"] of the store that they are from',
            )
        bound = self.shown.bound({view: told})
        frame = opencv.frame_size(frames, view)
        policy = augment.policy("evaluate", crop=self.spec.crop)
        plans = [
            ClipPlan(
                "", window, self.shown, policy.pixels({self.stream: bound}, frame, len(window), Draws(0))[self.stream]
            )
            for window in self.sampling.windows(self.spec, len(frames))
        ]
        made = opencv.clips_of(frames, view, told, plans, size)
        return normalise(made, augment.colour_maps(plans))


def load(source: str | os.PathLike[str], stream: str = "", *, stage: str = "", layout: str = "auto") -> Network:
    """A trained network with its preprocessing.

    Args:
        source: folder of a run, a checkpoint in it, or a file that the papers' authors published (CoCLR, ViCC, GOCA,
            SLIC, DPC, CoCon).
        stream: whose network, where there are several; of a published file, which does not say it, rgb or flow.
        stage: of a run, whose network; by default that of the last stage which trained the stream.
        layout: of a published file: auto, coclr, vicc, goca, slic, dpc or cocon.

    Raises:
        Refusal: no run, no checkpoint yet, a file that is none, or damaged.
        UsageError: a stream or stage that is not there, or several that could be meant.
    """
    path = Path(source)
    if path.is_dir():
        return _of_run(path, stream, stage)
    if not path.is_file():
        raise Refusal("there is no run and no file", where=str(path), remedy="the folder of a run, or a checkpoint")
    if path.suffix == ".ckpt":
        return _network(Stage(path.parent.parent.name, path, checkpoints.metadata(path)), path, stream)
    if not stream:
        raise UsageError(
            "a published file does not say of which stream it is", where="stream", remedy='stream="rgb", or "flow"'
        )
    with tempfile.TemporaryDirectory() as folder:
        imported.import_run({stream: path}, Path(folder) / "run", layout)
        return _of_run(Path(folder) / "run", stream, "", path)


def _of_run(run: Path, stream: str, stage: str, source: Path | None = None) -> Network:
    stages = embed.stages(run)
    if stage:
        if stage not in [one.name for one in stages]:
            refuse_unknown("stage", stage, [one.name for one in stages], where=str(run))
        return _network(next(one for one in stages if one.name == stage), source or run, stream)
    last = embed.last_stages(run)
    return _network(last[_chosen(stream, last, run)], source or run, stream or next(iter(last)))


def _chosen(stream: str, known: Mapping[str, Any], where: Path) -> str:
    if stream and stream not in known:
        refuse_unknown("stream", stream, known, where=str(where))
    if not stream and len(known) > 1:
        names = " or ".join(f'stream="{name}"' for name in known)
        raise UsageError("there are networks of several streams", where=str(where), remedy=names)
    return stream or next(iter(known))


def _network(stage: Stage, source: Path, stream: str) -> Network:
    method = checkpoints.load_method(stage.checkpoint)
    chosen = _chosen(stream, method.networks, stage.checkpoint)
    spec, sampling = provenance.clips_of(stage.metadata, stage.checkpoint)
    facts = {**stage.metadata, "checkpoint": checkpoints.digest(stage.checkpoint)}
    origin = Origin(source, stage.name, facts)
    return Network(method.networks[chosen], chosen, stage.metadata["layer"], spec, sampling, origin)
