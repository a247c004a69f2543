"""``python -m harness`` is ``parity``."""

from __future__ import annotations

from harness.cli import script

if __name__ == "__main__":
    script()
