"""Latency over time as plain text: the sessions of a benchmark on one machine, where it changed, a machine's noise.

``series_of()`` makes the plain data that the text here and the charts are rendered from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from harness.history import (
    FEWEST_POINTS,
    ChangePoint,
    Trend,
    age_of,
    age_words,
    change_points,
    has_moved,
    trend_of,
)
from harness.records import Acceptance, Age, Session, plain, utc
from harness.report.facts import Json, session_latency
from harness.report.text.tables import ascii_safe, columns, latency_word, ms, plural, wrapped

ROWS = 20


def accepted_text(sessions: Sequence[Session], remarks: Sequence[str]) -> str:
    """Return how many sessions were accepted, the range of their times, and the remarks on them, each in its line."""
    times = [found[0] for session in sessions if (found := session_latency(session.to_json())) is not None]
    span = " to ".join(dict.fromkeys((ms(min(times)), ms(max(times)))))
    lines = [f"accepted {plural(len(sessions), 'session')}, {span} ms"]
    return ascii_safe("\n".join([*lines, *(line for remark in remarks for line in wrapped("  note: ", remark))]))


def series_of(
    sessions: Sequence[Session], accepted: Collection[str] = (), *, acceptance: Acceptance | None = None
) -> dict[str, Any]:
    """Return one series, oldest first: its sessions, change points, trend, and sentences on them.

    The baseline is that of ``acceptance``, or where only their ids are known ``accepted``. Sessions in an invalid
    environment are shown and left out of the tests. There must be at least one session.
    """
    last = sessions[-1]
    accepted = acceptance.sessions if acceptance else accepted
    points = [_point(session, session.id in accepted) for session in sessions]
    values = [math.nan if point["invalid"] or point["ms"] is None else point["ms"] for point in points]
    changes, trend, age = change_points(values), trend_of(values), _age(points)
    return {
        "benchmark": last.benchmark,
        "subject": last.subject,
        "metric": last.metric,
        "device": last.device,
        "machine_key": last.machine.key,
        "machine": machine_words(last),
        "weights": last.weights,
        "accepted": acceptance.to_json() if acceptance else None,
        "points": points,
        "change_points": plain([dataclasses.asdict(change) for change in changes]),
        "trend": plain(dataclasses.asdict(trend)),
        "age": age and age.to_json(),
        "remarks": _remarks(points, changes, trend, acceptance, age),
    }


def machine_words(session: Session) -> str:
    """Return a machine in words: the GPU or CPU, and the start of its key."""
    name = session.device if session.device != "CPU" else str(session.machine.facts.get("cpu") or "CPU")
    return f"{name}, machine {session.machine.key[:12]}"


def _point(session: Session, accepted: bool) -> dict[str, Any]:
    data = session.to_json()
    found = session_latency(data)
    middle, low, high = found or (None, None, None)
    return {
        "id": session.id, "recorded_at": session.recorded_at, "ms": middle, "low": low, "high": high,
        "accepted": accepted, "invalid": list(session.invalid), "engine_sha256": session.engine_sha256,
        "commit": session.commit,
    }  # fmt: skip


def _age(points: Sequence[Json]) -> Age | None:
    """Return the age of the baseline at the newest session; None without a baseline."""
    valid = [point for point in points if not point["invalid"] and point["ms"] is not None]
    accepted = [place for place, point in enumerate(valid) if point["accepted"]]
    if not accepted:
        return None
    start, end = (datetime.fromisoformat(utc(valid[place]["recorded_at"])) for place in (accepted[-1], -1))
    since = [point["ms"] for point in valid[accepted[-1] + 1 :]]
    days = max((end - start).total_seconds() / 86400, 0.0)
    return age_of([valid[place]["ms"] for place in accepted], since, days=days)


def _remarks(
    points: Sequence[Json],
    changes: Sequence[ChangePoint],
    trend: Trend,
    acceptance: Acceptance | None,
    age: Age | None,
) -> list[str]:
    found = [
        f"warning: {change.change:+.2%} from {points[change.index]['recorded_at'][:19]} on, {ms(change.before)} to "
        f"{ms(change.after)} ms over {change.points_after} sessions (p = {change.p_value:.2g})"
        for change in changes
    ]
    if trend.drifts and trend.change is not None and trend.p_value is not None:
        found.append(
            f"warning: drifts by {trend.change:+.2%} over the last {trend.points} sessions "
            f"(Mann-Kendall p = {trend.p_value:.2g}, Theil-Sen)"
        )
    if acceptance:
        count = plural(len(acceptance.sessions), "session")
        old = f" ({age_words(age)})" if age else ""
        found.append(f"baseline: {count}, accepted {acceptance.accepted_at[:19]}{old}: {acceptance.why}")
    if age and has_moved(age):
        found.append(
            "warning: the series has moved since its baseline was accepted, so every suspicious engine is measured in "
            "turns; accept newer sessions once you know why"
        )
    if not any(point["accepted"] for point in points):
        found.append("nothing was accepted: there is no baseline")
    if len(points) < 2 * FEWEST_POINTS:
        found.append(f"{plural(len(points), 'session')}: change points are looked for from {2 * FEWEST_POINTS} on")
    return found


def history_text(found: Sequence[Json], *, rows: int = ROWS) -> str:
    """Return series as text: each with its latest sessions, what was accepted, its change points and its trend."""
    return ascii_safe("\n\n".join("\n".join(_series(one, rows)) for one in found))


def _series(series: Json, rows: int) -> list[str]:
    points = series["points"]
    changes = {change["index"]: change["change"] for change in series["change_points"]}
    shown = []
    for index, point in list(enumerate(points))[-rows:]:
        words = ["accepted"] if point["accepted"] else []
        words += [f"INVALID: {'; '.join(point['invalid'])}"] if point["invalid"] else []
        words += [f"change {changes[index]:+.2%}"] if index in changes else []
        words += [f"engine {point['engine_sha256'][:8]}"] if point["engine_sha256"] else []
        interval = f"[{ms(point['low'])}, {ms(point['high'])}]"
        shown.append(([point["recorded_at"][:19], ms(point["ms"]), interval, point["id"][:8]], words))
    return [
        *wrapped("", f"{series['benchmark']} | {series['machine']}"),
        *columns(("recorded", "ms", "[low, high]", "session", "remarks"), shown),
        *([f"... and {len(points) - rows} older sessions; --json has them all"] if len(points) > rows else []),
        *(line for sentence in series["remarks"] for line in wrapped("", sentence)),
    ]


def noise_text(rows: Sequence[Json]) -> str:
    """Return the noise of a machine: spreads at three levels, the smallest change it detects, and pairwise verdicts."""
    shown = [(_noise_cells(row), [", ".join(_counted(row["verdicts"]))]) for row in rows]
    headings = ("target", "ms", "within", "processes", "sessions", "smallest change", "measured", "pairs, same engine")
    legend = (
        "Relative standard deviations of the same engine against itself: of runs within a process, of processes within "
        "a session, of sessions. The smallest change is the slow-down that is found nine times in ten, with these "
        "sessions as the baseline. Pairs: every session against every earlier one."
    )
    notes = [line for row in rows for note in row["notes"] for line in wrapped(f"note: {row['target']}: ", note)]
    return ascii_safe("\n".join([*columns(headings, shown), "", *wrapped("", legend), *notes]))


def _noise_cells(row: Json) -> list[str]:
    spreads = [_percent(row[key]) for key in ("sd_within", "sd_process", "sd_session", "smallest_change")]
    return [row["target"], ms(row["ms"]), *spreads, f"{row['sessions']} x {row['processes']}"]


def _counted(verdicts: Mapping[str, int]) -> list[str]:
    return [f"{count} {latency_word(verdict)}" for verdict, count in verdicts.items()]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2g} %"
