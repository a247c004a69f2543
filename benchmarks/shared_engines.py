"""What a shared engine cache saves: two runners with caches of their own and one folder, each run a fresh process.

    python -m benchmarks.shared_engines                        # TensorRT for RTX, whose engines are built without a GPU
    python -m benchmarks.shared_engines --subjects benchmarks.subjects:CLIP --backend rtx --precision fp16

``parity build`` is timed as a whole, imports and export included, and the engine alone: its build, or its download with
its checksum. Exit status: 0, or 1 where a run failed or its engine did not come from where it should.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.process import python_child

SUBJECTS = ("benchmarks.subjects:SMALL_CLIP", "benchmarks.subjects:SMALL_UNET", "benchmarks.subjects:CLIP")
RUNS = (("runner 1 builds", "one", "read-write", "built"), ("runner 2 fetches", "two", "read", "remote"),
        ("runner 2 again", "two", "read", "cached"))  # fmt: skip


def main() -> int:
    """Print one line per subject and run; return the exit status."""
    options = parse()
    status = 0
    print(f"{options.backend} {options.precision}, {os.cpu_count()} CPU cores\n")
    print(f"{'subject':<34}{'run':<20}{'engine MB':>10}{'engine s':>10}{'command s':>11}  origin")
    for subject in options.subjects:
        with tempfile.TemporaryDirectory() as name:
            for words, runner, mode, expected in RUNS:
                started = time.monotonic()
                engine = run(subject, options, Path(name) / runner, Path(name) / "shared", mode)
                wall_s = time.monotonic() - started
                wrong = "" if engine["origin"] == expected else f", not {expected}"
                status = 1 if wrong else status
                figures = f"{engine['bytes'] / 1e6:>10.1f}{engine['engine_s']:>10.2f}{wall_s:>11.1f}"
                print(f"{subject.rpartition(':')[2]:<34}{words:<20}{figures}  {engine['origin']}{wrong}", flush=True)
    return status


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=SUBJECTS)
    parser.add_argument("--backend", default="rtx")
    parser.add_argument("--precision", default="fp16")
    return parser.parse_args()


def run(subject: str, options: argparse.Namespace, folder: Path, shared: Path, mode: str) -> dict[str, Any]:
    """Return what one runner says of its engine."""
    folder.mkdir(exist_ok=True)
    result = folder / "engine.json"
    arguments = (subject, options.backend, options.precision, str(folder / "engines"), str(result))
    command, environment = python_child("benchmarks.shared_engines", "--runner", *arguments)
    environment |= {"PARITY_ENGINES_REMOTE": str(shared), "PARITY_ENGINES_REMOTE_MODE": mode}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def runner(subject: str, backend: str, precision: str, engines: str, result: str) -> None:
    """Build an engine or get it; write where it came from and what it took."""
    from harness import Settings, Target
    from harness.backends import EngineCache
    from harness.discovery import find_subject
    from harness.verify import build_engines

    spent, get = [0.0], EngineCache.get

    def timed(self: EngineCache, *arguments: Any, **options: Any) -> Any:
        started = time.monotonic()
        try:
            return get(self, *arguments, **options)
        finally:
            spent[0] += time.monotonic() - started

    EngineCache.get = timed  # type: ignore[method-assign]
    settings = Settings(engines=Path(engines))
    ((_, engine),) = build_engines(find_subject(subject), [Target(backend, precision)], settings)
    if isinstance(engine, Exception):
        raise engine
    info = engine.info()
    data = {"origin": info.origin, "bytes": info.bytes, "engine_s": spent[0]}
    Path(result).write_text(json.dumps(data), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--runner"]:
        runner(*sys.argv[2:])
    else:
        sys.exit(main())
