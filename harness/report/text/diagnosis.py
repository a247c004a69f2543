"""The first lines of what was found: the verdict, each culprit and what its error looks like, what else, what next.

One source for a terminal, a failed test, a CI summary and the page. Everything here takes the JSON of a ``Result`` and,
where there is one, of the ``Bisection`` of the same engine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.records import MADE_HERE, settled_result
from harness.report import facts
from harness.report.facts import Json
from harness.report.names import known_names, short_name
from harness.report.text.tables import WIDTH, WORDS, ascii_safe, wrapped
from harness.report.words import Words

MOST_CULPRITS = 4
MOST_NAMES = 3
"""Outputs, modules or patterns that a sentence names."""


class Line(NamedTuple):
    """One sentence with what it is about in front."""

    label: str
    text: str
    command: str = ""
    """What to type next, to be copied; it stands at the end of the line."""


def bisection_lines(found: Json, t: Words = WORDS) -> list[Line]:
    """Return the first lines of a bisection."""
    return diagnosis_lines(facts.bisected_result(found), found, t)


def diagnosis_lines(
    result: Json, found: Json | None = None, t: Words = WORDS, *, most: int = MOST_CULPRITS
) -> list[Line]:
    """Return the first lines of a result: one of what is right, about five of what is wrong.

    ``found`` is the bisection of the same engine, whose diagnosis counts before that of a look at its values. At
    ``most`` so many culprits have lines of their own; the others are counted.
    """
    result = settled_result(result) if result["outputs"] else result
    lines = [_verdict(result, found, t)]
    if result["verdict"] == "fail" or (result["verdict"] == "not_judged" and found and found["kind"] == "precision"):
        lines += [line for culprit in _culprits(result, found, t, most) for line in culprit]
        lines += [*_place(diagnosis_of(result, found), t), *_plan(found, t)]
    return lines + _trust(result, found, t)


def diagnosis_text(lines: Sequence[Line]) -> list[str]:
    """Return the lines for a terminal; a command that does not fit into its line has one of its own, uncut."""
    shown = []
    for line in lines:
        sentence = wrapped(f"{line.label}: " if line.label else "", line.text) if line.text else []
        command = ascii_safe(f"{WORDS('diag_next')}: {line.command}") if line.command else ""
        if sentence and command and len(sentence[-1]) + len(command) + 2 <= WIDTH:
            sentence[-1], command = f"{sentence[-1]}; {command}", ""
        shown += [*sentence, *([command] if command else [])]
    return shown


def diagnosis_of(result: Json, found: Json | None = None) -> Json | None:
    """Return the diagnosis of an engine: that of its bisection, else that of the look at its values; None without."""
    layers: Json = result.get("layers") or {}
    diagnosis: Json | None = (found or {}).get("diagnosis") or layers.get("diagnosis")
    return diagnosis


def culprit_words(result: Json, found: Json | None = None, t: Words = WORDS) -> str:
    """Return what is to blame for a failed result, in one sentence; empty where no culprit is known."""
    if result["verdict"] != "fail" or not (diagnosis_of(result, found) or {}).get("culprits"):
        return ""
    return t("diag_join").join(line.text for line in next(_culprits(result, found, t, 1)))


def target_label(data: Json) -> str:
    """Return ``bert/short [rtx fp16]``."""
    return f"{data['subject']}/{data['case']} [{data['backend']} {data['precision']}]"


def commands_of(result: Json, found: Json | None = None) -> list[str]:
    """Return what to type next, one command each: what the bisection says, else what the verdict does."""
    return list(found["commands"]) if found else [line for line in result["next_step"].split("\n") if line]


def short(value: float | None, digits: int = 2) -> str:
    """Return a figure for a sentence, with two digits: ``4.1e-5``, ``61``; a dash where there is none."""
    if value is None:
        return "-"
    if 0 < abs(value) < 0.01:
        return re.sub(r"\.?0*e-0?", "e-", f"{value:.{digits - 1}e}")
    return f"{value:.0f}" if 100 <= abs(value) < 1e4 else re.sub(r"e\+0?", "e", f"{value:.{digits}g}")


def percent(share: float) -> str:
    """Return a share in percent: ``99.9``, ``12``; never 100 for less, nor 0 for more than nothing."""
    digits = 100 * share
    if digits < 0.1:
        return "0" if not digits else "< 0.1"
    return f"{min(digits, 99.9):.1f}" if 99 < digits < 100 else f"{digits:.2g}" if digits < 10 else f"{digits:.0f}"


def _verdict(result: Json, found: Json | None, t: Words) -> Line:
    """Return the verdict and the output that decides it."""
    label = target_label(result)
    if result["verdict"] == "not_judged" and (found or {}).get("kind", "not_judged") == "not_judged":
        return Line(f"{label} {t('verdict_not_judged')}", (found or result).get("finding") or result["reason"])
    wrong = result["verdict"] != "pass"
    outputs = [one for one in result["outputs"] if one["verdict"] == result["verdict"]]
    ranked = sorted(outputs, key=lambda one: -facts.beyond(one)[0])
    text = _output(ranked[0], t) if ranked else str(result["reason"])
    if wrong and (others := [one["name"] for one in ranked[1:]]):
        names = _names(others, t)
        text = t("diag_too", first=text, names=names)
    if not wrong and result.get("layers") and (ratio := facts.worst_ratio(result["layers"])):
        count = len(facts.compared(result["layers"]))
        text += t("diag_join") + _counted("worst", count, t, times=short(ratio))
    return Line(f"{label} {t('diag_wrong' if wrong else 'diag_right')}", text)


def _output(output: Json, t: Words) -> str:
    """Return what is wrong with an output, by the figure that is the farthest beyond its limit."""
    name, error = output["name"], output.get("relative_l2")
    if output.get("mismatched_nonfinite"):
        return t("diag_nonfinite", name=name, count=output["mismatched_nonfinite"], elements=output["elements"])
    if output.get("decisions"):
        return f"{name}: {t.decisions([output])}"
    if output.get("zero_actual") and not output.get("zero_expected"):
        return t("diag_zeros", name=name)
    times, part = facts.beyond(output)
    if error is None or (math.isinf(times) and part is None):
        return f"{name}: {output['reason']}"
    said = [t("diag_off", name=name, error=short(error))]
    if part and (part["kind"], part["figure"]) != ("whole", "relative_l2"):
        said.append(f"{_part(part, t)} {short(part['error'])}")
    allowed = t("diag_none_allowed") if math.isinf(times) else t("diag_times", times=short(times))
    return f"{t('diag_join').join(said)}{allowed}"


def _part(part: Json, t: Words) -> str:
    figure = t(f"diag_figure_{part['figure']}")
    if part["kind"] == "whole":
        return figure
    return t(f"diag_part_{part['kind']}", **{**part, "low": short(part["low"]), "high": short(part["high"])}) + figure


def _culprits(result: Json, found: Json | None, t: Words, most: int) -> Iterator[list[Line]]:
    """Yield what is to blame, the worst first: a line on each culprit, and one on what its error looks like."""
    label = t("diag_culprit")
    undecided = bool(found) and found["kind"] == "not_judged"  # type: ignore[index]
    culprits: Sequence[Json] = () if undecided else (diagnosis_of(result, found) or {}).get("culprits") or ()
    cause = _cause(result, found, t)
    if not culprits and (text := cause or _nothing(result, found, t)):
        yield [Line(label, text), *_output_shapes(result, t)]
    for culprit in culprits[:most]:
        text = _culprit(culprit, t, known=known_names(result, culprits), alone=len(culprits) > 1)
        lines = [Line(label, t("diag_shows", cause=cause, text=text) if cause else text)]
        cause = ""
        if shape := culprit["looks_like"]:
            lines.append(Line(t("diag_looks"), facts.shape_words(shape, t)))
        elif culprit is culprits[0] and culprit["made_by"] == "precision":
            lines += _output_shapes(result, t)
        yield lines
    if len(culprits) > most:
        yield [Line("", t("diag_more", count=len(culprits) - most))]


def _cause(result: Json, found: Json | None, t: Words) -> str:
    """Return what is to blame beside a place in the graph: the format, TF32, kernels that overlap, the export."""
    found = found or {}
    failing = [output for output in result["outputs"] if output["verdict"] == "fail"]
    if found.get("races"):
        return t("diag_race")
    if failing and all(output["tf32_sized"] for output in failing):
        return t("diag_tf32", backend=result["backend"])
    if found.get("kind") == "precision":
        kept, low = _names(found["region"], t), result["precision"]
        culprits = (found["diagnosis"] or {}).get("culprits") or ()
        if found["plan"] is not None or culprits:  # a plan may need less than PyTorch does
            said = any(found["cause"].startswith(f"{culprit['value']} ") for culprit in culprits)
            first = t("diag_precision_first", cause=found["cause"]) if found["cause"] and not said else ""
            return t("diag_precision", precision=low) + first
        return t("diag_precision_kept" if kept else "diag_precision_all", precision=low, names=kept)
    return t("diag_export") if found.get("kind") == "export" else ""


def _culprit(culprit: Json, t: Words, *, known: Mapping[str, set[str]], alone: bool) -> str:
    """Return where an error is made, how large it is, and how much of the output's error it explains."""
    name, module, kernel = (short_name(culprit[key], known[key]) for key in ("value", "module", "inside"))
    place = f"{name}, {facts.short_op(culprit['op'])}"
    place += t("diag_in", module=module) if module else ""
    place += f" ({culprit['source']})" if culprit["source"] else ""
    place += t("diag_inside", kernel=kernel) if kernel else ""
    said = [culprit["reason"]] if culprit["reason"] else []
    if culprit["error"] is not None:
        exported = culprit["made_by"] == "export"
        said.append(t("diag_error_export" if exported else "diag_error", error=short(culprit["error"])))
        said[-1] += "" if culprit["floor"] is None else t("diag_loses", floor=short(culprit["floor"]))
    if (explains := culprit["explains"]) is not None:
        said.append(t("diag_explains", share=percent(explains)))
    elif culprit["error"] is not None:  # what is not finite has no share
        said.append(t("diag_explains_unknown"))
    if alone and culprit["alone"] is not None:
        said.append(_counted("alone", culprit["alone"], t))
    if culprit["folded"]:
        said.append(t("diag_folded", names=_names(culprit["folded"], t)))
    return f"{place}: {t('diag_join').join(said)}"


