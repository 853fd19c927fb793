"""What a check is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.references import FEW


@dataclass(frozen=True)
class Given:
    """references: the archive. scratch: a folder of the check's own. tiny: very little, to go through every line."""

    references: Path
    scratch: Path
    tiny: bool

    @property
    def flow(self) -> dict[str, Any]:
        """Settings of TV-L1, those that the references were made with."""
        return FEW if self.tiny else {}

    def few(self, many: int, few: int) -> int:
        return few if self.tiny else many


@dataclass
class Found:
    """right: whether what must hold holds; None where nothing must, and figures alone are told. words: of the page."""

    right: bool | None
    words: str
    figures: dict[str, Any] = field(default_factory=dict)
