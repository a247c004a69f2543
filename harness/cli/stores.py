"""What is kept on disk: ``parity build`` makes engines, ``parity reference`` references, ``parity clean`` removes."""

from __future__ import annotations

import argparse
from typing import Any

from harness import limits
from harness.arguments import days
from harness.cli.options import (
    add_cases,
    add_choice,
    add_command,
    add_computing,
    add_engines,
    add_shared,
    add_subject,
    request_of,
    settings_of,
)
from harness.settings import print_progress


def add(commands: Any) -> None:
    """Add the commands."""
    build = add_command(commands, "build", _build, "build a subject's engines and print where they are")
    add_subject(build)
    add_choice(build)
    add_shared(build, "--no-engine-cache")
    add_computing(build)
    reference = add_command(commands, "reference", _reference, "make or update a subject's stored references")
    add_subject(reference)
    add_cases(reference)
    add_computing(reference, builds=False)
    clean = add_command(commands, "clean", _clean, "empty the engine cache")
    add_engines(clean)
    clean.add_argument("--remote", action="store_true", help="empty the one that is shared with other runners instead")
    clean.add_argument(
        "--older-than", type=days, default=0.0, metavar="DAYS",
        help="only what was not used for so long; of the shared one, what was uploaded so long ago",
    )  # fmt: skip


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
        built_s = f"built in {engine.build_s:.3g} s"
        origin = f"from {engine.fetched_from}" if engine.is_fetched else "cached" if engine.cached else built_s
        print(f"{target}: {engine.path} ({engine.bytes / 2**20:.3g} MiB, {origin})")
    if late := limits.spent_budget():
        print_progress(late)
    return 3 if late or not built else 0


def _reference(options: argparse.Namespace) -> int:
    from harness import verify

    subject, _, cases = request_of(options)
    for path in verify.update_references(subject, cases, settings_of(options)):
        print(f"wrote {path}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from harness.backends import engine_cache
    from harness.errors import UsageError
    from harness.reference import OutputCache

    settings, older_s = settings_of(options), options.older_than * 24 * 3600
    cache = engine_cache(settings)
    if options.remote:
        if cache.remote is None:
            raise UsageError("no engine cache is shared with other runners; give --engines-remote URL")
        count, freed = cache.remote.clear(older_s=older_s)
        where = cache.remote.name
    else:
        before = len(cache.entries())
        freed = cache.clear(unused_s=older_s)
        for folder in () if older_s else ("outputs", "programs"):
            freed += OutputCache(settings.engines / folder, enabled=True).clear()
        count, where = before - len(cache.entries()), str(settings.engines)
    print(f"{where}: removed {count} engines, freed {freed / 2**20:.3g} MiB")
    return 0
