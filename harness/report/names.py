"""Names in sentences: short, and never ambiguous."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.report.facts import Json

LONGEST_NAME = 40
"""Characters of a name in a sentence; tables and the JSON have the whole."""
_PART = re.compile(r"(?<=[/;:.])(?=.)")


def short_name(name: str, others: Iterable[str]) -> str:
    """Return the end of a long name by which it is told from the others: ``...dense_1/Tanh`` of ``a;b/dense_1/Tanh``.

    A name that no end of at most ``LONGEST_NAME`` characters tells stays whole.
    """
    parts, end = _PART.split(name), ""
    if len(name) <= LONGEST_NAME:
        return name
    rest = [other for other in others if other != name]
    for part in reversed(parts[1:]):
        end = part + end
        if len(end) > LONGEST_NAME:
            break
        if len(end) >= LONGEST_NAME // 4 and not any(other.endswith(end) for other in rest):
            return f"...{end}"
    return name


def known_names(result: Json, culprits: Sequence[Json]) -> dict[str, set[str]]:
    """Return the names of all values, modules and kernels that a short name must not be taken for."""
    values = [*(result.get("layers") or {}).get("values", ()), *({**one, "name": one["value"]} for one in culprits)]
    return {
        "value": {value["name"] for value in values} | {output["name"] for output in result["outputs"]},
        "module": {value["module"] for value in values},
        "inside": {value.get("kernel") or value.get("inside") or "" for value in values},
    }
