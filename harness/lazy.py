"""Libraries that take long to import, each imported when it is first used.

``import onnx_ir`` takes 0.3 s and ``scipy.special`` 0.1 s; a run that finds all it needs in a cache needs neither.
``from harness.lazy import onnx_ir as ir`` stands in the place of ``import onnx_ir as ir``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["onnx", "onnx_ir", "special"]


class _Lazy(ModuleType):
    """Stands for a module, and imports it when a name of it is asked for."""

    module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if self.module is None:
            self.module = importlib.import_module(self.__name__)
        return getattr(self.module, name)


if TYPE_CHECKING:
    import onnx
    import onnx_ir
    from scipy import special
else:
    onnx = _Lazy("onnx")
    onnx_ir = _Lazy("onnx_ir")
    special = _Lazy("scipy.special")
