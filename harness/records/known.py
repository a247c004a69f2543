"""A failure that the ledger knows: what its entry says, and whether what was found is no worse than that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.records.data import JsonRecord, Verdict
from harness.sentences import Sentence

KnownKind = Literal["wrong_answer", "refused", "crash", "device", "memory", "timeout", "regressed"]
"""How something fails: the failure classes of results, and a latency that got worse."""
KNOWN_KINDS: tuple[KnownKind, ...] = get_args(KnownKind)
NOT_LAUNCHED: tuple[KnownKind, ...] = ("crash",)
"""Engines that are known to fail so are not launched: they would take the process with them."""
MOST: dict[str, float] = {"wrong_answer": 10.0, "regressed": 1.5}
"""How bad a known failure may be where its entry does not say: times the limit, and times the baseline's latency."""


@dataclass(frozen=True, kw_only=True)
class Known(JsonRecord):
    """The entry of the ledger that names a result."""

    file: str
    """The ledger, below the repository."""
    entry: int
    """Its place in the file, from 1."""
    kind: KnownKind
    """How it is known to fail; ``regressed`` is about latency."""
    at_most: float | None
    """How many times its limit a wrong answer may lose (None: any, NaN too), or the largest ratio of a latency."""
    reason: str
    """Why it fails."""
    issue: str
    """The URL of its issue."""
    owner: str
    """Who mends it; empty where nobody is named."""
    expires: str
    """The last day on which it holds, ``2027-03-01``."""
    verdict: Verdict | Literal[""] = ""
    """The verdict without the ledger; empty where it was not launched."""
    why: str = ""
    """Why the entry does not hold: it passes, it is worse, its day is over; empty where it holds."""

    @property
    def covers(self) -> bool:
        """Whether there is a failure, and the entry covers it."""
        return not self.why and self.verdict in ("", "fail")


@dataclass(frozen=True, kw_only=True)
class Standing(JsonRecord):
    """An entry of the ledger, and how it came out in a run."""

    file: str
    """As in Known, as are the other fields that it has."""
    entry: int
    subject: str
    source: str
    """What declares the subject; empty where that is not known."""
    target: tuple[str, ...]
    """Targets or patterns."""
    case: tuple[str, ...]
    """Cases or patterns; empty for all."""
    part: tuple[str, ...] = ()
    """Parts of the model or patterns; empty where it is about the whole."""
    kind: KnownKind
    at_most: float | None
    reason: str
    issue: str
    owner: str
    expires: str
    days_left: int
    """Days until it expires; negative where it is expired."""
    expires_soon: bool
    """Whether that is in the next two weeks."""
    status: Literal["known", "failed", "not_reached"]
    """``known``: what it names fails as it says; ``failed``: it does not hold; ``not_reached``: nothing of it ran."""
    matched: int
    """How many targets and cases of the subject it names."""
    reached: int
    """How many of them were judged; where it is about parts, how many parts."""


