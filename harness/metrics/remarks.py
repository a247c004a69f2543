"""What a metric says beside its number: which normaliser it used, or that its network has random weights.

A metric returns a bare number or tensor. What must be read with it is a remark, which whoever records the number
collects.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

_COLLECTED: ContextVar[list[str] | None] = ContextVar("harness_metric_remarks", default=None)


@contextlib.contextmanager
def collect_remarks() -> Iterator[list[str]]:
    """Collect the remarks of every metric computed in the block, each sentence once."""
    remarks: list[str] = []
    token = _COLLECTED.set(remarks)
    try:
        yield remarks
    finally:
        _COLLECTED.reset(token)


def remark(text: str, *, warn: bool = False) -> None:
    """Leave a remark with the metric that is being computed; with ``warn`` a warning where none are collected."""
    remarks = _COLLECTED.get()
    if remarks is None:
        if warn:
            warnings.warn(text, stacklevel=3)
    elif text not in remarks:
        remarks.append(text)
