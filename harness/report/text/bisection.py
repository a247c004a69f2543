"""A bisection as plain text: the questions and answers, the kind of fault, what to keep in FP32, what to type next.

Everything here takes the dict of ``Bisection.to_json()``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.records import plan_lines
from harness.report.facts import Json, trial_verdict
from harness.report.text.layers import layers_title
from harness.report.text.tables import WORDS, ascii_safe, columns, number, plural, verdict_word, wrapped

FORMATS = ("fp16", "bf16")
_REGIONS = {
    "precision": "too inexact in low precision",
    "engine": "values that show it",
    "export": "values that differ",
}
MOST_TRIALS = 12
MOST_PATTERNS = 4
"""Patterns of one trial that are shown."""
MOST_VALUES = 16
"""Values of a region that are shown."""


def bisection_text(bisection: Json) -> str:
    """Return a bisection as text; the commands come last, unwrapped, to be copied."""
    blocks = [
        [f"{layers_title(bisection)} | bisection"],
        _questions(bisection["gates"]),
        _finding(bisection),
        _plan(bisection),
        _price(bisection["price"]),
        _trials(bisection),
        [line for note in bisection["notes"] for line in wrapped("note: ", note)],
        [line for advice in bisection["advice"] for line in _advice(advice)],
        [f"next: {command}" for command in bisection["commands"]],
    ]
    return ascii_safe("\n\n".join("\n".join(block) for block in blocks if block))


def plan_snippet(patterns: Sequence[str], precision: str) -> list[str]:
    """Return the lines of a plan file; without its ``precision`` line when that is a plan's name and no format."""
    return plan_lines(precision if precision in FORMATS else "", patterns)


def _questions(questions: Sequence[Json]) -> list[str]:
    if not questions:
        return ["no question was asked"]
    width = max(len(asked["question"]) for asked in questions)
    lines = []
    for place, asked in enumerate(questions, start=1):
        label = f"{place:>2} {asked['question']:<{width}}  {_answer(asked):<9}  "
        lines += wrapped(label, asked["detail"]) if asked["detail"] else [label.rstrip()]
    return lines


def _answer(asked: Json) -> str:
    return WORDS(f"answer_{asked['answer'].replace(' ', '_')}")


def _finding(bisection: Json) -> list[str]:
    kind = bisection["kind"]
    lines = wrapped("finding: ", WORDS(f"kind_{kind}"))
    if bisection["finding"]:
        lines += wrapped("  ", bisection["finding"])
    if bisection["region"]:
        names, more = bisection["region"][:MOST_VALUES], len(bisection["region"]) - MOST_VALUES
        rest = f" and {more} more, which the JSON has" if more > 0 else ""
        lines += wrapped(f"{_REGIONS.get(kind, 'region')}: ", ", ".join(names) + rest)
    if bisection["reproducer"]:
        lines.append(f"reproducer: {bisection['reproducer']}")
    return lines


def _plan(bisection: Json) -> list[str]:
    """Return the plan as its file has it, or that there is none, and how many engines that took."""
    plan = bisection["plan"]
    lines = []
    if plan is not None:
        where = f" ({bisection['plan_file']})" if bisection["plan_file"] else ""
        words = "smallest plan found that" if bisection["complete"] else "a plan that"
        lines = [f"{words} passes on the engine, {plural(len(plan), 'pattern')} kept in FP32{where}:"]
        lines += [f"  {line}" for line in plan_snippet(plan, bisection["precision"])]
        if bisection["precision"] not in FORMATS:
            lines += wrapped("  ", f"beside what {bisection['precision']} keeps in FP32 already; the file has both")
    elif bisection["kind"] not in ("none", "not_judged"):
        tried = any(trial["where"] == "engine" for trial in bisection["trials"])
        lines = ["plan: none passed" if tried else "plan: none was tried"]
    built, gates, most = bisection["builds"], bisection["gate_builds"], bisection["max_builds"]
    lines.append(f"engines built: {built} of {most} allowed, {gates} of them for the questions")
    if not bisection["complete"]:
        ending = "a smaller plan may exist" if plan is not None else "a plan that passes may exist"
        lines += wrapped("", f"the search was not finished: {ending}; the same command resumes it")
    return lines


def _price(price: Json | None) -> list[str]:
    """Return the time of the plan's engine beside both extremes; a ratio above 1 is slower than that engine."""
    if price is None:
        return []
    rows = []
    for words, key in (("plan", "plan_ms"), ("all low precision", "low_ms"), ("FP32", "fp32_ms")):
        took = price[key]
        ratios = [number(_over(took, price[other])) for other in ("low_ms", "fp32_ms")]
        rows.append(([words, number(took), *ratios], [""]))
    return columns((f"run time on {price['device']}", "median ms", "over low", "over FP32", ""), rows)


def _over(first: float | None, second: float | None) -> float | None:
    return first / second if first is not None and second else None


def _trials(bisection: Json) -> list[str]:
    """Return the trials on engines before those in PyTorch, what passed first; those beyond the first are counted."""
    trials = sorted(bisection["trials"], key=lambda trial: (trial["where"] != "engine", trial["passed"] is not True))
    rows = []
    for trial in trials[:MOST_TRIALS]:
        words = [_kept(trial["keep_fp32"]), trial["reason"] if trial["passed"] is not True else ""]
        rows.append(([trial["where"], verdict_word(trial_verdict(trial)), number(trial["error"])], words))
    if not rows:
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


def _advice(advice: Json) -> list[str]:
    """Return what was seen, what it means and what to do as a labelled line each."""
    labels = {"indicator": "indicator: ", "meaning": "  meaning: ", "action": "  do:      "}
    return [line for key, label in labels.items() if advice[key] for line in wrapped(label, advice[key])]
