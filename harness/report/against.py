"""Two sets of records side by side: what is worse, gone, moved, new or better in the later one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.records import Records
from harness.report import facts, verdicts
from harness.report.text.tables import WORDS, aligned, number
from harness.report.words import Words

KINDS = ("worse", "gone", "moved", "new", "better")
"""In the order in which they are shown."""
MOVED = 1.1
"""Times by which an error over its floor may be another one before it has moved; builds of one model differ by less."""
_BEST_FIRST = ("pass", "known", "not_judged", "fail")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One verdict that is not as it was."""

    kind: str
    """One of KINDS."""
    of: str
    """``accuracy``, ``latency``, ..., as of a verdict."""
    name: str
    before: str
    """The verdict, empty where there was none."""
    after: str
    figure_before: float | None
    """Of accuracy the error over its floor, of latency the median in ms."""
    figure_after: float | None


@dataclass(frozen=True, kw_only=True)
class _State:
    verdict: str
    figure: float | None = None
    low: float = 0.0
    high: float = 0.0
    """Between which a figure is the same."""


def changes(old: Records, new: Records) -> tuple[Change, ...]:
    """Return what changed, the worst kind first; what is as it was is left out.

    A verdict that got worse or better counts as that, whatever its figure. With the same verdict an error has moved
    when it is MOVED times more or less of its floor, a latency when no process of one run took as long as any of the
    other: ``parity history`` has the comparison that can be relied on.
    """
    before, after = _states(old), _states(new)
    found = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        if kind := _kind(was, now):
            found.append(
                Change(
                    kind=kind, of=key[0], name=key[1], before=was.verdict if was else "",
                    after=now.verdict if now else "", figure_before=was.figure if was else None,
                    figure_after=now.figure if now else None,
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda change: KINDS.index(change.kind)))


def figure_words(change: Change, figure: float | None) -> str:
    """Return a figure with its unit; a dash where there is none."""
    return number(figure) if figure is None or change.of != "latency" else f"{number(figure)} ms"


def changes_text(found: Iterable[Change], name: str, t: Words = WORDS) -> str:
    """Return what changed against the records of this name, as a table for the terminal."""
    rows = [
        (
            t(f"change_{one.kind}"), f"{one.of} {one.name}", _verdict(one.before, t), _verdict(one.after, t),
            figure_words(one, one.figure_before), figure_words(one, one.figure_after),
        )
        for one in found
    ]  # fmt: skip
    title = t("changes_heading", name=name)
    if not rows:
        return f"{title}: {t('changes_none')}"
    heads = ("", t("what"), t("before"), t("after"), t("figure_before"), t("figure_after"))
    return "\n".join([f"{title}:", *aligned([heads, *rows], words=4)])


def _verdict(verdict: str, t: Words) -> str:
    return t(f"verdict_{verdict}") if verdict else "-"


def _states(records: Records) -> dict[tuple[str, str], _State]:
    """Return verdict and figure by kind and name; of several with one name the worst."""
    figures = {("accuracy", verdicts.result_item(entry.data).name): _error(entry.data) for entry in records.results}
    figures |= {
        ("latency", verdicts.latency_item(one).name): _time(one)
        for one in verdicts.newest(entry.data for entry in records.bench)
    }
    found: dict[tuple[str, str], _State] = {}
    for one in verdicts.all_verdicts(records):
        key = (one.kind, one.name)
        figure, low, high = figures.get(key, (None, 0.0, 0.0))
        if key not in found or _rank(one.verdict) > _rank(found[key].verdict):
            found[key] = _State(verdict=one.verdict, figure=figure, low=low, high=high)
    return found


def _error(result: facts.Json) -> tuple[float | None, float, float]:
    output = facts.worst_output(result)
    ratio = facts.floor_ratio(output) if output else None
    half = math.sqrt(MOVED)  # two windows lie apart where one figure is more than MOVED times the other
    return ratio, (ratio or 0.0) / half, (ratio or 0.0) * half


def _time(measured: facts.Json) -> tuple[float | None, float, float]:
    time = facts.session_latency(measured["session"])
    return time or (None, 0.0, 0.0)


def _kind(was: _State | None, now: _State | None) -> str:
    if was is None:
        return "new"
    if now is None:
        return "gone"
    if was.verdict != now.verdict:
        return "worse" if _rank(now.verdict) > _rank(was.verdict) else "better"
    if (was.figure is None) != (now.figure is None):
        return "moved"
    apart = now.figure is not None and was.figure is not None and (now.low > was.high or now.high < was.low)
    return "moved" if apart else ""


def _rank(verdict: str) -> int:
    return _BEST_FIRST.index(verdict)
