"""Accuracies in the history: what a run found goes in, and the trend of every output over runs comes out."""

from __future__ import annotations

import math
import platform
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from harness.code_version import code_sha256
from harness.history.history import History, open_history
from harness.history.ratio_changes import ratio_changes
from harness.machine import key_of, user_name
from harness.records import (
    LIBRARIES,
    Acceptance,
    AccuracyPoint,
    AccuracyRun,
    AccuracyTrend,
    OutputAccuracy,
    RatioChange,
    VersionChange,
    name_of,
    run_id,
)

Json = Mapping[str, Any]
Seconds = Mapping[tuple[str, ...], float]
"""By subject, case, backend and precision."""
WINDOW = 100
"""Runs of a series that a trend is made of: the newest."""
UNKNOWN = "unknown"
"""The device of an engine that did not run."""
_IS_FLOOR = "torch"
"""The backend whose result is the floor itself: its ratio is always 1."""
_PACKAGES = ("torch", "onnx", "onnxscript")
_WORTH = ("not_judged", "pass", "fail")
"""Verdicts of which the last counts where one run has several."""
_NEAR = (0, -1, 1, -2, 2, -3, 3)
"""Runs from a change at which versions are looked for: noise hides where a level began."""


def record_accuracy(
    results: Iterable[Json], environment: Json, *, seconds: Seconds | None = None, url: str | None = None, folder: Path
) -> tuple[list[AccuracyTrend] | None, tuple[str, ...]]:
    """Add what a run found to the history, all of it or nothing; return the trends of its outputs, and notes.

    There are no trends, None, while the database is down: what is recorded waits for it. ``results`` are as in the JSON
    of the run; those of the ``torch`` backend are left out. ``seconds`` is what each took, by its name. Raises
    UsageError or NotJudged, in one sentence, where nothing could be recorded.
    """
    runs = accuracy_runs(results, environment, seconds)
    if not runs:
        return [], ()
    with open_history(url, folder=folder) as history:
        history.add_all(runs)
        if not history.readable:
            return None, history.notes
        here = {(run.benchmark, run.machine_key) for run in runs}
        found = accuracy_trends(history, benchmarks=sorted({run.benchmark for run in runs}))
        return [trend for trend in found if (trend.benchmark, trend.machine_key) in here], history.notes


