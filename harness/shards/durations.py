"""How long tests of engines take, from the record of an earlier run."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.files import check_is_content
from harness.records import name_of

Name = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Seconds that an earlier run took to build and run, by subject, case, backend and precision."""

    seconds: Mapping[Name, float] = field(default_factory=dict)
    """Of all tests of that name, and of its engine the build, whether or not it was in the cache then."""
    sha256: str = ""
    """Of where they are from: shards that were split by other durations do not belong together. Empty without any."""
    words: str = "by count: no durations were given"

    def cost(self, names: Iterable[Name]) -> float:
        """Return the seconds of all of these; one that is not known counts as the median of those that are."""
        middle = statistics.median(self.seconds.values())
        return math.fsum(self.seconds.get(name, middle) for name in names)


def read_durations(path: Path | None) -> Durations:
    """Return the durations that a record holds; none where the file is not there, as before the first run.

    Raises UsageError for a file that is no record.
    """
    if path is None:
        return Durations()
    if not path.exists():
        return Durations(words=f"by count: there is no {path} yet")
    try:
        check_is_content(path)
        content = path.read_bytes()
        seconds = seconds_of(json.loads(content))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        what = f"{path} is no record of pytest --parity-json or parity verify --json"
        raise UsageError(f"{what} ({type(error).__name__}: {error}); give one") from error
    words = f"by {len(seconds)} durations of {path}" if seconds else f"by count: {path} holds no durations"
    return Durations(seconds=seconds, sha256=hashlib.sha256(content).hexdigest(), words=words)


def seconds_of(record: Any) -> dict[Name, float]:
    """Return what a recorded run took: all tests of a name, and its engine's build even if it was in the cache."""
    found: dict[Name, float] = {}
    for test in record.get("expected", []):
        if (took := test.get("seconds")) is not None:
            name = name_of(test)
            found[name] = found.get(name, 0.0) + float(took)
    built = set()
    for result in record["results"]:
        name, engine = name_of(result), result.get("engine")
        target = (name[0], *name[2:])
        if name in found and engine and engine["cached"] and target not in built:  # else its tests waited for the build
            built.add(target)
            found[name] += float(engine["build_s"])
    if not all(math.isfinite(one) and one >= 0 for one in found.values()):
        raise ValueError("a duration is below 0 or not finite")
    return found
