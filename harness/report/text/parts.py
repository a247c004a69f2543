"""The parts of a model as plain text: a table per case and target, and why parts did not pass."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.facts import Json, target_name
from harness.report.text.tables import aligned, ascii_safe, explained, number, plural, verdict_word, wrapped

_HEADINGS = ("part", "class", "output", "verdict", "rel err", "floor", "ratio")


def parts_text(found: Sequence[Json]) -> str:
    """Return the parts of a model, a table per case and target, with the reasons in full and the legend."""
    blocks = [_block(one) for one in found if one["parts"]]
    if not blocks:
        return "no verdicts: no part was run"
    terms = {"rel err": "rel_err", "floor": "floor", "ratio": "ratio"}
    legend = wrapped("", f"{explained(terms, (one['precision'] for one in found))}.")
    return "\n\n".join([*blocks, "\n".join(legend)])


def part_counts(parts: Sequence[Json]) -> str:
    """Return ``12 parts: 3 passed, 1 failed, 8 not reached``."""
    names = {
        "pass": "passed",
        "fail": "failed",
        "known": "known",
        "not_judged": "not judged",
        "not_reached": "not reached",
    }
    keys = [part["verdict"] if part["reached"] else "not_reached" for part in parts]
    return f"{plural(len(parts), 'part')}: " + ", ".join(f"{keys.count(k)} {w}" for k, w in names.items() if k in keys)


def part_figures(part: Json) -> tuple[str, str, str]:
    """Return error, floor and ratio as the tables print them."""
    return number(part["error"]), number(part["floor"]), number(part["ratio"])


def failed_part_text(found: Json) -> str:
    """Return what is wrong with the parts of a model: a sentence per part that failed, then what to type next."""
    label = f"{found['subject']} [{found['backend']} {found['precision']}]"
    failed = [part for part in found["parts"] if part["verdict"] == "fail"]
    lines = [f"{label} {part['module']}: {part['reason']}" for part in failed]
    lines += [f"next: {part['next_step']}" for part in failed if part["next_step"]]
    return ascii_safe("\n".join([*lines, part_counts(found["parts"])]))


def _block(found: Json) -> str:
    shown = [part for part in found["parts"] if part["reached"]]
    where = f"up to {found['upto']}" if found["upto"] else f"in {found['prefix']}" if found["prefix"] else ""
    head = [found["subject"], target_name(found), found["case"], where, f"weights: {found['weights']}",
            f"inputs: {found['inputs']}", f"device: {found['device']}" if found["device"] else ""]  # fmt: skip
    rows = [(p["module"], p["kind"], p["output"] or "-", verdict_word(p["verdict"]), *part_figures(p)) for p in shown]
    lines = wrapped("", " | ".join(filter(None, head)), indent="  ")
    lines += aligned([_HEADINGS, *([ascii_safe(cell) for cell in row] for row in rows)], words=4)
    for part in shown:
        lines += wrapped(f"{part['module']}: ", part["reason"]) if part["verdict"] != "pass" else []
    notes: dict[str, list[str]] = {}
    for part in shown:
        for note in part["notes"]:
            notes.setdefault(note, []).append(part["module"])
    for note, modules in notes.items():
        lines += wrapped("note: " if len(modules) == len(shown) else f"note: {_few(modules)}: ", note)
    lines += wrapped("not run by any case: ", ", ".join(found["not_run"])) if found["not_run"] else []
    hidden = [part for part in found["parts"] if not part["reached"]]
    lines += wrapped(f"{plural(len(hidden), 'part')} behind it {hidden[0]['reason']}", "") if hidden else []
    lines += [f"    next: {part['next_step']}" for part in shown if part["next_step"]]
    return "\n".join([*lines, part_counts(found["parts"])])


def _few(modules: Sequence[str]) -> str:
    return ", ".join(modules) if len(modules) < 4 else plural(len(modules), "part")
