"""The other generated parts of a hackathon report: the entry, findings, environment, commands and bug reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.hackathon import accuracy, speed, wenet
from harness.hackathon.context import Context, distinct
from harness.hackathon.template import CONTEST
from harness.records import Entry, Json
from harness.report import (
    all_verdicts,
    case_label,
    code,
    escape,
    fence,
    missing_verdict,
    session_target,
    table,
    target_name,
)

_FAULTS = ("engine", "export")


def entry(context: Context) -> list[str]:
    """Return the sentence that this is an entry, with the link that the contest asks for."""
    year = context.template
    return [context.words("readme_entry", year=year, link=CONTEST.format(year=year)), ""]


def findings(context: Context) -> list[str]:
    """Return what went wrong on the way, from bisections and from engines that failed or were refused.

    That nothing went wrong is said only where everything was judged and passed.
    """
    words, records = context.words, context.records
    lines = []
    for found in records.bisections:
        data = found.data
        plan = ""
        if data["plan"] is not None:
            plan = f"; {words('head_kept_fp32')}: {', '.join(map(code, data['plan'])) or words('none')}"
        label = f"{code(data['subject'])} [{code(target_name(data))}]"
        lines.append(f"- {label}: {escape(words('kind_' + data['kind']))}: {escape(data['finding'])}{plan}")
    lines += _not_passed(context)
    if lines:
        return [words("readme_findings"), "", *dict.fromkeys(lines), ""]
    judged = [one.verdict for one in all_verdicts(records) if one.kind != "latency"]
    if not judged:
        return [words("readme_nothing_judged"), ""]
    return [words("readme_no_findings"), ""] if set(judged) == {"pass"} else []


def _not_passed(context: Context) -> list[str]:
    """Return a line per engine that failed, was refused or could not be timed; cases of one reason stand together."""
    found = [(e.data, target_name(e.data), e.data["case"], e.data["verdict"]) for e in context.records.results]
    found += [
        (e.data, session_target(e.data), case_label(e.data), missing_verdict(e.data))
        for e in context.records.not_measured
    ]
    names: dict[tuple[str, str, str, str], list[str]] = {}
    for data, engine, case, verdict in found:
        if verdict != "pass":
            names.setdefault((data["subject"], engine, verdict, data["reason"]), []).append(case)
    return [
        f"- {code(subject)}/{', '.join(map(code, dict.fromkeys(cases)))} [{code(engine)}]: "
        f"{context.verdict(verdict)}: {escape(reason)}"
        for (subject, engine, verdict, reason), cases in names.items()
    ]


def environment(context: Context) -> list[str]:
    """Return every machine that recorded something, and the commit."""
    words, records = context.words, context.records
    lines = []
    for machine, names in records.environments:
        lines += [words("readme_environment", names=", ".join(map(code, names))), ""]
        headings = [words("head_item"), words("head_value")]
        lines += [*table(headings, _machine(context, machine), words=2), ""]
    if not records.environments:
        lines += context.missing("environment")
    if not records.commits:
        return lines + context.missing("commit")
    lines += [words("readme_commit", commits=", ".join(map(code, records.commits))), ""]
    if records.uncommitted:
        lines += [words("readme_dirty"), ""]
    return lines


def _machine(context: Context, machine: Json) -> list[list[str]]:
    unknown, none = map(context.words, ("not_recorded", "none"))
    rows = {
        "GPU": distinct(map(_gpu, machine["gpus"])) or machine["no_gpu"],
        "NVIDIA driver": machine["driver"] or none,
        "CUDA": machine["cuda"] or none,
        "CPU": f"{machine['cpu']} ({machine['cpu_count']})" if machine["cpu"] else "",
        "OS": machine["platform"],
        "Python": machine["python"],
    }
    rows |= {name: version for name, version in machine["packages"].items() if version}
    backends = machine["backends"].items()
    rows |= {f"backend {name}": status.get("version") for name, status in backends if status.get("version")}
    return [[escape(name), escape(text) if text else unknown] for name, text in rows.items()]


def _gpu(gpu: Mapping[str, object]) -> str:
    memory = gpu.get("memory_bytes")
    size = f", {memory / 2**30:.1f} GiB" if isinstance(memory, int) else ""
    return f"{gpu.get('name', '?')}{size}, compute capability {gpu.get('compute_capability', '?')}"


def commands(context: Context) -> list[str]:
    """Return the recorded commands as a block to be copied."""
    if not context.records.commands:
        return context.missing("commands")
    return [context.words("readme_commands"), "", *fence(context.records.commands, "bash"), ""]


def bugs(context: Context) -> list[str]:
    """Return a report in the contest's form for every fault of an engine or the export that bisect found."""
    words, bisections = context.words, context.records.bisections
    found = [e for e in bisections if e.data["kind"] in _FAULTS]
    unjudged = [e for e in bisections if e.data["kind"] == "not_judged"]
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
    steps = data["commands"] or [found.document.command]
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
    versions = {
        f"backend {name}": machine["backends"].get(name, {}).get("version"),
        "CUDA": machine["cuda"],
        "NVIDIA driver": machine["driver"],
        "Container": "see the section on the environment",
        "GPU": distinct(map(_gpu, machine["gpus"])) or machine["no_gpu"],
        "torch": machine["packages"].get("torch"),
    }
    return [f"{key}: {text or 'not recorded'}" for key, text in versions.items()]


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    return [f"- {title}", *(f"  - {escape(line)}" for line in lines if line)]


PARTS: dict[str, Callable[[Context], list[str]]] = {
    "entry": entry,
    "numbers": accuracy.numbers,
    "findings": findings,
    "variants": speed.variants,
    "layers": accuracy.layers,
    "labels": accuracy.labels,
    "accuracy": accuracy.accuracy,
    "metrics": accuracy.metrics,
    "scores": accuracy.scores,
    "wenet": wenet.part,
    "performance": speed.performance,
    "environment": environment,
    "commands": commands,
    "bugs": bugs,
}
"""Every generated part by the name that ``TEMPLATES`` gives it."""