def _nothing(result: Json, found: Json | None, t: Words) -> str:
    """Return that no culprit was found: what was seen, and what was not."""
    layers = result.get("layers")
    compared = facts.compared(layers) if layers else []
    if not compared:
        why = t("diag_none_because", why=found["finding"]) if found else t("diag_none_compared")
        return "" if found and found["finding"] == result["reason"] else why
    wrong = [value["name"] for value in facts.worst_first(compared) if value["mark"] in MADE_HERE]
    unseen = sum(value["status"] in facts.UNSEEN for value in layers["values"])  # type: ignore[index]
    fields = {"compared": len(compared), "unseen": unseen, "wrong": len(wrong), "names": _names(wrong, t)}
    weighed = "diag_none_explains" if diagnosis_of(result, found) else "diag_not_weighed"
    return t(weighed if wrong else "diag_none_wrong", **fields)


def _output_shapes(result: Json, t: Words) -> list[Line]:
    """Return what the errors of the outputs look like, where there is no culprit; nothing that is not known."""
    names: dict[str, list[str]] = {}
    for output in result["outputs"]:
        if (shape := output.get("looks_like")) and shape["kind"] != "unknown":
            names.setdefault(facts.shape_words(shape, t), []).append(output["name"])
    words = [f"{shape} ({_names(of, t)})" if len(names) > 1 else shape for shape, of in names.items()]
    return [Line(t("diag_looks"), t("diag_join").join(words))] if words else []


