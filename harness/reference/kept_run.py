"""What one run of a graph computed, for further runs that compute their first values alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

KEPT_BYTES = 2**30
"""The values that are kept hold at most this much; those behind are computed in each run."""


class KeptRun:
    """The values of the first run that is given it, in the order of the graph, as far as there is room."""

    def __init__(self) -> None:
        self._values: dict[Node, Any] = {}
        self._dtypes: dict[Node, torch.dtype | None] = {}
        self._bytes = 0
        self.is_filling = True

    def add(self, node: Node, value: Any, dtype: torch.dtype | None) -> None:
        """Keep what a node gave in a dtype; after the first that there is no room for nothing is kept."""
        self._bytes += sum(it.nbytes for it in tree_leaves(value) if isinstance(it, torch.Tensor))
        if self._bytes > KEPT_BYTES or getattr(node.target, "run_graphs", None):  # bodies have dtypes of their own
            self.is_filling = False
        if self.is_filling:
            self._values[node], self._dtypes[node] = value, dtype

    def before_first_other(self, dtypes: Mapping[Node, torch.dtype | None]) -> dict[Node, Any]:
        """Return the values up to the first that a run with these dtypes by node computes in another dtype."""
        found: dict[Node, Any] = {}
        for node, value in self._values.items():
            if dtypes[node] != self._dtypes[node]:
                break
            found[node] = value
        return found
