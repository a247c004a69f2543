"""The parts that a reproducer's ``reproduce.py`` is made of; they import nothing of the harness."""

from __future__ import annotations

__all__ = []
