"""The overview of a hackathon report: the link to the contest, and what failed."""

from __future__ import annotations

from harness.hackathon.context import Context, paragraphs
from harness.hackathon.template import CONTEST
from harness.report import (
    all_verdicts,
    case_label,
    code,
    escape,
    latency_reason,
    missing_verdict,
    newest_sessions,
    problems,
    session_target,
    target_name,
)

_SLOWER = "regressed"


def entry(context: Context) -> list[str]:
    """Return the sentence that this is an entry to the contest, with its link."""
    year = context.template
    return [context.words("readme_entry", year=year, link=CONTEST.format(year=year)), ""]


def findings(context: Context) -> list[str]:
    """Return the findings of bisections, and the engines that failed or were refused.

    "No problem" is returned only where everything was judged and passed, nothing got slower, and no record is missing,
    cut short or contradicts itself.
    """
    words, records = context.words, context.records
    lines = []
    for found in records.bisections:
        data = found.data
        plan = ""
        if data["plan"] is not None:
            kept = context.listed(map(code, data["plan"])) or words("none")
            plan = f"{words('diag_join')}{context.line(words('kept_fp32'), kept)}"
        label = f"{code(data['subject'])} [{code(target_name(data))}]"
        finding = context.line(label, escape(words(f"kind_{data['kind']}")), escape(data["finding"]))
        lines.append(f"- {finding}{plan}")
    lines += _not_passed(context)
    lines += [f"- {escape(words.sentence(problem))}" for problem in problems(records)]
    if lines:
        return paragraphs([words("readme_findings")], list(dict.fromkeys(lines)))
    judged = [one.verdict for one in all_verdicts(records) if one.kind != "latency"]
    if not judged:
        return [words("readme_nothing_judged"), ""]
    return [words("readme_no_findings"), ""] if set(judged) == {"pass"} else []


def _not_passed(context: Context) -> list[str]:
    """Return a line per engine, variant or folder that did not pass or got slower; cases of one reason in one line."""
    words = context.words
    found = [(e.data, target_name(e.data), e.data["case"], e.data["verdict"]) for e in context.records.results]
    found += [
        (e.data, session_target(e.data), case_label(e.data), missing_verdict(e.data))
        for e in context.records.not_measured
    ]
    found += [
        ({**m["session"], "reason": latency_reason(m)}, session_target(m["session"]), case_label(m["session"]), _SLOWER)
        for m in newest_sessions(entry.data for entry in context.records.bench)
        if m["comparison"]["verdict"] == _SLOWER and not m["baseline"]
    ]
    names: dict[tuple[str, str, str, str], list[str]] = {}
    for data, engine, case, verdict in found:
        if verdict != "pass":
            names.setdefault((data["subject"], engine, verdict, data["reason"]), []).append(case)
    lines = [
        "- "
        + context.line(
            f"{code(subject)}/{context.listed(map(code, cases))} [{code(engine)}]",
            words("latency_regressed") if verdict == _SLOWER else context.verdict(verdict),
            escape(reason),
        )
        for (subject, engine, verdict, reason), cases in names.items()
    ]
    others = [
        one
        for one in all_verdicts(context.records)
        if one.kind in ("parts", "study", "score") and one.verdict != "pass"
    ]
    shown = (context.line(code(one.name), context.verdict(one.verdict), escape(one.reason)) for one in others)
    return [*lines, *(f"- {line}" for line in shown)]
