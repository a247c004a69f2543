"""Bug reports in the contest's form, for every fault of an engine or of the export that a bisection found."""

from __future__ import annotations

from collections.abc import Sequence

from harness.hackathon.context import Context
from harness.hackathon.environment import machine_rows
from harness.records import Entry
from harness.report import escape, fence, target_name

_FAULTS = ("engine", "export")
SCRIPT = "reproduce.py"
"""What runs a reproducer: a plan that avoids the fault is no step to it."""


def bugs(context: Context) -> list[str]:
    """Return a report in the contest's form for every fault of an engine or the export that bisect found."""
    words, bisections = context.words, context.records.bisections
    found = [e for e in bisections if e.data["kind"] in _FAULTS]
    # One that was cut short has not shown its engine to be right.
    cut = [e for e in bisections if e.data["kind"] == "none" and not (e.document.complete and e.data["complete"])]
    unjudged = [*(e for e in bisections if e.data["kind"] == "not_judged"), *cut]
    lines = [line for number, one in enumerate(found, start=1) for line in _bug(context, number, one)]
    if unjudged:
        lines += [words("readme_bisections_not_judged", count=len(unjudged), all=len(bisections)), ""]
    return lines or [words("readme_no_bugs" if bisections else "readme_not_bisected"), ""]


def _bug(context: Context, number: int, found: Entry) -> list[str]:
    """Return one report; its headings are English in every language, because that is where it is sent."""
    data = found.data
    title = context.words(
        "readme_bug", number=number, subject=escape(data["subject"]), target=escape(target_name(data))
    )
    lower = f"PyTorch {data['precision']}"
    steps = [line for line in data["commands"] if SCRIPT in line] or [found.document.command]
    notes = [f"{asked['question']} {asked['answer']}: {asked['detail']}" for asked in data["gates"]]
    notes += [
        "; ".join(advice[key] for key in ("indicator", "meaning", "action") if advice[key]) for advice in data["advice"]
    ]
    return [
        f"### {title}", "",
        *_bullets("Environment", _bug_environment(found)),
        "- Reproduction Steps", "", *(f"  {line}" for line in fence(steps, "bash")), "",
        *_bullets("Expected Behavior", [f"The outputs are as near to PyTorch FP32 as {lower} is."]),
        *_bullets("Actual Behavior", [data["finding"], f"Values: {', '.join(data['region']) or 'none named'}"]),
        *_bullets("Additional Notes", [*notes, *data["notes"]]),
        "",
    ]  # fmt: skip


def _bug_environment(found: Entry) -> list[str]:
    machine, name = found.document.environment, found.data["backend"]
    if not machine:
        return ["not recorded"]
    rows = {**machine_rows(machine), "Container": "see the section on the environment"}
    shown = (f"backend {name}", "CUDA", "NVIDIA driver", "Container", "GPU", "torch")
    return [f"{key}: {rows.get(key) or 'not recorded'}" for key in shown]


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    return [f"- {title}", *(f"  - {escape(line)}" for line in lines if line)]
