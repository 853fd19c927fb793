"""What a check is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Given:
    """references: the archive. scratch: a folder of the check's own. tiny: very little, to go through every line."""

    references: Path
    scratch: Path
    tiny: bool

    def few(self, many: int, few: int) -> int:
        return few if self.tiny else many


@dataclass
class Found:
    """right: whether what must hold holds; None where nothing must, and figures alone are told. words: of the page."""

    right: bool | None
    words: str
    figures: dict[str, Any] = field(default_factory=dict)
