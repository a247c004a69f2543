"""Bisections as parts of the page."""

from __future__ import annotations

from functools import partial

from harness.report import facts
from harness.report.facts import Json
from harness.report.html.parts import (
    TONES,
    Chart,
    Code,
    Details,
    Facts,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Table,
    Tone,
    chart,
    columns,
    number,
    warnings,
    word,
)
from harness.report.plots import draw_by_values
from harness.report.text import number as figure
from harness.report.text import plan_snippet
from harness.report.words import Words

BY_VALUES_INCHES = 3.0


def bisect_group(found: Json, id: str, t: Words) -> Group:
    """Return a bisection: whose fault it is, the plan, the reproducer, what was asked and tried, and what to do."""
    tones: dict[str, Tone] = {"none": "good", "not_judged": "warn"}
    kind = found["kind"]
    said = facts.bisection_verdict(found) == "fail"  # by the diagnosis at the top of the section
    lines = [Line(text="" if said else found["finding"], tone=tones.get(kind, "bad"), lead=t(f"kind_{kind}"))]
    if found["interrupted"] or not found["complete"]:
        lines.append(Line(text=t("bisect_incomplete"), tone="warn"))
    lines += [Line(text=note, tone="muted") for note in found["notes"]]
    parts: list[Part] = [Lines(items=tuple(lines)), _bisect_facts(found, t)]
    parts += [_by_values(found, id, t)] if len(found["by_values"]) > 1 else []
    if found["plan"] is not None:
        text = "\n".join(plan_snippet(found["plan"], found["precision"]))
        parts.append(Code(label=f"{t('plan')}: {found['plan_file'] or t('plan_no_file')}", text=text))
    parts += [Lines(items=tuple(map(_advice, found["advice"])))] if found["advice"] else []
    commands = [] if said else found["commands"]
    parts += [Code(label=t("commands"), text="\n".join(commands))] if commands else []
    parts += [_questions(found, id, t)] if found["gates"] else []
    parts += [_trials(found, id, t)] if found["trials"] else []
    heading = f"{t('bisection')}: {facts.target_name(found)}, {found['case']}"
    return Group(id=id, heading=heading, parts=tuple(parts), labels=warnings(found["price"] or {}, t))


def _bisect_facts(found: Json, t: Words) -> Facts:
    builds = t("builds", gates=found["gate_builds"], built=found["builds"],
                                most=found["max_builds"])  # fmt: skip
    rows = [(t("region"), ", ".join(found["region"]) or "-")]
    rows += [(t("plan"), t("no_plan"))] if found["plan"] is None and _needs_plan(found) else []
    rows += [(t("reproducer"), found["reproducer"] or t("no_reproducer")), (t("engines_built"), builds)]
    if price := found["price"]:
        times = [t(key, ms=figure(price[key])) for key in ("plan_ms", "low_ms", "fp32_ms")]
        rows.append((t("price", device=price["device"]), ", ".join(times)))
    return Facts(rows=tuple(rows))


def _by_values(found: Json, id: str, t: Words) -> Chart:
    """Return what PyTorch loses by values in FP32, and what a plan may lose and why."""
    note = ""
    if goal := found["goal"]:
        limits = ", ".join(f"{name} {figure(limit)}" for name, limit in goal["limits"].items())
        note = t("by_values_note", limits=limits, reason=goal["reason"])
    draw = partial(draw_by_values, found=found, t=t)
    return chart(draw, f"{id}-by-values", t("by_values_title"), (), note=note, height=BY_VALUES_INCHES)


def _needs_plan(found: Json) -> bool:
    """Return whether a bisection should have ended in a plan."""
    return found["kind"] not in ("none", "not_judged")


def _advice(advice: Json) -> Line:
    """Return what was seen, what it means and what to do in one line."""
    return Line(text=" — ".join(advice[key] for key in ("indicator", "meaning", "action") if advice[key]))


def _questions(found: Json, id: str, t: Words) -> Table:
    rows = tuple(
        Row(cells=(
            word(asked["question"]),
            word(t("answer_" + asked["answer"].replace(" ", "_")), _answer_tone(asked)),
            word(asked["detail"]),
        ))
        for asked in found["gates"]
    )  # fmt: skip
    shape = columns(t, "question", "answer", "detail")
    return Table(id=f"{id}-gates", caption=t("gates_caption"), columns=shape, rows=rows)


def _answer_tone(asked: Json) -> Tone:
    """Return how an answer is shown: as good, bad, or no answer."""
    if asked["answer"] == "not asked":
        return "muted"
    return "good" if asked["answer"] == asked["good"] else "bad"


def _trials(found: Json, id: str, t: Words) -> Details:
    rows = tuple(
        Row(cells=(
            word(t("trial_" + trial["where"])),
            word(t("verdict_" + facts.trial_verdict(trial)), TONES[facts.trial_verdict(trial)]),
            number(trial["error"]),
            word(", ".join(trial["keep_fp32"]) or t("nothing")),
            word(trial["reason"]),
        ))
        for trial in found["trials"]
    )  # fmt: skip
    shape = columns(t, "tried_on", "verdict", "rel_err", "kept_fp32", "reason")
    caption = t("trials_caption", count=len(rows))
    return Details(summary=caption, parts=(Table(id=f"{id}-trials", caption=caption, columns=shape, rows=rows),))
