"""What must be put right before torch, and before lightning or torchmetrics, is imported for the first time."""

from __future__ import annotations

import os

# OpenMP threads that spin while they wait make training 2 to 10 times slower on a machine that has other work to do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

_library: torch.library.Library | None = None  # the operators live as long as this handle does


def repair_torchvision() -> None:
    """Let torchvision import beside a CPU build of torch.

    torchvision's wheel carries operators compiled against CUDA torch; beside a CPU build they do not load, and its
    import dies with "operator torchvision::nms does not exist". lightning and torchmetrics import it whenever it is
    installed. Nothing here uses the two operators, so declaring them (without a kernel) is enough: calling one would
    still raise.
    """
    global _library
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
