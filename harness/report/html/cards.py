"""The cards at the top of the page: the worst error, the best speed-up, how many models passed, and on what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import Records
from harness.report import verdicts
from harness.report.facts import (
    BASELINE,
    Json,
    beyond,
    case_label,
    floor_ratio,
    is_invalid,
    session_target,
    speed_up_interval,
    target_name,
)
from harness.report.html.parts import MISSING, TONES, Tone, warnings, worst
from harness.report.words import Words


@dataclass(frozen=True, kw_only=True)
class Card:
    """One figure and what it is of."""

    label: str
    figure: str
    words: str
    tone: Tone = ""
    labels: tuple[str, ...] = ()
    """What the figure must not be read without."""


def cards(records: Records, t: Words) -> tuple[Card, ...]:
    """Return the figures that are asked for first; one that the records do not hold says so."""
    results = [entry.data for entry in records.results]
    timed = verdicts.newest(entry.data for entry in records.bench)
    return (_worst_error(results, t), _best_speed_up(timed, results, t), _models(records, t), _machine(records, t))


def _worst_error(results: Sequence[Json], t: Words) -> Card:
    """Return the error that is the most times its floor; one that is not finite is worse than any."""
    found = [(_times(output), result, output) for result in results for output in result["outputs"]]
    known = [(times, result, output) for times, result, output in found if times is not None]
    if not known:
        return Card(label=t("card_error"), figure=MISSING, words=t("card_no_error"))
    times, result, output = max(known, key=lambda one: one[0])
    figure = t("card_times", times=format(times, ".3g")) if math.isfinite(times) else "NaN/Inf"
    return Card(
        label=t("card_error"),
        figure=figure,
        words=f"{result['subject']} {target_name(result)} {result['case']}, {output['name']}{_limit(output, t)}",
        tone=TONES[output["verdict"]],
        labels=warnings(result["provenance"] or {}, t),
    )


def _limit(output: Json, t: Words) -> str:
    """Return how many times its limit an output is, where it is more: a part of it may be, though the whole is not."""
    times, part = beyond(output)
    return t("card_limit", times=format(times, ".3g")) if part and 1 < times < math.inf else ""


def _times(output: Json) -> float | None:
    bad = output.get("mismatched_nonfinite") or ("relative_l2" in output and output["relative_l2"] is None)
    return math.inf if bad else floor_ratio(output)


def _best_speed_up(timed: Sequence[Json], results: Sequence[Json], t: Words) -> Card:
    """Return the largest speed-up of an engine that does not fail; of one that fails only where there is no other."""
    valid = [one for one in timed if not is_invalid(one["session"])]
    names = [name for one in valid for name, factor in one["speed_up"].items() if factor]
    if not names:
        return Card(label=t("card_speed"), figure=MISSING, words=t("card_no_speed"))
    over = BASELINE if BASELINE in names else names[0]
    found = [(_accuracy(one["session"], results), one) for one in valid if one["speed_up"].get(over)]
    judged, best = max(found, key=lambda one: (one[0] != "fail", one[1]["speed_up"][over]))
    low, high = speed_up_interval(best, over)
    interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
    session = best["session"]
    name = f"{session['subject']} {session_target(session)} {case_label(session)}"
    return Card(
        label=t("card_speed"),
        figure=t("card_times", times=format(best["speed_up"][over], ".3g")) + interval,
        words=t("card_over", name=name, baseline=over, outputs=t(f"card_outputs_{judged}")),
        tone="" if judged == "pass" else TONES[judged],
        labels=warnings(session, t),
    )


def _accuracy(session: Json, results: Sequence[Json]) -> str:
    """Return the worst verdict on the outputs of the engine that was timed."""
    engine = (session["subject"], session_target(session))
    return worst(r["verdict"] for r in results if (r["subject"], target_name(r)) == engine) or "not_judged"


def _models(records: Records, t: Words) -> Card:
    """Return how many models passed of how many, and what became of the others."""
    by_model = verdicts.by_model(verdicts.all_verdicts(records))
    counts = Counter(by_model.values())
    others = [f"{t('verdict_' + rank)} {counts[rank]}" for rank in verdicts.RANKS if rank != "pass" and counts[rank]]
    return Card(
        label=t("card_models"),
        figure=t("card_of", passed=counts["pass"], count=len(by_model)),
        words=", ".join(others),
        tone=TONES.get(worst(by_model.values()), "warn"),
    )


def _machine(records: Records, t: Words) -> Card:
    devices = ", ".join(records.devices) or MISSING
    return Card(label=t("device"), figure=devices, words=", ".join(records.versions) or t("card_no_versions"))
