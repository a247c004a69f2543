"""Every value of an engine compared with PyTorch's, and where its error was made.

An opened target and a case go in; a :class:`harness.records.LayerReport` comes out.
"""

from __future__ import annotations

from harness.layers.comparison import compare_layers, judge_with_layers
from harness.layers.observer import local_ratio, worst_first

__all__ = ["compare_layers", "judge_with_layers", "local_ratio", "worst_first"]
