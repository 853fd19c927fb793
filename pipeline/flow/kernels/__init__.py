"""TV-L1's inner parts as compiled kernels: numba for CPUs (`inner`, `warp`, `median`), Triton for GPUs (`triton_*`).

The results of the former equal OpenCV's bit for bit, those of the latter nearly always. TV-L1's stop test and its warps
amplify a difference in the last bit until whole regions differ by a visible amount (docs/methods.md 1.1), so the only
stable agreement is a complete one.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

VECTOR = (
    8  # floats; rows are padded to a multiple, so that no loop ends with single pixels, which cost as much as vectors
)

# No bounds checks; the GIL is free while a kernel runs. Additions are not reordered and not fused with products, except
# where `fma` says so. Arithmetic never meets a NaN: frames are bytes.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"nnan", "nsz"},
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
}


def kernel(function: Callable) -> Any:
    """Compile at the first call and keep the result, so that other processes load it instead of compiling again.

    It is kept beside the source, or where the user may write, or in NUMBA_CACHE_DIR.
    """
    usual = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = ",".join(f"{__name__}.{kind.__name__}" for kind in (_Given, _InTree, _UserWide))
    try:
        return njit(cache=True, **_OPTIONS)(function)
    finally:
        config.CACHE_LOCATOR_CLASSES = usual


def part(function: Callable) -> Any:
    """A part of kernels, which becomes part of their code."""
    return njit(forceinline=True, **_OPTIONS)(function)


def lean(function: Callable) -> Any:
    """A part that takes no memory and does not count who holds arrays: where it calls others for every few bytes, that
    counting is half of the time."""
    return njit(forceinline=True, _nrt=False, **_OPTIONS)(function)


def reordered_part(function: Callable) -> Any:
    """A part whose additions may be done in any order, which makes vector code of a sum."""
    return njit(forceinline=True, **{**_OPTIONS, "fastmath": True})(function)


@part
def whole_vectors(width):  # pragma: no cover - compiled
    """The width of loops over rows: the next multiple of VECTOR. What they write beyond the width is never used."""
    return (width + VECTOR - 1) // VECTOR * VECTOR


class _EverySource:
    """numba takes compiled code for fresh if the function's file is the same; ours holds functions of other files."""

    def get_source_stamp(self) -> tuple[Any, str]:
        return super().get_source_stamp(), sources_digest(Path(self._py_file).parent)


class _Given(_EverySource, UserProvidedCacheLocator):
    pass


class _InTree(_EverySource, InTreeCacheLocator):
    pass


class _UserWide(_EverySource, UserWideCacheLocator):
    pass


@functools.cache
def sources_digest(folder: Path) -> str:
    """Of the sources of all kernels here and of those in a folder."""
    digest = hashlib.sha256()
    for place in (Path(__file__).parent, folder):
        for path in sorted(place.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
