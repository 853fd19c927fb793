"""TV-L1's inner parts as compiled kernels: numba for CPUs (`inner`, `warp`, `median`), Triton for GPUs (`triton_*`).

The results of the former equal OpenCV's bit for bit, those of the latter nearly always. TV-L1's stop test and its warps
amplify a difference in the last bit until whole regions differ by a visible amount (specs/tvl1.md section 2), so the only
stable agreement is a complete one.
"""

from __future__ import annotations

from typing import Any

from numba import njit

# No bounds checks; the GIL is free while a kernel runs; the compiled code is kept beside the source (or in NUMBA_CACHE_DIR),
# so that a worker process loads it instead of compiling again. Additions are not reordered and not fused with products,
# except where `fma` says so. Arithmetic never meets a NaN: frames are bytes.
OPTIONS: dict[str, Any] = {
    "fastmath": {"nnan", "nsz"},
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
    "cache": True,
}

VECTOR = (
    8  # floats; rows are padded to a multiple, so that no loop ends with single pixels, which cost as much as vectors
)


@njit(forceinline=True, **OPTIONS)
def whole_vectors(width):  # pragma: no cover - compiled
    """The width that loops over rows take: the next multiple of VECTOR. What they write beyond the width is never used."""
    return (width + VECTOR - 1) // VECTOR * VECTOR
