"""PyTorch as a backend: the exported program run op by op in the wanted precision. Its result is the floor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from harness.backends.base import BuildReport, BuildRequest, Session
    from harness.settings import Settings


class TorchBackend:
    """Builds no engine: :mod:`harness.verify` runs the exported program itself."""

    name = "torch"
    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16", "bf16")
    tap_modes: tuple[str, ...] = ("outputs",)

    def unavailable(self) -> str | None:
        """Return None: without PyTorch there is no reference either."""
        return None

    def cannot_run(self) -> str | None:
        """Return None: PyTorch runs on the CPU too."""
        return None

    def version(self) -> str:
        """Return PyTorch's version."""
        from importlib.metadata import version

        return version("torch")

    def cache_key(self) -> Mapping[str, str]:
        """Return the version; nothing is cached."""
        return {"version": self.version()}

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Raise: there is no engine file."""
        self._no_engine()

    def load(self, engine: Path) -> Session:
        """Raise: there is no engine file."""
        self._no_engine()

    def _no_engine(self) -> NoReturn:
        raise TypeError("the torch backend has no engine files; verify runs the exported program itself")
