"""Known traps of the packages, checked at start with a message that says how to repair them."""

from __future__ import annotations

import importlib.metadata
import platform

import cv2

from pipeline.errors import Refusal

RECORDED = ("costream", "numpy", "av", "opencv-contrib-python", "zarr", "torch", "lightning", "nvidia-dali-cuda130")


def require_optflow() -> None:
    """Raise Refusal when `cv2` is not contrib's: opencv-python, which ptlflow asks for, owns the same folder."""
    if not hasattr(cv2, "optflow"):
        raise Refusal(
            f"OpenCV {cv2.__version__} has no cv2.optflow: another OpenCV package was installed over contrib's",
            where=cv2.__file__,
            remedy="`make repair`, or: pip uninstall opencv-python opencv-python-headless; pip install --force-reinstall"
            " --no-deps opencv-contrib-python==5.0.0.93",
        )


def require_one_faiss() -> None:
    """Raise Refusal when both faiss-cpu and faiss-gpu are installed, or neither: they own the same module."""
    present = [name for name in ("faiss-cpu", "faiss-gpu") if version(name)]
    if len(present) != 1:
        raise Refusal(
            f"{'both faiss-cpu and faiss-gpu are' if present else 'neither faiss-cpu nor faiss-gpu is'} installed",
            remedy="`make repair`, or: pip uninstall faiss-cpu faiss-gpu, then install costream[cpu] or costream[gpu]",
        )


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions that are recorded with everything that is written."""
    found = {name: version(name) for name in RECORDED}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text}}
