"""What an estimator says of itself, whatever it estimates."""

from __future__ import annotations

from typing import Any, ClassVar


class Estimator:
    """Computes what is stored of frames. Subclasses are dataclasses whose fields are the parameters."""

    name: ClassVar[str]
    RUNNING: ClassVar[frozenset[str]] = frozenset()  # fields that say how and where it computes, not what it finds
    software: ClassVar[tuple[str, ...]] = ()  # distributions, beside NumPy and OpenCV, whose version decides that

    @property
    def settings(self) -> dict[str, Any]:
        """Each parameter that decides what is found, by name: part of a store's settings, equal wherever it is
        continued."""
        return {key: value for key, value in self._fields().items() if key not in self.RUNNING}

    @property
    def running(self) -> dict[str, Any]:
        """The other parameters: they change what is found by the rounding of its last bits at most, and no store
        depends on them."""
        return {key: value for key, value in self._fields().items() if key in self.RUNNING}

    def open(self) -> None:
        """Get what it computes with in this process, such as weights. Raises UsageError where that, or its device, is
        not there. Most need nothing."""

    def _fields(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}
