"""The time of every kernel of an engine."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from harness.backends import ProfileSession, Session
from harness.errors import NotJudged


def kernel_times(session: Session, inputs: Mapping[str, torch.Tensor], *, runs: int = 20) -> list[tuple[str, float]]:
    """Return the median milliseconds of every kernel (or node) over the runs, in execution order.

    A name that a run has twice stays twice. Raises NotJudged where the backend has no profiler, or its profiles of
    several runs do not name the same kernels.
    """
    if not isinstance(session, ProfileSession):
        raise NotJudged("this backend has no profiler; the time of single kernels is known of trt, rtx and ort-*")
    profiles = session.profile(inputs, runs=runs)
    if not profiles or not profiles[0]:
        raise NotJudged("the profiler reported no kernel")
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for profile in profiles:
        for key, ms in _numbered(profile):
            times[key].append(ms)
    if uneven := next((name for (name, _), found in times.items() if len(found) != len(profiles)), None):
        raise NotJudged(f"the profiler reported {uneven!r} in some runs and not in others: their times have no median")
    return [(name, statistics.median(found)) for (name, _), found in times.items()]


def _numbered(profile: Sequence[tuple[str, float]]) -> list[tuple[tuple[str, int], float]]:
    """Return the times by name and occurrence: a kernel in a loop has one name and several times."""
    seen: dict[str, int] = defaultdict(int)
    numbered = []
    for name, ms in profile:
        numbered.append(((name, seen[name]), ms))
        seen[name] += 1
    return numbered
