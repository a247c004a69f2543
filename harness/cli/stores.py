"""What is kept on disk: ``parity build`` makes engines, ``parity reference`` references, ``parity clean`` removes."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli.options import (
    add_cases,
    add_choice,
    add_command,
    add_computing,
    add_engine_cache,
    add_engines,
    add_subject,
    request_of,
    settings_of,
)


def add(commands: Any) -> None:
    """Add the commands."""
    build = add_command(commands, "build", _build, "build a subject's engines and print where they are")
    add_subject(build)
    add_choice(build)
    add_engine_cache(build)
    add_computing(build)
    reference = add_command(commands, "reference", _reference, "make or update a subject's stored references")
    add_subject(reference)
    add_cases(reference)
    add_computing(reference)
    add_engines(add_command(commands, "clean", _clean, "empty the engine cache"))


def _build(options: argparse.Namespace) -> int:
    from harness import verify
    from harness.errors import ParityError

    subject, targets, _ = request_of(options)
    built = 0
    for target, engine in verify.build_engines(subject, targets, settings_of(options)):
        if isinstance(engine, ParityError):
            print(f"{target}: not built: {engine}")
            continue
        built += 1
        origin = "cached" if engine.cached else f"built in {engine.build_s:.3g} s"
        print(f"{target}: {engine.path} ({engine.bytes / 2**20:.3g} MiB, {origin})")
    return 0 if built else 3


def _reference(options: argparse.Namespace) -> int:
    from harness import verify

    subject, _, cases = request_of(options)
    for path in verify.update_references(subject, cases, settings_of(options)):
        print(f"wrote {path}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from harness.backends import EngineCache
    from harness.reference import OutputCache

    settings = settings_of(options)
    cache = EngineCache(settings.engines, limit_bytes=settings.engine_cache_bytes)
    before = len(cache.entries())
    freed = cache.clear() + OutputCache(settings.engines / "outputs", enabled=True).clear()
    print(f"{settings.engines}: removed {before - len(cache.entries())} engines, freed {freed / 2**20:.3g} MiB")
    return 0