def accuracy_runs(results: Iterable[Json], environment: Json, seconds: Seconds | None = None) -> list[AccuracyRun]:
    """Return the records of what a run found, one of each engine and case; ``seconds`` is what each took."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    judged = (result for result in results if result["backend"] != _IS_FLOOR)
    return [_record(result, environment, now, (seconds or {}).get(name_of(result))) for result in judged]


def _record(result: Json, environment: Json, now: str, seconds: float | None) -> AccuracyRun:
    known = result.get("known") or {}
    verdict: Any = known["verdict"] or "not_judged" if result["verdict"] == "known" else result["verdict"]
    source = result["provenance"] or {}
    place, cpu = source.get("device") or UNKNOWN, str(environment.get("cpu") or "CPU")
    kind = {"cpu": cpu} if place == "CPU" else {"gpu": place}
    hashes = [source.get("weights_sha256", ""), source.get("inputs_sha256", "")]
    hashes += [mask] if (mask := source.get("valid_sha256")) else []  # other elements are another series
    return AccuracyRun(
        id=uuid.uuid4().hex, recorded_at=now, run=run_id(),
        **{name: result[name] for name in ("subject", "case", "backend", "precision", "source", "plan_source")},
        machine_key=key_of(kind), device=cpu if place == "CPU" else place, verdict=verdict, seconds=seconds,
        reason="" if verdict == "pass" else result["reason"],
        model=key_of({"model": hashes}) if source else "",
        weights=source.get("weights", ""), inputs=source.get("inputs", ""), sample=result["generated"],
        engine_sha256=(result["engine"] or {}).get("sha256", ""),
        commit=source.get("commit") or environment.get("commit") or "", host=platform.node(),
        versions=_versions(result["backend"], environment, on_gpu=place not in ("CPU", UNKNOWN)),
        outputs=tuple(map(_output, result["outputs"])),
    )  # fmt: skip


def _versions(backend: str, environment: Json, *, on_gpu: bool) -> dict[str, str]:
    """Return the versions that may change an accuracy."""
    packages = environment.get("packages") or {}
    of_backend = (environment.get("backends") or {}).get(backend) or {}
    found = {LIBRARIES.get(backend, backend): of_backend.get("version")}
    found |= {"driver": environment.get("driver"), "CUDA": environment.get("cuda")} if on_gpu else {}
    found |= {name: packages.get(name) for name in _PACKAGES}
    found["trt-parity"] = f"{packages.get('trt-parity') or UNKNOWN} (code {code_sha256()[:8]})"
    return {name: str(version) for name, version in found.items() if version}


def _output(output: Json) -> OutputAccuracy:
    floor = (output["floor"] or {}).get("relative_l2")
    limit = output["allowed"].get("relative_l2")
    error = None if output.get("mismatched_nonfinite") else output.get("relative_l2")
    figures = [value if value is not None and math.isfinite(value) else None for value in (error, floor, limit)]
    error, floor, limit = figures
    return OutputAccuracy(name=output["name"], verdict=output["verdict"], error=error, floor=floor, limit=limit)


def accuracy_trends(history: History, *, benchmarks: Sequence[str] | None = None) -> list[AccuracyTrend]:
    """Return the trend of every output of every series, or of some, by subject, case, target and output."""
    series: dict[tuple[str, str], list[AccuracyRun]] = {}
    for run in history.accuracies(WINDOW, benchmarks=benchmarks):
        series.setdefault((run.benchmark, run.machine_key), []).append(run)
    accepted = history.newest_acceptances(sorted({benchmark for benchmark, _ in series}))
    found = [trend for key, runs in series.items() for trend in _trends(runs, accepted.get(key))]
    return sorted(found, key=lambda one: (one.subject, one.case, one.backend, one.precision, one.benchmark))


def accept_rises(history: History, trends: Sequence[AccuracyTrend], why: str, commit: str = "") -> None:
    """Let the trends of these series begin anew with their newest run. Raises UsageError without a reason."""
    wanted = {(trend.benchmark, trend.machine_key) for trend in trends}
    newest = {}
    for run in history.accuracies(1, benchmarks=sorted({benchmark for benchmark, _ in wanted})):
        newest[run.benchmark, run.machine_key] = run
    for key in sorted(wanted):
        history.accept_accuracy(newest[key], why, user_name(), commit)


def _trends(records: Sequence[AccuracyRun], acceptance: Acceptance | None) -> list[AccuracyTrend]:
    """Return the trends of one series, from the run on whose level was accepted; ``records`` are oldest first."""
    runs = _one_of_each(records)
    if acceptance is not None:
        first = next((one.run for one in records if one.id in acceptance.sessions), None)
        since = (i for i, one in enumerate(runs) if one.run == first or one.recorded_at > acceptance.accepted_at)
        runs = runs[next(since, len(runs) - 1) :]
    names = dict.fromkeys(output.name for run in reversed(runs) for output in run.outputs)
    why = acceptance.why if acceptance else ""
    return [replace(_trend(runs, name), accepted=why) for name in names or [""]]


def _one_of_each(records: Sequence[AccuracyRun]) -> list[AccuracyRun]:
    """Return the records without those that another try of the same run and commit outweighs, oldest first."""
    found: dict[tuple[str, str], AccuracyRun] = {}
    for record in records:
        known = found.get((record.run, record.commit), record)
        if _WORTH.index(record.verdict) >= _WORTH.index(known.verdict):
            found[record.run, record.commit] = record
    return sorted(found.values(), key=lambda one: (one.recorded_at, one.id))


def _trend(runs: Sequence[AccuracyRun], name: str) -> AccuracyTrend:
    """Return the trend of one output; only what passed is held against what passed before."""
    rows = [(run, output) for run in runs for output in (_named(run, name),) if output is not None or not run.outputs]
    points = tuple(
        AccuracyPoint(
            run=run.run, recorded_at=run.recorded_at, ratio=output.ratio if output else None,
            verdict=output.verdict if output else run.verdict,
        )
        for run, output in rows
    )  # fmt: skip
    passed = [i for i, one in enumerate(points) if one.verdict == "pass" and one.ratio is not None]
    ratios = [points[i].ratio or 0.0 for i in passed]
    held = [rows[i][0] for i in passed]
    changes = tuple(_described(one, held, passed) for one in ratio_changes(ratios, [run.host for run in held]))
    newest, verdicts = rows[-1][0], [one.verdict for one in points]
    limits = [one.limit / one.floor for _, one in rows if one is not None and one.limit is not None and one.floor]
    return AccuracyTrend(
        **{field: getattr(newest, field) for field in (
            "subject", "case", "backend", "precision", "source", "plan_source", "benchmark", "machine_key", "device",
            "model", "weights", "inputs",
        )},
        output=name, points=points, failed=verdicts.count("fail"), not_judged=verdicts.count("not_judged"),
        first=ratios[0] if ratios else None, median=median(ratios) if ratios else None,
        last=ratios[-1] if ratios else None,
        limit=limits[-1] if limits else None,
        change_points=changes, creeps=bool(changes) and changes[-1].after > changes[-1].before,
    )  # fmt: skip


def _named(run: AccuracyRun, name: str) -> OutputAccuracy | None:
    return next((output for output in run.outputs if output.name == name), None)


def _described(change: RatioChange, runs: Sequence[AccuracyRun], places: Sequence[int]) -> RatioChange:
    """Return a change among runs that passed with its time, what changed there, and its place among all points."""
    at = change.index
    changed, away = _extras(runs[at - 1], runs[at]), 0
    for off in _NEAR:
        if 1 <= at + off < len(runs) and (found := _differences(runs[at + off - 1].versions, runs[at + off].versions)):
            changed, away = (*found, *(changed if off == 0 else ())), off
            break
    return replace(
        change, index=places[at], recorded_at=runs[at].recorded_at, run=runs[at].run, changed=changed, runs_away=away
    )


def _extras(before: AccuracyRun, after: AccuracyRun) -> tuple[VersionChange, ...]:
    """Return what differs of two runs besides versions; empty names are not known and do not differ."""
    names = {"engine": "engine_sha256", "host": "host", "commit": "commit"}
    old, new = ({name: getattr(run, field) for name, field in names.items()} for run in (before, after))
    return tuple(one for one in _differences(old, new) if one.before and one.after)


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[VersionChange, ...]:
    return tuple(
        VersionChange(name=name, before=before.get(name, ""), after=after.get(name, ""))
        for name in dict.fromkeys((*after, *before))
        if before.get(name, "") != after.get(name, "")
    )
