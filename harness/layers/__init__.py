"""Every value of an engine held against PyTorch, and where its error was made.

An opened target and a case go in; a :class:`harness.records.LayerReport` comes out.
"""

from __future__ import annotations

from harness.layers.inspection import judge_and_look, look
from harness.layers.observer import local_ratio, worst_first

__all__ = ["judge_and_look", "local_ratio", "look", "worst_first"]
