"""Valid sessions of the history as files of other tools; docs/history.md documents every format."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.errors import UsageError, unknown_name
from harness.files import file_name, write_text
from harness.history.rows import text_sha256
from harness.machine import CHANGED
from harness.records import ProcessRun, Session, save_json, utc


def write_pytest_benchmark(sessions: Sequence[Session], path: Path) -> None:
    """Write the newest session of every benchmark of one machine as pytest-benchmark does, in seconds.

    A round is the median of one process. Raises UsageError when the file cannot be written.
    """
    newest = max(sessions, key=lambda session: utc(session.recorded_at))
    document = {
        "machine_info": {**newest.machine.facts, "machine_key": newest.machine.key, "device": newest.device},
        "commit_info": {"id": newest.commit.removesuffix(CHANGED), "dirty": newest.commit.endswith(CHANGED)},
        "benchmarks": [_pytest_benchmark(session) for session in sessions],
        "datetime": utc(newest.recorded_at),
        "version": "5.3.1",
    }
    save_json(document, path)


def _pytest_benchmark(session: Session) -> dict[str, Any]:
    return {
        "group": f"{session.subject}/{session.case}",
        "name": session.benchmark,
        "fullname": session.benchmark,
        "params": dict(session.sizes) or None,
        "param": ",".join(f"{name}={size}" for name, size in sorted(session.sizes.items())) or None,
        "extra_info": {
            "session": session.id,
            "recorded_at": session.recorded_at,
            "commit": session.commit,
            "engine_sha256": session.engine_sha256,
            "round": f"median {session.metric} of one process",
        },
        "options": {"disable_gc": False, "timer": session.metric, "warmup": True},
        "stats": _stats([ms / 1000 for ms in session.medians()]),
    }


def _stats(values: Sequence[float]) -> dict[str, Any]:
    """Return the figures of pytest-benchmark's ``stats`` for times in seconds."""
    mean, median = statistics.fmean(values), statistics.median(values)
    many = len(values) > 1
    deviation = statistics.stdev(values) if many else 0.0
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive") if many else (values[0],) * 3
    inside = [value for value in values if q1 - 1.5 * (q3 - q1) <= value <= q3 + 1.5 * (q3 - q1)]
    beyond = sum(abs(value - mean) > deviation for value in values)
    return {
        "min": min(values),
        "max": max(values),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(values),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": len(values) - len(inside),
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{len(values) - len(inside)}",
        "ld15iqr": min(inside),
        "hd15iqr": max(inside),
        "ops": 1 / mean,
        "total": sum(values),
        "data": list(values),
        "iterations": 1,
    }


def write_github_action_benchmark(sessions: Sequence[Session], path: Path) -> None:
    """Write the newest session of every benchmark of one machine for ``tool: customSmallerIsBetter``.

    Raises UsageError when the file cannot be written.
    """
    save_json([_custom_smaller_is_better(session) for session in sessions], path)


def _custom_smaller_is_better(session: Session) -> dict[str, Any]:
    medians = session.medians()
    return {
        "name": session.benchmark,
        "unit": "ms",
        "value": statistics.median(medians),
        "range": f"{min(medians):.4g} to {max(medians):.4g}",
        "extra": "\n".join(
            [f"{session.metric}, {len(medians)} processes", session.device, session.recorded_at, session.commit]
        ),
    }


def write_otava(sessions: Sequence[Session], folder: Path) -> None:
    """Write a folder for Apache Otava: a CSV file for every benchmark and machine, and ``otava.yaml`` that names them.

    Raises UsageError when the folder cannot be written.
    """
    config = ["tests:"]
    for (benchmark, key), series in groupby(sorted(sessions, key=_series_key), key=_series_key):
        name = file_name(benchmark, text_sha256(key)[:8])
        columns, text = _otava_csv(list(series))
        write_text(text, folder / f"{name}.csv")
        config += [
            f"  {name}:",
            "    type: csv",
            f"    file: {name}.csv",
            "    time_column: time",
            "    attributes: [commit, session]",
            "    metrics:",
            *(f"      {column}: {{direction: {sign}, scale: 1, column: {column}}}" for column, sign in columns.items()),
        ]
    write_text("\n".join([*config, ""]), folder / "otava.yaml")


