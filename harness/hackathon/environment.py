"""The machines of a hackathon report, its commits, and the commands that record it all again."""

from __future__ import annotations

from collections.abc import Mapping

from harness.hackathon.context import Context, distinct, paragraphs
from harness.records import Json
from harness.report import code, escape, fence, table


def environment(context: Context) -> list[str]:
    """Return every machine that recorded something, and the commit."""
    words, records = context.words, context.records
    lines = []
    for machine, names in records.environments:
        title = words("readme_environment", names=", ".join(map(code, names)))
        lines += paragraphs([title], table(context.heads("item", "value"), _machine(context, machine), words=2))
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
        "GPU": distinct(map(gpu_words, machine["gpus"])) or machine["no_gpu"],
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


def gpu_words(gpu: Mapping[str, object]) -> str:
    memory = gpu.get("memory_bytes")
    size = f", {memory / 2**30:.1f} GiB" if isinstance(memory, int) else ""
    return f"{gpu.get('name', '?')}{size}, compute capability {gpu.get('compute_capability', '?')}"


def commands(context: Context) -> list[str]:
    """Return the recorded commands as a block to be copied."""
    if not context.records.commands:
        return context.missing("commands")
    return paragraphs([context.words("readme_commands")], fence(context.records.commands, "bash"))
