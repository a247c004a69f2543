"""A wrong part of a graph as a folder that shows the fault without this harness."""

from __future__ import annotations

from harness.bisect.reproducer.folder import check_replaceable, write
from harness.bisect.reproducer.text import RUNTIMES, Spec

__all__ = ["RUNTIMES", "Spec", "check_replaceable", "write"]