def _series_key(session: Session) -> tuple[str, str]:
    return session.benchmark, session.machine.key


def _otava_csv(sessions: Sequence[Session]) -> tuple[dict[str, int], str]:
    """Return the columns with their directions, and the CSV. A column that one session lacks is left out."""
    figures: dict[str, tuple[int, list[float | None]]] = {
        "median_ms": (-1, [statistics.median(session.medians()) for session in sessions]),
        "p99_ms": (-1, [_over_processes(session, _p99) for session in sessions]),
        "sm_mhz": (1, [_over_processes(session, lambda run, _: run.conditions.sm_mhz) for session in sessions]),
    }
    whole = {name: figure for name, figure in figures.items() if None not in figure[1]}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["time", "commit", "session", *whole])
    for number, session in enumerate(sessions):
        values = [column[number] for _, column in whole.values()]
        writer.writerow([utc(session.recorded_at), session.commit, session.id, *values])
    return {name: sign for name, (sign, _) in whole.items()}, file.getvalue()


def _p99(run: ProcessRun, metric: str) -> float | None:
    p99: float | None = getattr(run, metric).p99
    return p99


def _over_processes(session: Session, figure: Callable[[ProcessRun, str], float | None]) -> float | None:
    """Return the median of a figure over the valid processes; None where one of them lacks it."""
    values = [figure(run, session.metric) for run in session.runs if not run.invalid]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


WRITERS: Mapping[str, Callable[[Sequence[Session], Path], None]] = {
    "pytest-benchmark": write_pytest_benchmark,
    "github-action-benchmark": write_github_action_benchmark,
    "otava": write_otava,
}
FORMATS = ("parity", *WRITERS)
ONE_MACHINE = ("pytest-benchmark", "github-action-benchmark")
"""Formats whose file holds the newest session of each benchmark of one machine."""


def of_machine(sessions: Sequence[Session], key: str) -> list[Session]:
    """Return the sessions of the machine, or of the system, whose key begins with ``key``.

    Raises UsageError for none or several.
    """
    machines = {session.machine.key for session in sessions if session.machine.key.startswith(key)}
    systems = {system_of(session) for session in sessions if system_of(session).startswith(key)}
    if len(machines) == 1:
        return [session for session in sessions if session.machine.key in machines]
    if len(systems) == 1:
        return [session for session in sessions if system_of(session) in systems]
    trouble = f"belongs to {len(machines | systems)} machines" if machines or systems else "is not in the history"
    raise UsageError(f"the machine {key!r} {trouble}; choose one of: {_choice(sessions)}")


def of_one_system(sessions: Sequence[Session], here: Collection[str], form: str) -> list[Session]:
    """Return the sessions of the only system, or of the one whose key is in ``here``.

    Raises UsageError for none or several.
    """
    systems = {system_of(session) for session in sessions}
    chosen = systems if len(systems) < 2 else systems & set(here)
    if systems and len(chosen) != 1:
        raise UsageError(f"a {form} file is about one machine; choose it with --machine: {_choice(sessions)}")
    return [session for session in sessions if system_of(session) in chosen]


def device_of(session: Session) -> str:
    """Return the name of the kind of device, as records of accuracies have it: the GPU's, or the CPU's."""
    return session.device if session.device != "CPU" else str(session.machine.facts.get("cpu") or "CPU")


def system_of(session: Session) -> str:
    """Return the system key, which sessions of all backends on one machine share; else the machine key."""
    return session.machine.system_key or session.machine.key


def _choice(sessions: Sequence[Session]) -> str:
    """Return every system with device, host and the day of its newest session."""
    newest = {system_of(session): session for session in sorted(sessions, key=lambda one: utc(one.recorded_at))}
    return ", ".join(
        f"{key} ({one.device}, host {one.machine.facts.get('host', 'unknown')}, newest {utc(one.recorded_at)[:10]})"
        for key, one in sorted(newest.items())
    )


def check_format(name: str, *, importing: bool = False) -> None:
    """Raise UsageError for an unknown format, or one that cannot be imported."""
    if name not in FORMATS:
        raise unknown_name("history format", name, FORMATS)
    if importing and name != "parity":
        raise UsageError(
            f"the format {name} cannot be imported: it does not record the device, engine and precision of its times;"
            " import the format parity"
        )
