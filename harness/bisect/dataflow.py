"""Which values of a graph are computed from which, and how near they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from harness.graph import order, plain_model, used_values
from harness.lazy import onnx_ir as ir


class Dataflow:
    """The computed values of a graph's main level and what each one reads; constants are left out."""

    def __init__(self, model: ir.Model) -> None:
        model = plain_model(model)
        self.order = order(model)
        """In dataflow order."""
        self._places = {name: place for place, name in enumerate(self.order)}
        self._reads: dict[str, list[str]] = {}
        self._readers: dict[str, list[str]] = defaultdict(list)
        for node in model.graph:
            reads = [name for name in (str(value.name) for value in used_values(node)) if name in self._places]
            for made in (str(value.name) for value in node.outputs if value.name):
                self._reads[made] = reads
                for name in reads:
                    self._readers[name].append(made)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return values in dataflow order, each once."""
        return sorted(set(names), key=self._places.__getitem__)

    def upstream(self, name: str, known: Collection[str]) -> list[str]:
        """Return the values between ``name`` and the known ones before it, with ``name``: where its error was made."""
        found: set[str] = set()
        pending = [name]
        while pending:
            value = pending.pop()
            if value in self._places and value not in found:
                found.add(value)
                pending += [read for read in self._reads[value] if read not in known]
        return self.in_order(found)

    def nearest(self, name: str, *, first: Collection[str] = (), without: Collection[str] = ()) -> list[str]:
        """Return the values connected to ``name``, itself first, then those of ``first``, then by distance.

        At one distance what it is computed from comes before what reads it. ``without`` is passed around.
        """
        found = {name: None}
        level = [name]
        while level:
            before = [read for value in level for read in self._reads[value]]
            behind = [reader for value in level for reader in self._readers[value]]
            level = [
                value for value in dict.fromkeys((*before, *behind)) if value not in found and value not in without
            ]
            found.update(dict.fromkeys(level))
        return sorted(found, key=lambda value: (value != name, value not in first))

    def pieces(self, names: Sequence[str]) -> list[list[str]]:
        """Return the connected pieces of a part, the largest first, each in dataflow order."""
        left, pieces = set(names), []
        while left:
            piece, pending = set(), [next(iter(left))]
            while pending:
                value = pending.pop()
                if value in left:
                    left.discard(value)
                    piece.add(value)
                    pending += [*self._reads[value], *self._readers[value]]
            pieces.append(self.in_order(piece))
        return sorted(pieces, key=lambda piece: (-len(piece), self._places[piece[0]]))
