"""Where an engine's time goes, as plain text: its slowest kernels, and the time by module where that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.facts import Json, by_module, case_label, session_target
from harness.report.text.tables import ascii_safe, columns, ms, wrapped

KERNELS, MODULES = 12, 12


def kernels_table(measured: Json, *, rows: int = KERNELS) -> str:
    """Return the kernels that take longest and, where kernels are known to belong to modules, the time by module."""
    found = measured["kernels"]
    session = measured["session"]
    where = f"{session['subject']} {case_label(session)} [{session_target(session)}]"
    title = f"{where}: {len(found)} kernels, each timed separately"
    blocks = [wrapped("", title), _kernel_rows(found, rows)]
    if any(kernel["module"] for kernel in found):
        blocks.append(_module_rows(found, MODULES))
    return ascii_safe("\n\n".join("\n".join(block) for block in blocks))


def _kernel_rows(found: Sequence[Json], rows: int) -> list[str]:
    shown = [([ms(k["ms"]), f"{k['share']:.1%}", k["module"] or "-"], [k["name"]]) for k in found[:rows]]
    return columns(("ms", "share", "module", "kernel"), shown) + _rest(found, rows, "kernels")


def levels(kernels: Sequence[Json], rows: int) -> Sequence[Json]:
    """Return the kernels with their modules cut to the most levels for which there are at most ``rows`` of them."""
    deepest = max((kernel["module"].count(".") + 1 for kernel in kernels), default=1)
    for depth in range(deepest, 0, -1):
        cut = [{**kernel, "module": ".".join(kernel["module"].split(".")[:depth])} for kernel in kernels]
        if len({kernel["module"] for kernel in cut}) <= rows:
            break
    return cut


def _module_rows(found: Sequence[Json], rows: int) -> list[str]:
    modules = by_module(levels(found, rows))
    shown = [
        ([ms(time), f"{share:.1%}", str(count)], [module or "(of no one module)"])
        for module, (time, share, count) in list(modules.items())[:rows]
    ]
    return columns(("ms", "share", "kernels", "module"), shown) + _rest(list(modules), rows, "modules")


def _rest(found: Sequence[Any], rows: int, what: str) -> list[str]:
    return [f"... and {len(found) - rows} more {what}; the JSON has them all"] if len(found) > rows else []