def _place(diagnosis: Json | None, t: Words) -> list[Line]:
    """Return what is right before the culprits and wrong because of them, and whether there may be others."""
    if not diagnosis or not diagnosis["culprits"]:
        return []
    culprits, said = diagnosis["culprits"], []
    single = len(culprits) == 1
    it = t("diag_it" if single else "diag_them")
    if diagnosis["compared"] and diagnosis["observed"] != "hidden":  # else nothing that was seen is wrong
        said.append(_counted("before", diagnosis["right_before"], t, it=it))
        if diagnosis["wrong_later"] or diagnosis["observed"]:
            said.append(_counted("later", diagnosis["wrong_later"], t, it=it))
    if diagnosis["complete"]:
        said.append(t("diag_no_second" if single else "diag_no_other"))
    elif not diagnosis["left"]:  # nothing is left of the whole, and yet a part is not explained
        said.append(t("diag_left_unknown"))
    else:
        said.append(t("diag_left", share=percent(diagnosis["left"])))
    if single and culprits[0]["alone"] is not None:
        said.append(_counted("alone", culprits[0]["alone"], t))
    return [Line("", t("diag_join").join(said))]


def _plan(found: Json | None, t: Words) -> list[Line]:
    """Return the plan that passes and what it costs, or that none of those tried does."""
    if not found or found["plan"] is None:
        tried = sum(trial["where"] == "engine" for trial in found["trials"]) if found else 0
        return [Line(t("diag_plan"), _counted("plan_none", tried, t))] if tried else []
    fields = {"names": _names(found["plan"], t), "file": found["plan_file"] or t("plan_no_file")}
    said = t("diag_plan_keeps" if found["plan"] else "diag_plan_nothing", **fields)
    if price := found["price"]:
        times = {key: short(price[key], 3) for key in ("plan_ms", "low_ms", "fp32_ms")}
        said += t("diag_join") + t("diag_price", precision=found["precision"], device=price["device"], **times)
    return [Line(t("diag_plan"), said)]


def _trust(result: Json, found: Json | None, t: Words) -> list[Line]:
    """Return what observing changed, and the first command to type next; nothing for a result that is right."""
    diagnosis, layers = diagnosis_of(result, found), result.get("layers")
    distrusted = "changed" if layers and not layers["trusted"] else ""
    observed = (diagnosis or {}).get("observed") or distrusted
    commands = commands_of(result, found) if result["verdict"] == "fail" else []
    unknown = t("observer_unknown") if layers and not layers["observer"] else ""
    if found and found["kind"] == "precision":  # no engine was looked into
        unknown = t("diag_trust_precision", precision=result["precision"])
    text = t(f"diag_observed_{observed}") if observed else unknown
    if not text and not commands:
        return []
    return [Line(t("diag_trust") if text else "", text, commands[0] if commands else "")]


def _counted(key: str, count: int, t: Words, **fields: str) -> str:
    """Return the words for a number of things; one and none have words of their own where they need them."""
    number = {0: "_none", 1: "_one"}.get(count, "")
    return t(f"diag_count_{key}{number}", count=count, **fields)


def _names(names: Sequence[str], t: Words) -> str:
    """Return the first names and the number of the others."""
    shown = ", ".join(short_name(name, names) for name in names[:MOST_NAMES])
    rest = len(names) - MOST_NAMES
    return f"{shown} {t('and_more', count=rest)}" if rest > 0 else shown
