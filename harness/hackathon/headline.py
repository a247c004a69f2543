"""The first sentence of a hackathon report: the number that counts, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.hackathon.context import Context, paragraphs
from harness.hackathon.key_numbers import KeyRow, key_rows
from harness.records import Json
from harness.report import BASELINE, code, escape, is_reference, largest_error, speed_up_interval
from harness.report.text import ms, number, worst_error

WIDE = 0.2
"""A 95 % interval that is wider than this share of the speed-up is shown in its place, or beside it."""
_RANK = ("pass", "not_judged", "", "known", "fail")
"""Verdicts of an engine, from the one that is shown first; none at all is "" ."""


def headline(context: Context) -> list[str]:
    """Return a sentence on the engines and one on each study, what passed first; or that nothing was judged or timed.

    A speed-up is claimed of an engine that passed, or was not verified, which is then said; never of one that failed.
    """
    found = [_study(context, entry.data) for entry in context.records.studies if entry.data["variants"]]
    rows = key_rows(context)
    best = [min((r for r in rows if r.subject == name), key=_place) for name in dict.fromkeys(r.subject for r in rows)]
    if len(best) == 1:
        found.append((_RANK.index(best[0].verdict), _engine(context, best[0], rows)))
    elif best:
        found.append((min(_RANK.index(row.verdict) for row in best), _engines(context, best)))
    sentences = [sentence for _, sentence in sorted(found, key=lambda one: one[0])]
    if not sentences and not context.records.scores:
        sentences = [context.words("lead_none")]
    return [line for sentence in sentences for line in paragraphs([f"**{sentence}**"])]


def _place(row: KeyRow) -> tuple[int, float]:
    return _RANK.index(row.verdict), -(_factor(row) or 0.0)


def _factor(row: KeyRow) -> float | None:
    """Return the speed-up against PyTorch FP32; None where it was not measured."""
    factor: float | None = row.shown["speed_up"].get(BASELINE) if row.shown else None
    return factor


def _interval(row: KeyRow) -> tuple[float | None, float | None]:
    """Return the ends of the speed-up's 95 % interval; None where there is none."""
    return speed_up_interval(row.shown, BASELINE) if row.shown else (None, None)


def _ends(row: KeyRow) -> list[float]:
    """Return the speed-up, or the ends of its interval where that is too wide for one figure; none without it."""
    factor, (low, high) = _factor(row), _interval(row)
    if factor is None:
        return []
    return [factor] if low is None or high is None or high - low <= WIDE * factor else [low, high]


def _engine(context: Context, row: KeyRow, rows: Sequence[KeyRow]) -> str:
    """Return what the best engine of the only model is worth, and how the others came out."""
    words = context.words
    name = words("lead_engine", subject=code(row.subject), engine=code(row.engine))
    where, error = _where(context, [row]), _error(context, row)
    if row.verdict == "pass":
        clauses = [_speed(context, row, where, name), error]
    elif not row.verdict:
        clauses = [_speed(context, row, where, name), words("lead_unverified")]
    else:
        clauses = [words(f"lead_verdict_{row.verdict}", where=where, name=name, error=error)]
    others = [other for other in rows if other is not row]
    for key, verdicts in (("fail", ("fail", "known")), ("not_judged", ("not_judged",))):
        if engines := [other.engine for other in others if other.verdict in verdicts]:
            clauses.append(words(f"lead_others_{key}", engines=context.listed(map(code, engines))))
    return _sentence(context, clauses, _sources([row]))


def _speed(context: Context, row: KeyRow, where: str, name: str) -> str:
    """Return the speed-up with its size, or that there is none, or that nothing was measured."""
    words, factor = context.words, _factor(row)
    if row.shown is None or factor is None:
        return words("lead_untimed" if row.shown is None else "lead_no_baseline", where=where, name=name)
    session = row.shown["session"]
    sizes = context.listed(f"{escape(symbol)}={size}" for symbol, size in session["sizes"].items())
    low, high = _interval(row)
    proven = low is None or low > 1
    slower = high is not None and high < 1
    exact = (proven or slower) and len(_ends(row)) == 1
    shown = number(factor) if exact else f"{number(factor)} [{number(low)}, {number(high)}]"
    key = "lead_fast" if factor > 1 and proven else "lead_slow" if slower else "lead_equal"
    return words(key, where=where, name=name, factor=shown, sizes=words("bracketed", inner=sizes) if sizes else "")


