"""A network for other code: weights, or the whole of it, beside what must be known to show it clips."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pipeline import storage
from pipeline.errors import Refusal, UsageError
from train import provenance
from train.checkpoints import digest, load_method, metadata, write
from train.clips.spec import ClipSpec
from train.networks.network import Network
from train.run_folder import RECIPE

LICENCE = (
    "The code is Apache-2.0. These weights have no licence of their own: that of the videos which they were trained on"
    " decides; of a network that was imported, that of its authors."
)


def export(path: Path, stream: str, out: Path) -> None:
    """Write the network of a stream for other code, with a JSON of all facts and a card for people beside it.

    The ending of `out` decides: .safetensors, the backbone's weights; .pt2, the network from normalised clips to the
    rows by which videos are compared, as a program of torch.export, for batches of any size, that needs no costream;
    any other, the backbone's weights as a torch state dict.

    Raises Refusal for a stream that the checkpoint has no network for, and what `load_method` raises.
    """
    facts_path, card_path = out.with_suffix(".json"), out.with_suffix(".md")
    if out in (facts_path, card_path) or out.is_dir():
        raise UsageError("this is no name for a file of weights", where=str(out), remedy="for example backbone.pt")
    method = load_method(path)
    if stream not in method.networks:
        raise Refusal(
            f"the checkpoint has no {stream} network", where=str(path), remedy=f"it has {', '.join(method.networks)}"
        )
    network = method.networks[stream]
    facts = {**metadata(path), "stream": stream, "checkpoint": digest(path), **method.hparams}
    spec, _ = provenance.clips_of(facts, path)
    weights = network.backbone.state_dict()
    if out.suffix == ".safetensors":
        _write(out, save({name: tensor.contiguous() for name, tensor in weights.items()}))
    elif out.suffix == ".pt2":
        _write_program(network, facts["layer"], spec, stream, out)
    else:
        write(weights, out)
    _write(facts_path, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())
    _write(card_path, card(network, facts, spec, path, out).encode())


class _Rows(nn.Module):
    """Clips -> the rows of one layer, which is all that a program has."""

    def __init__(self, network: Network, layer: str) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, clips: Tensor) -> Tensor:
        return self.network.embed(clips, self.layer)


def _write_program(network: Network, layer: str, spec: ClipSpec, stream: str, out: Path) -> None:
    shown = spec.stream(stream)
    clips = torch.zeros(2, shown.channels, spec.length, *shown.size)  # one alone would be taken for a constant
    whole = _Rows(network, layer).eval()
    with storage.writing("the program", out), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.export, about its own parts
        program = torch.export.export(whole, (clips,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f"{out.stem}.partial.pt2")  # torch asks for the ending
        try:
            torch.export.save(program, aside)
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with storage.writing("the file", path):
        storage.write_atomically(path, content)


def card(network: Network, facts: dict[str, Any], spec: ClipSpec, checkpoint: Path, out: Path) -> str:
    """What people ask of an exported network, as Markdown: what it must be shown, what it gives, where it is from."""
    stream, layer = facts["stream"], facts["layer"]
    shown = spec.stream(stream)
    height, width = shown.size
    how = "bilinearly, without smoothing" if spec.pixels == "ours" else "as published, by Pillow's bicubic filter"
    lines = [
        f"# {network.settings['backbone']}, {facts['method']}, {stream}",
        "",
        f"* File: `{out.name}`, {_loading(network, layer, out)}.",
        f"* Weights: {sum(weight.numel() for weight in network.parameters()):,} in the whole network,"
        f" {sum(weight.numel() for weight in network.backbone.parameters()):,} of them in its backbone.",
        f"* Shown: clips float32 (B, {shown.channels}, {spec.length}, {height}, {width}), channels, frames, height,"
        f" width; every {spec.stride}. frame of the view `{shown.view}` as its input `{shown.input}`.",
        f"* Frames: cut by `crop: {spec.crop}`, resized {how}.",
        *_normalisation(facts, spec, stream),
        f"* Each clip minus its own mean over time: {'yes, within' if network.temporal_centring else 'no'}.",
        f"* Gives: layer `{layer}`, {network.size(layer)} numbers; videos are compared by the mean over their windows.",
        f"* Trained: method {facts['method']}, stage {facts['stage']}, {facts['step']} steps, seed {facts['seed']},"
        f" recipe {facts['recipe_hash']}.",
        f"* Licence: {LICENCE}",
    ]
    recipe = checkpoint.parents[2] / RECIPE if len(checkpoint.parents) > 2 else Path(RECIPE)
    if recipe.is_file():
        lines += ["", "## Recipe", "", "```yaml", storage.read_text(recipe).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _loading(network: Network, layer: str, out: Path) -> str:
    if out.suffix == ".pt2":
        return f'`torch.export.load("{out.name}").module()(clips)` gives the rows of layer {layer}'
    made = f"`train.backbones.create({network.settings['backbone']!r}, in_channels={network.in_channels}, ...)`"
    return f"the state dict of the backbone, {made} with the settings in {out.with_suffix('.json').name}"


def _normalisation(facts: dict[str, Any], spec: ClipSpec, stream: str) -> list[str]:
    """The affine map from stored bytes, where the store's settings are known."""
    shown = spec.stream(stream)
    settings = facts.get("store_settings", {})
    if shown.view not in settings:
        return [f"* Normalised: statistics `{spec.statistics}` of images."]
    rows = shown.bound(settings).affine(False)
    listed = "; ".join(", ".join(f"{number:.6g}" for number in row) for row in rows)
    return [f"* Normalised: from the stored bytes b by M b + m; the rows of (M, m) are {listed}."]
