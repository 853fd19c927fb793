"""Networks of the package ptlflow: which there are, where their weights lie, and loading them without a download."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pipeline import environment, storage  # before torch, which reads what it sets

# isort: split
import jsonargparse
import torch

from pipeline.errors import UsageError


def names() -> list[str]:
    """The models that ptlflow has."""
    return _ptlflow().get_model_names()


def own_iterations(model: str) -> int | None:
    """Refinements of the flow that the model does unless told otherwise; None where it takes no such number."""
    parameters = inspect.signature(_ptlflow().get_model_reference(model).__init__).parameters
    return parameters["iters"].default if "iters" in parameters else None


def find_weights(model: str, weights: str, recorded: str | None) -> tuple[Path, str]:
    """The file of the weights and its sha256.

    `weights` is a name that ptlflow publishes, whose file is where torch.hub keeps downloads, or else a path. Raises
    UsageError for a file that is not there, with the addresses to download from, and for one whose digest is not
    `recorded`.
    """
    published = getattr(_ptlflow().get_model_reference(model), "pretrained_checkpoints", {})
    kept = Path(torch.hub.get_dir()) / "checkpoints"
    if weights in published:
        path = kept / published[weights].rpartition("/")[2]
        remedy = f"download {published[weights]} to there, or give the path of a file as weights"
    else:
        path = Path(weights)
        known = "; ".join(f"{name}: {address}" for name, address in published.items()) or "none"
        remedy = f"give the path of a file, or a name that ptlflow publishes, with its file in {kept}: {known}"
    if not os.path.isfile(path):
        raise UsageError(f'the weights "{weights}" of ptlflow\'s {model} are not here', where=str(path), remedy=remedy)
    digest = storage.file_digest(path)
    begins = re.search(r"-([0-9a-f]{8,})\.", path.name) if weights in published else None
    if begins and not digest.startswith(begins[1]):
        raise UsageError(f"the download is damaged: its sha256 is {digest}", where=str(path), remedy=remedy)
    if recorded not in (None, digest):
        raise UsageError(
            f"these are not the weights that the settings record: sha256 {digest}, recorded {recorded}",
            where=str(path),
            remedy="put the recorded file back; other weights need a store of their own",
        )
    return path, digest


@functools.lru_cache(maxsize=1)  # the estimator that resolves settings and the one that works share it
def load(model: str, iterations: int | None, path: Path, digest: str) -> Any:
    """The network with the weights in the file, on the CPU, ready to estimate. `digest` tells files at one path apart.

    Raises UsageError for a file that is not exactly this model's weights, and for a model that cannot be built here.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise nearly anything, and advise to run the code in them
        remedy = "see whether it is the right file, and whole; download it again"
        raise UsageError("this is no file of weights", where=str(path), remedy=remedy) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UsageError(
            'the file is not one of ptlflow\'s: it holds no "state_dict"',
            where=str(path),
            remedy="weights from elsewhere:"
            f' torch.save({{"state_dict": tensors named as in ptlflow\'s {model}}}, path)',
        )
    network = build(model, iterations)
    if difference := _difference(network.state_dict(), checkpoint["state_dict"]):
        raise UsageError(f"these are not weights of ptlflow's {model}: {difference}", where=str(path))
    network.load_state_dict(checkpoint["state_dict"], strict=True)
    for name in ("train_size", "train_avg_length"):  # what some models adapt themselves by
        if name in checkpoint.get("hyper_parameters", {}):
            setattr(network, name, checkpoint["hyper_parameters"][name])
    return network.eval()


def build(model: str, iterations: int | None) -> Any:
    """The network with random weights. Raises UsageError for a model that cannot be built here."""
    ptlflow = _ptlflow()
    # As ptlflow does it: some models cannot take their own defaults directly.
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ptlflow.get_model_reference(model), "model")
    settings = parser.parse_args([] if iterations is None else [f"--model.iters={iterations}"])
    try:
        with _quiet(), _no_download():
            network = ptlflow.get_model(model, args=settings)
    except (ImportError, ValueError) as error:  # some need packages that are not installed
        raise UsageError(f"ptlflow cannot build its {model} here: {error}") from error
    _correlate_in_float(network)
    return network


def _correlate_in_float(network: Any) -> None:
    """Products of features are summed and scaled in float32, as RAFT's authors do it, also under autocast: in half
    precision ptlflow's sums, which it scales afterwards, overflow. Where the model has RAFT's `CorrBlock`."""
    for kind in type(network).__mro__:
        module = sys.modules.get(f"{kind.__module__.rpartition('.')[0]}.corr")
        block = getattr(module, "CorrBlock", None)
        given = getattr(block, "corr", None)
        if block is None or given is None or hasattr(given, "in_float"):
            continue

        def corr(fmap1: torch.Tensor, fmap2: torch.Tensor, *others: Any, given: Any = given) -> torch.Tensor:
            with torch.autocast(fmap1.device.type, enabled=False):
                return given(fmap1.float(), fmap2.float(), *others)

        vars(corr)["in_float"] = True
        block.corr = staticmethod(corr)


def _difference(expected: dict[str, torch.Tensor], found: dict[str, Any]) -> str:
    """What of the expected tensors is missing, unknown or of another shape, with the first of each; "" if none is."""
    shapes = {name: getattr(value, "shape", None) for name, value in found.items()}
    parts = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": [name for name in expected if name in found and shapes[name] != expected[name].shape],
    }
    return ", ".join(f"{len(kind)} tensors {what} ({kind[0]})" for what, kind in parts.items() if kind)


@functools.cache
def _ptlflow() -> Any:
    """The package. Its first import takes all its models with it, six seconds.

    One of them asks faiss for a GPU as it is imported and dies with faiss-cpu; without faiss it goes on, and so it gets
    none.
    """
    environment.repair_torchvision()
    modules: dict[str, Any] = sys.modules
    absent = object()
    faiss = modules.get("faiss", absent)
    modules["faiss"] = None
    try:
        with _quiet():
            return importlib.import_module("ptlflow")
    finally:
        del modules["faiss"]
        if faiss is not absent:
            modules["faiss"] = faiss


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the models print and warn of while imported and built: extensions that no one here misses."""
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


@contextlib.contextmanager
def _no_download() -> Iterator[None]:
    """Some models fetch a backbone's weights while they are built, only for the file's to replace them: refuse that."""

    def refuse(url: str, dst: str, *_: Any, **__: Any) -> NoReturn:
        raise UsageError("the model wants a file that is not here", where=dst, remedy=f"download {url} to there")

    download = torch.hub.download_url_to_file
    torch.hub.download_url_to_file = refuse
    try:
        yield
    finally:
        torch.hub.download_url_to_file = download
