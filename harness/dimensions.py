"""A dynamic dimension as a suite writes it: a symbol, or what follows from one, such as ``4*frames`` or ``past+1``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_FORM = re.compile(r"(?:([1-9]\d*)\s*\*\s*)?([^\W\d]\w*)(?:\s*([+-])\s*(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """``factor * symbol + offset``."""

    symbol: str
    factor: int = 1
    offset: int = 0

    def size(self, of_symbol: int) -> int:
        """Return the size where the symbol has this one."""
        return self.factor * of_symbol + self.offset

    def of_symbol(self, size: int) -> int | None:
        """Return the size of the symbol where the dimension has this one; None where no whole number gives it."""
        number, rest = divmod(size - self.offset, self.factor)
        return None if rest else number


def dimension(text: object) -> Dimension | None:
    """Return what a text says; None where it says none, as None itself: such a dimension is left to the exporter."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    factor, symbol, sign, offset = found.groups()
    return Dimension(symbol=symbol, factor=int(factor or 1), offset=int(f"{sign or ''}{offset or 0}"))


def dimensions(dynamic: Mapping[str, Mapping[int, str | None]]) -> Iterable[tuple[str, int, Dimension]]:
    """Yield input, axis and what its size is of all dimensions that are not left to the exporter."""
    for name, dims in dynamic.items():
        for axis, text in dims.items():
            if (found := dimension(text)) is not None:
                yield name, axis, found


def declared_shape(shape: Sequence[int], dims: Mapping[int, str | None], *, unknown: str) -> tuple[int | str, ...]:
    """Return a shape with what is declared of it; ``unknown`` stands for what is left to the exporter."""
    return tuple(size if axis not in dims else dims[axis] or unknown for axis, size in enumerate(shape))