def _error(context: Context, row: KeyRow) -> str:
    """Return the error in units of the floor, of the output that is the worst in them; without a floor as it is."""
    if row.ratio is not None and math.isfinite(largest_error(row.outputs) or 0.0):
        return context.words("lead_ratio", ratio=number(row.ratio))
    return context.words("lead_error", error=worst_error(row.outputs, context.words))


def _engines(context: Context, best: Sequence[KeyRow]) -> str:
    """Return what the best engines of several models are worth together, and the models of which none passed."""
    words = context.words
    passed = [row for row in best if row.verdict == "pass"]
    clauses = [words("lead_models", where=_where(context, best), count=len(passed), all=len(best))]
    if timed := [row for row in passed if _factor(row) is not None]:
        factors = _range(context, [end for row in timed for end in _ends(row)])
        clauses.append(words("lead_factors", factors=factors, count=len(timed)))
    elif passed:
        clauses.append(words("lead_no_factors"))
    if ratios := [row.ratio for row in passed if row.ratio is not None]:
        clauses.append(words("lead_ratio", ratio=_range(context, ratios)))
    for key, verdicts in (("fail", ("fail", "known")), ("not_judged", ("not_judged", ""))):
        if names := [row.subject for row in best if row.verdict in verdicts]:
            clauses.append(words(f"lead_models_{key}", names=context.listed(map(code, names))))
    return _sentence(context, clauses, _sources(best))


def _range(context: Context, values: Iterable[float]) -> str:
    shown = sorted(values)
    low, high = number(shown[0]), number(shown[-1])
    return low if low == high else context.words("lead_range", low=low, high=high)


def _where(context: Context, rows: Iterable[KeyRow]) -> str:
    return context.listed(escape(row.device) for row in rows) or context.words("not_recorded")


def _sources(rows: Iterable[KeyRow]) -> list[Json]:
    """Return what tells where weights and inputs are from."""
    found = list(rows)
    return [
        *(result["provenance"] or {} for row in found for result in row.judged),
        *(item["session"] for row in found for item in row.timed),
    ]


def _sentence(context: Context, clauses: Sequence[str], sources: Iterable[Json]) -> str:
    """Return clauses as a sentence that says of random weights and inputs that they are."""
    words, found = context.words, list(sources)
    random = [key for key in ("weights", "inputs") if any(one.get(key) == "random" for one in found)]
    noted = words("bracketed", inner=context.listed(words(f"random_{key}") for key in random)) if random else ""
    return f"{words('readme_comma').join(clauses)}{noted}{words('full_stop')}"


def _best_variant(tried: Sequence[Json]) -> Json | None:
    """Return the fastest variant that passed, else the fastest that was not judged; None where all failed."""
    best = [v for v in tried if v["verdict"] == "pass"] or [v for v in tried if v["verdict"] == "not_judged"]
    return min(best, key=lambda v: float(v["latency_ms"]), default=None)


def _study(context: Context, study: Json) -> tuple[int, str]:
    """Return the rank of the best variant of a study, and its latency, speed-up, and whether its results pass."""
    words = context.words
    tried = [v for v in study["variants"] if v["latency_ms"] and not is_reference(study, v)]
    best = _best_variant(tried)
    values = {"study": code(study["name"]), "where": escape(study["device"])}
    if best is None:
        sentence = words("lead_study_fail" if tried else "lead_study_untimed", **values)
        return _RANK.index("fail"), f"{sentence}{words('full_stop')}"
    clauses = [words("lead_study", variant=code(best["name"]), ms=ms(best["latency_ms"]), **values)]
    if best["speed_up"] is not None:
        clauses.append(words("lead_study_factor", factor=number(best["speed_up"])))
    clauses.append(words(f"lead_study_{best['verdict']}"))
    return _RANK.index(best["verdict"]), _sentence(context, clauses, [study])
