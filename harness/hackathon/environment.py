"""The machines of a hackathon report, its commits, and the commands that record it all again."""

from __future__ import annotations

from harness.hackathon.context import Context, distinct, paragraphs
from harness.records import Json
from harness.report import code, escape, fence, table
from harness.report.text import gpu_words

_OR_NONE = ("NVIDIA driver", "CUDA", "cuDNN", "cuBLAS", "container")
"""What a machine may be without."""
_GROUPS = {
    "hardware": ("GPU", "CPU", "RAM"),
    "cuda": ("NVIDIA driver", "CUDA", "cuDNN", "cuBLAS"),
    "system": ("OS", "Python", "container"),
}
"""What stands in one row of the table; packages and backends make the last."""


def environment(context: Context) -> list[str]:
    """Return every machine that recorded something, and the commit."""
    words, records = context.words, context.records
    lines = []
    for machine, names in records.environments:
        title = words("readme_environment", names=context.listed(map(code, names)))
        lines += paragraphs([title], table(context.heads("item", "what"), _machine(context, machine), words=2))
    if not records.environments:
        lines += context.missing("environment")
    if not records.commits:
        return lines + context.missing("commit")
    lines += [words("readme_commit", commits=context.listed(map(code, records.commits))), ""]
    if records.uncommitted:
        lines += [words("readme_dirty"), ""]
    return lines


def _machine(context: Context, machine: Json) -> list[list[str]]:
    """Return a row per group: what it is, and each name with its version."""
    words, known = context.words, machine_rows(machine)
    unknown, none = map(words, ("not_recorded", "none"))
    named = {key: [name for name in names if name in known] for key, names in _GROUPS.items()}
    named["packages"] = [name for name in known if not any(name in names for names in _GROUPS.values())]

    def shown(name: str) -> str:
        version = (known[name] or "").replace(", ", words("list_comma"))
        return context.line(name, escape(version) if version else none if name in _OR_NONE else unknown)

    rows = [
        [words(f"readme_machine_{key}"), words("diag_join").join(map(shown, names))] for key, names in named.items()
    ]
    return [row for row in rows if row[1]]


def machine_rows(machine: Json) -> dict[str, str | None]:
    """Return what a machine is and has by name; empty or None where it is not known or not there."""
    rows = {
        "GPU": distinct(map(gpu_words, machine["gpus"])) or machine["no_gpu"],
        "NVIDIA driver": machine["driver"],
        "CUDA": machine["cuda"],
        "CPU": f"{machine['cpu']} ({machine['cpu_count']})" if machine["cpu"] else "",
        "OS": machine["platform"],
        "Python": machine["python"],
    }
    memory = machine.get("memory_bytes")
    since = {"RAM": f"{memory / 2**30:.0f} GiB" if memory else None}
    since |= {name: machine.get(name.lower()) for name in _OR_NONE[2:]}
    rows |= {name: value for name, value in since.items() if value is not None}  # older records do not have them
    rows |= {name: version for name, version in machine["packages"].items() if version}
    backends = machine["backends"].items()
    rows |= {f"backend {name}": status.get("version") for name, status in backends if status.get("version")}
    return rows


def commands(context: Context) -> list[str]:
    """Return the recorded commands as a block to be copied."""
    if not context.records.commands:
        return context.missing("commands")
    return paragraphs([context.words("readme_commands")], fence(context.records.commands, "bash"))
