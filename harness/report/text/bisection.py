"""A bisection as plain text: the diagnosis with the plan, the plans tried, the questions answered badly, what is next.

Everything here takes the dict of ``Bisection.to_json()``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.records import IS_WRONG, plan_lines
from harness.report.facts import Json, trial_verdict
from harness.report.text.diagnosis import bisection_lines, diagnosis_text
from harness.report.text.tables import WORDS, ascii_safe, columns, number, plural, verdict_word, wrapped

FORMATS = ("fp16", "bf16")
MOST_TRIALS = 8
MOST_PATTERNS = 4
"""Patterns of one trial that are shown."""


def bisection_text(found: Json) -> str:
    """Return a bisection as text; the commands beyond the first come last, unwrapped, to be copied."""
    blocks = [
        [*diagnosis_text(bisection_lines(found)), *_actions(found)],
        _goal(found),
        _trials(found),
        _questions(found),
        [line for note in found["notes"] for line in wrapped("note: ", note)],
        [f"next: {command}" for command in found["commands"][1:]],
    ]
    return ascii_safe("\n\n".join("\n".join(block) for block in blocks if block))


def plan_snippet(patterns: Sequence[str], precision: str) -> list[str]:
    """Return the lines of a plan file; without its ``precision`` line when that is a plan's name and no format."""
    return plan_lines(precision if precision in FORMATS else "", patterns)


def _actions(found: Json) -> list[str]:
    """Return what to do, once each."""
    return [line for action in dict.fromkeys(a["action"] for a in found["advice"]) for line in wrapped("do: ", action)]


def _goal(found: Json) -> list[str]:
    """Return what a plan may lose and why, how many values it keeps, and what more or fewer of them cost."""
    lines = []
    if goal := found["goal"]:
        limits = ", ".join(f"{name} {number(limit)}" for name, limit in goal["limits"].items())
        lines = wrapped("a plan may lose: ", f"{limits or 'nothing'}: {goal['reason']}")
    if found["plan"] is not None and found["plan_values"] is not None:
        patterns = plural(len(found["plan"]), "pattern")
        lines.append(f"the plan keeps {plural(found['plan_values'], 'value')} in FP32, by {patterns}")
    if rows := found["by_values"]:
        costs = (f"{row['values']}: {'not finite' if row['error'] is None else number(row['error'])}" for row in rows)
        lines += wrapped("PyTorch's error by values in FP32: ", ", ".join(costs))
    return lines


def _questions(found: Json) -> list[str]:
    """Return the questions answered badly or not asked, then how many were answered well, and the engines built.

    What the verdict above says is not repeated.
    """
    verdict = (found["result"] or {}).get("reason")
    asked = [one for one in found["gates"] if one["question"] != IS_WRONG and one["detail"] != verdict]
    shown = [question for question in asked if question["answer"] != question["good"]]
    lines = []
    for question in shown:
        answer = f"{question['question']} {WORDS('answer_' + question['answer'].replace(' ', '_'))}"
        lines += wrapped(answer, f": {question['detail']}" if question["detail"] else "")
    good = f"answered as they should be: {len(asked) - len(shown)} of {len(asked)} questions"
    built, gates, most = found["builds"], found["gate_builds"], found["max_builds"]
    words = f"{good if asked else 'no question was asked'}; engines built: {built} of {most} allowed, {gates} for them"
    if not found["complete"]:
        ending = "a smaller plan may exist" if found["plan"] is not None else "a plan that passes may exist"
        words += f"; the search was not finished: {ending}; the same command resumes it"
    return [*lines, *wrapped("", words)]


def _trials(found: Json) -> list[str]:
    """Return the trials on engines before those in PyTorch, what passed first; those beyond the first are counted."""
    trials = sorted(found["trials"], key=lambda trial: (trial["where"] != "engine", trial["passed"] is not True))
    rows = []
    for trial in trials[:MOST_TRIALS]:
        words = [_kept(trial["keep_fp32"]), trial["reason"] if trial["error"] is None else ""]
        rows.append(([trial["where"], verdict_word(trial_verdict(trial)), number(trial["error"])], words))
    if not rows or [trial["keep_fp32"] for trial in trials] == [found["plan"]]:
        return []
    lines = columns(("tried on", "result", "rel err", "kept in FP32, reason"), rows)
    if rest := trials[MOST_TRIALS:]:
        counts = Counter(verdict_word(trial_verdict(trial)) for trial in rest)
        numbers = ", ".join(f"{count} {result}" for result, count in counts.items())
        lines.append(f"{len(rest)} more trials, which the JSON has: {numbers}")
    return lines


def _kept(patterns: Sequence[str]) -> str:
    shown = ", ".join(patterns[:MOST_PATTERNS]) or "nothing"
    rest = len(patterns) - MOST_PATTERNS
    return f"{shown} and {rest} more" if rest > 0 else shown
