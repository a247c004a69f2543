"""``parity build``: a subject's engines, and where they are."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli.options import (
    add_choice,
    add_command,
    add_computing,
    add_engine_cache,
    add_subject,
    request_of,
    settings_of,
)


def add(commands: Any) -> None:
    """Add the command."""
    build = add_command(commands, "build", run, "build a subject's engines and print where they are")
    add_subject(build)
    add_choice(build)
    add_engine_cache(build)
    add_computing(build)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
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
