"""Known traps of the packages: put right here, or checked at start with a message that says how to repair them."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from typing import Any

import cv2

from pipeline import called
from pipeline.errors import Refusal

# OpenMP threads that spin while they wait make training 2 to 10 times slower on a machine that has other work to do.
# Read when torch is loaded, so this module is imported before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RECORDED = (
    "costream",
    "numpy",
    "av",
    "numba",
    "opencv-contrib-python",
    "zarr",
    "torch",
    "lightning",
    "ptlflow",
    "nvidia-dali-cuda130",
    "ai-edge-litert",
    "mediapipe",
)

_library: Any = None  # torchvision's missing operators live as long as this handle does


def repair_torchvision() -> None:
    """Let torchvision import beside a CPU build of torch. Before the first import of lightning, torchmetrics or
    ptlflow.

    torchvision's wheel carries operators compiled against CUDA torch; beside a CPU build they do not load, and its
    import dies with "operator torchvision::nms does not exist". The three import it whenever it is installed. Nothing
    here uses the two operators, so declaring them (without a kernel) is enough: calling one would still raise.
    """
    global _library
    import torch  # here, as most of what imports this module has no use for it

    if _library is not None or torch.version.cuda is not None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def require_optflow() -> None:
    """Raise Refusal when `cv2` is not contrib's: opencv-python, which ptlflow asks for, owns the same folder."""
    if not hasattr(cv2, "optflow"):
        raise Refusal(
            f"OpenCV {cv2.__version__} has no cv2.optflow: another OpenCV package was installed over contrib's",
            where=cv2.__file__,
            remedy=f"{called.repair()}pip uninstall opencv-python opencv-python-headless;"
            " pip install --force-reinstall --no-deps opencv-contrib-python==5.0.0.93",
        )


def require_one_faiss() -> None:
    """Raise Refusal when both faiss-cpu and faiss-gpu are installed, or neither: they own the same module."""
    present = [name for name in ("faiss-cpu", "faiss-gpu") if version(name)]
    if len(present) != 1:
        raise Refusal(
            f"{'both faiss-cpu and faiss-gpu are' if present else 'neither faiss-cpu nor faiss-gpu is'} installed",
            remedy=f"{called.repair()}pip uninstall faiss-cpu faiss-gpu, then install costream[cpu] or costream[gpu]",
        )


@functools.cache
def version(distribution: str) -> str | None:
    """The version of a distribution that this process found, or None; what it has loaded does not change later."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions that are recorded with everything that is written."""
    found = {name: version(name) for name in RECORDED}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text}}
