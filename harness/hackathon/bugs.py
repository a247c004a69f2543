"""Bug reports in the contest's form, for every fault of an engine or of the export that a bisection found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.errors import ParityError
from harness.hackathon.context import Context
from harness.hackathon.environment import machine_rows
from harness.records import Entry
from harness.report import escape, fence, target_name

_FAULTS = ("engine", "export")
SCRIPT, ISSUE = "reproduce.py", "issue.md"
"""What runs a reproducer (a plan that avoids the fault is no step to it), and the report that stands beside it."""


def bugs(context: Context) -> list[str]:
    """Return a report in the contest's form for every fault of an engine or the export that bisect found."""
    words, bisections = context.words, context.recorded.bisections
    found = [e for e in bisections if e.data["kind"] in _FAULTS]
    # One that was cut short has not shown its engine to be right.
    cut = [e for e in bisections if e.data["kind"] == "none" and not (e.document.complete and e.data["complete"])]
    unjudged = [*(e for e in bisections if e.data["kind"] == "not_judged"), *cut]
    lines = [line for number, one in enumerate(found, start=1) for line in _bug(context, number, one)]
    if unjudged:
        lines += [words("readme_bisections_not_judged", count=len(unjudged), all=len(bisections)), ""]
    return lines or [words("readme_no_bugs" if bisections else "readme_not_bisected"), ""]


def _bug(context: Context, number: int, found: Entry) -> list[str]:
    """Return one report in the contest's form; it is English in every language, because that is where it is sent."""
    data, issue = found.data, _issue(found)
    title = context.words(
        "readme_bug", number=number, subject=escape(data["subject"]), target=escape(target_name(data))
    )
    if issue is None:
        steps, environment = [line for line in data["commands"] if SCRIPT in line], _environment(found)
        steps = steps or [found.document.command]
        expected = f"The outputs are as near to PyTorch FP32 as PyTorch {data['precision']} is."
        actual = [data["finding"]]
    else:
        steps = [f"cd {data['reproducer']}", *issue.steps]
        environment, expected, actual = issue.environment, issue.expected, [data["finding"], *issue.actual]
    region = f"Values: {', '.join(data['region'])}" if data["region"] else ""
    asked = "; ".join(
        f"{gate['question']} {gate['answer']}: {gate['detail']}" for gate in data["gates"] if gate["detail"]
    )
    notes = [asked, *("; ".join(filter(None, advice.values())) for advice in data["advice"]), *data["notes"]]
    whole = f"The whole report, to be sent: {data['reproducer']}/{ISSUE}" if issue else ""
    return [
        f"### {title}", "",
        f"- Environment: {escape('; '.join(environment))}",
        "- Reproduction Steps", "", *(f"  {line}" for line in fence(steps, "bash")), "",
        f"- Expected Behavior: {escape(expected)}",
        f"- Actual Behavior: {escape('; '.join(filter(None, [*actual, region])))}",
        *_bullets("Additional Notes", [*notes, whole]),
        "",
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Issue:
    """What the README takes of the issue.md beside a reproducer."""

    environment: list[str]
    steps: list[str]
    expected: str
    actual: list[str]
    """What the script printed."""


def _issue(found: Entry) -> _Issue | None:
    """Return what the issue beside the reproducer says; None where there is none that a bisection wrote."""
    folder = PurePosixPath(found.data["reproducer"].replace("\\", "/"))
    for start in range(len(folder.parts)):
        try:
            text = found.document.file(str(PurePosixPath(*folder.parts[start:]) / ISSUE)).read_text(encoding="utf-8")
            return _parsed(text)
        except (ParityError, OSError, UnicodeDecodeError, ValueError):
            continue  # the record may lie in another folder than the one it was recorded in
    return None


def _parsed(text: str) -> _Issue:
    """Raises ValueError for a text that is no such issue."""
    sections = {part.partition("\n")[0].strip(): part.partition("\n")[2] for part in re.split(r"(?m)^## ", text)[1:]}
    try:
        environment, steps = sections["Environment"], sections["Steps To Reproduce"]
    except KeyError as error:
        raise ValueError(f"it has no section {error}") from error
    before, _, after = steps.partition("**Expected**: ")
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in after.split("\n") if line[:3] == "| `"
    ]
    allowed = "; ".join(f"{row[0]} {row[2]}: relative L2 error at most {row[-1]}" for row in rows)
    return _Issue(
        environment=[f"{name}: {value}" for name, value in re.findall(r"(?m)^\*\*(.+?)\*\*: (.*)$", environment)],
        steps=_fenced(before),
        expected=": ".join(filter(None, [after.partition("\n")[0].rstrip(":").replace("`", ""), allowed])),
        actual=_fenced(after.partition("**Actual**")[2])[-1:],
    )


def _fenced(text: str) -> list[str]:
    """Return the lines of the first block of code."""
    found = re.search(r"(?ms)^```\w*\n(.*?)^```", text)
    return found[1].rstrip("\n").split("\n") if found else []


def _environment(found: Entry) -> list[str]:
    machine, name = found.document.environment, found.data["backend"]
    if not machine:
        return ["not recorded"]
    rows = machine_rows(machine)
    shown = (f"backend {name}", "CUDA", "cuBLAS", "cuDNN", "container", "NVIDIA driver", "GPU", "torch")
    return [f"{key}: {(rows[key] or 'none') if key in rows else 'not recorded'}" for key in shown]


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    """Return a bullet with one below it for each line; nothing where there is none."""
    shown = [f"  - {escape(line)}" for line in lines if line]
    return [f"- {title}", *shown] if shown else []
