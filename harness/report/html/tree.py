"""The modules of a network as a tree, each with the worst error below it and the time that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.records import MADE_HERE
from harness.report import facts
from harness.report.facts import Json
from harness.report.html.parts import Branch, Cell, Tree, bar, share
from harness.report.text import shown_mark
from harness.report.words import Words

MOST_BRANCHES = 2000
"""A tree with more modules ends at what is above them; the table has all."""


@dataclass
class _Node:
    """One module while the tree is made."""

    module: str
    values: list[Json] = field(default_factory=list)
    """Those below it as well."""
    ms: float = 0.0
    """With those below it."""
    below: dict[str, _Node] = field(default_factory=dict)


def module_tree(
    report: Json, times: Mapping[str, float], id: str, table: str, labels: tuple[str, ...], t: Words
) -> Tree | None:
    """Return the tree of a layer report; ``times`` has the milliseconds of modules, empty where nothing was timed.

    ``table`` is the table of its values. Modules are in dataflow order, chains of one module are one row, and what
    holds the worst value is open. There is none where every value is at the root.
    """
    values = facts.compared(report)
    root = _Node(module="")
    for value in values:
        _add(root, value["module"], value, 0.0)
    for module, ms in times.items():
        _add(root, module, None, ms)
    if not root.below:
        return None
    worst = facts.worst_first(values)[0] if values else None
    bad = facts.nonfinite_names(report)
    room = [MOST_BRANCHES]
    found = _branches(root, worst if worst and worst["mark"] in MADE_HERE else None, bad, root.ms, room, t)
    return Tree(id=id, caption=t("tree_caption"), table=table, timed=bool(root.ms), branches=found, labels=labels)


def _add(root: _Node, module: str, value: Json | None, ms: float) -> None:
    """Put a value, or time, into a module and all that hold it."""
    node, parts = root, module.split(".") if module else []
    for depth, part in enumerate(("", *parts)):
        node = node.below.setdefault(part, _Node(module=".".join(parts[:depth]))) if depth else root
        node.values += [value] if value is not None else []
        node.ms += ms


def _branches(
    node: _Node, worst: Json | None, bad: set[str], total: float, room: list[int], t: Words
) -> tuple[Branch, ...]:
    room[0] -= len(node.below)
    if room[0] < 0:
        return ()
    return tuple(_branch(name, one, worst, bad, total, room, t) for name, one in node.below.items())


def _branch(
    name: str, node: _Node, worst: Json | None, bad: set[str], total: float, room: list[int], t: Words
) -> Branch:
    while len(node.below) == 1:  # a chain is one row; what its upper modules compute themselves is in its figures
        ((part, only),) = node.below.items()
        if len(only.values) < len(node.values) or only.ms < node.ms:
            break
        name, node = f"{name}.{part}", only
    return Branch(
        name=name,
        module=node.module,
        count=len(node.values),
        error=_error(node.values, bad, t),
        time=share(node.ms / total if total else None),
        open=worst is not None and any(value is worst for value in node.values),
        below=_branches(node, worst, bad, total, room, t),
    )


def _error(values: Sequence[Json], bad: set[str], t: Words) -> Cell:
    """Return the worst error over its floor as a bar; red where an error is made below that reaches the outputs."""
    if not values:
        return bar(None, "")
    worst = facts.worst_first(values)[0]
    mark, ratio = shown_mark(worst, bad), facts.error_ratio(worst)
    made = mark in MADE_HERE
    if mark == "nonfinite":
        return bar(float("inf"), t("mark_nonfinite"), "bad")
    return bar(ratio, "" if ratio is None else f"{ratio:.3g}x", "bad" if made else "")