def merged_standings(standings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each entry once, with the worst that became of it in several runs, and all that they reached of it."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for one in standings:
        key = (one["file"], one["entry"])
        known = found.setdefault(key, {**one, "reached": 0, "status": "not_reached"})
        known["reached"] += one["reached"]
        known["matched"] = max(known["matched"], one["matched"])
        known["status"] = min(known["status"], one["status"], key=("failed", "known", "not_reached").index)
    return [found[key] for key in sorted(found)]


def words_of_kind(kind: str) -> str:
    """Return ``wrong answer``: a kind of failure as it is read."""
    words = {
        "refused": Sentence("kind_refused"), "device": Sentence("kind_device"), "memory": Sentence("kind_memory"),
        "wrong_answer": Sentence("kind_wrong_answer"), "crash": Sentence("kind_crash"),
        "timeout": Sentence("kind_timeout"),
    }  # fmt: skip
    return words.get(kind, kind.replace("_", " "))


def failure_kind(result: Mapping[str, Any]) -> str:
    """Return how a result fails, one of KNOWN_KINDS; empty where it passes, and where no failure is known of it."""
    if result["verdict"] == "pass":
        return ""
    return str(result.get("failure") or ("wrong_answer" if result["verdict"] == "fail" else ""))


def why_worse(result: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return in what a failure is worse than its entry says, or another one; empty where the entry covers it.

    ``result`` and ``known`` are JSON of a Result, with the verdict that it has without the ledger, and of a Known.
    """
    found = failure_kind(result)
    if found != known["kind"]:
        was: str = words_of_kind(known["kind"])
        return (
            Sentence("known_otherwise", was=was, words_of_kind=words_of_kind(found))
            if found
            else Sentence("not_seen", was=was)
        )
    if found != "wrong_answer" or known["at_most"] is None:
        return ""
    times = times_limit(result)
    if math.isinf(times):
        return Sentence("not_held_at_most")
    allowed: float = known["at_most"]
    return Sentence("loses_times", times=times, allowed=allowed) if times > allowed else ""


def why_slower(comparison: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return in what a regression is worse than its entry says; empty where the entry covers it."""
    ratio: float | None = comparison["ratio"]
    allowed: float | None = known["at_most"]
    if allowed is None or (ratio is not None and ratio <= allowed):
        return ""
    return Sentence("slower_times", ratio=ratio or math.nan, allowed=allowed)


def times_limit(result: Mapping[str, Any]) -> float:
    """Return how many times its limit the worst figure of what failed loses.

    Infinity where an output is not finite, all zeros or constant where the reference is not, has no figure or a limit
    of 0, or fails although all of its figures are within their limits. A part of a model has the figure itself.
    """
    if "times_limit" in result:
        return math.inf if result["times_limit"] is None else float(result["times_limit"])
    cost = result.get("cost") or {"outputs": (), "metrics": ()}
    judged = (*result["outputs"], *cost["outputs"])
    outputs = (list(_of_output(output)) for output in judged if output["verdict"] == "fail")
    found = [worst if (worst := max(times, default=0.0)) > 1 else math.inf for times in outputs]
    metrics = (*result["metrics"], *cost["metrics"])
    found += [_of_metric(metric) for metric in metrics if metric["verdict"] == "fail"]
    return max(found, default=math.inf)


def _of_output(output: Mapping[str, Any]) -> Iterator[float]:
    if output.get("mismatched_nonfinite") and not output.get("nan_expected"):
        yield math.inf
    for sign in ("zero", "constant"):
        if output.get(f"{sign}_actual") and not output.get(f"{sign}_expected"):
            yield math.inf
    for part in output.get("parts", ()):
        yield _times(part["error"], part["allowed"])
    allowed = output.get("allowed", {})
    if "absolute" in output:
        largest = (output["absolute"] or {}).get("max")
        for name, error in (("relative_l2", output.get("relative_l2")), ("max_absolute", largest)):
            if name in allowed:
                yield _times(error, allowed[name])
        if "cosine" in allowed and output.get("cosine") is not None:
            yield _times(1 - output["cosine"], 1 - allowed["cosine"])
    elif output.get("decisions") and "max_absolute" in allowed:
        yield _times(output["decisions"]["largest"], allowed["max_absolute"])


def _of_metric(metric: Mapping[str, Any]) -> float:
    """Return how many times its limit a metric is off; infinity for one that is not finite."""
    actual, expected, allowed = metric["actual"], metric["expected"], metric["allowed"]
    if metric.get("bound", "difference") == "at_least":
        return _times(allowed, actual)
    if metric.get("bound") != "at_most" and expected is not None and actual is not None:
        actual -= expected
    return _times(actual, allowed)


def _times(error: float | None, allowed: float | None) -> float:
    """Return an error over its limit; a figure that is not finite is None in JSON."""
    if error is None or not math.isfinite(error) or not allowed:
        return math.inf if error != 0 else 0.0
    return abs(error) / abs(allowed)
