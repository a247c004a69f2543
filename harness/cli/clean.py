"""``parity clean``: the engine cache, emptied."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.cli.options import add_command, settings_of


def add(commands: Any) -> None:
    """Add the command."""
    clean = add_command(commands, "clean", run, "empty the engine cache")
    clean.add_argument("--engines", type=Path, metavar="DIR", help="the engine cache (PARITY_ENGINES)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness.backends import EngineCache
    from harness.reference import OutputCache

    settings = settings_of(options)
    cache = EngineCache(settings.engines, limit_bytes=settings.engine_cache_bytes)
    before = len(cache.entries())
    freed = cache.clear() + OutputCache(settings.engines / "outputs", enabled=True).clear()
    print(f"{settings.engines}: removed {before - len(cache.entries())} engines, freed {freed / 2**20:.3g} MiB")
    return 0
