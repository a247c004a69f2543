"""``parity bisect --quant`` as text: what each operator costs, the sets that were tried, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.facts import Json
from harness.report.text.tables import aligned, ascii_safe, ms, number, verdict_word, wrapped

_LEGEND = (
    "alone: the largest relative error where only this operator is quantised; all but it: where all others are; both "
    "in fake-quantisation, against the unquantised model in FP32."
)
SHOWN = 20
"""Units of the ranking; the JSON has all."""


def quant_search_text(found: Json) -> str:
    """Return the ranking, the trials, and below them the answer with its plan."""
    units: Sequence[Json] = found["units"]
    head = f"{found['subject']} [{found['backend']} {found['precision']}] {found['case']}"
    lines = wrapped("", f"{head} | against {found['against']} | {found['limit']} | all quantised: {_error(found)}")
    rows = [["operator", "type", "in floats", "alone", "all but it"]]
    for unit in units[:SHOWN]:
        left = "yes" if unit["left"] else ""
        rows.append([unit["name"], unit["op"], left, number(unit["alone"]), number(unit["without"])])
    lines += ["", *aligned(rows, words=3)]
    lines += [f"and {len(units) - SHOWN} more operators"] if len(units) > SHOWN else []
    trials = [["in floats", "on", "verdict", "error", "ms"]]
    for trial in found["trials"]:
        trials.append([
            str(trial["units"]), trial["on"], verdict_word(trial["verdict"]), _error(trial), ms(trial["ms"])
        ])  # fmt: skip
    lines += ["", *aligned(trials, words=3), ""]
    lines += wrapped("", _LEGEND)
    lines += ["", *wrapped("", found["finding"])]
    if found["plan_file"]:
        lines.append(f"plan: {found['plan_file']}")
    return ascii_safe("\n".join(lines))


def _error(data: Json) -> str:
    return number(data["error"]) if data["error"] is not None else "not finite"
