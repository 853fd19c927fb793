"""Networks of the package MediaPipe, run by LiteRT on a CPU core.

MediaPipe's wheel carries them as TensorFlow Lite files; of the package itself nothing is imported, as what it asks for
(NumPy 1, an OpenCV of its own) contradicts what costream needs. Both packages are under the Apache License 2.0
(docs/methods.md 1.7). They are pinned in `requirements.txt` beside this module, which `make setup` installs without
what they ask for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import called, storage
from pipeline.errors import UsageError

SOFTWARE = ("ai-edge-litert", "mediapipe")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
MODELS = "mediapipe/modules"  # in the distribution mediapipe


def find(model: str, recorded: str | None, view: str) -> str:
    """The sha256 of a model's file. Raises UsageError where it, or what runs it, is not installed, and where its digest
    is not `recorded`."""
    path = _path(model, view)
    digest = storage.file_digest(path)
    if recorded not in (None, digest):
        raise UsageError(
            f"this is not the model that the settings record: sha256 {digest}, recorded {recorded}",
            where=str(path),
            remedy=f"`{install()}` puts the pinned one there; another model needs a store of its own",
        )
    return digest


def install() -> str:
    """The command that installs what the models need."""
    return f"pip install --no-deps {' '.join(REQUIREMENTS.read_text().split())}"


def _path(model: str, view: str) -> Path:
    try:
        for name in SOFTWARE:
            found = importlib.metadata.distribution(name)
        path = Path(str(found.locate_file(f"{MODELS}/{model}")))
        if path.is_file():
            return path
        raise importlib.metadata.PackageNotFoundError(f"{name} with the file {path}")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"the view {view} is estimated by a model of MediaPipe, and {error.args[0]} is not installed",
            remedy=f"{called.repair()}`{install()}`; or bring what you have: `--{view}.estimator files`",
        ) from error


class Network:
    """One model, on one core: workers are processes, and there are as many of them as cores. (A batch of 8 frames takes
    89 % of the time of one after the other; at 2 to 14 ms a frame that is not worth the memory.)

    Its threads share nothing, for LiteRT's interpreters may not be shared.
    """

    def __init__(self, model: str, view: str) -> None:
        self._path = _path(model, view)
        self._of_thread = threading.local()

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """What the network gives for one image (h, w, 3), in the order of its outputs, without the batch."""
        if not hasattr(self._of_thread, "interpreter"):
            self._of_thread.interpreter = _interpreter(self._path)
        interpreter = self._of_thread.interpreter
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None].astype(np.float32))
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]


def _interpreter(path: Path) -> Any:
    with _quiet():
        interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


_standard_error = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without LiteRT's line on the delegate it made, which no setting of it turns off, in the progress of a run."""
    with _standard_error, open(os.devnull, "w") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -80, 80)))
