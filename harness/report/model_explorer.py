"""Layer reports as node data of Google's Model Explorer, which colours the nodes of a graph by them.

The format and its keys: node_data_builder.py of google-ai-edge/model-explorer. A node is named by its id: in its view
of a PyTorch exported program (``.pt2``) that is the name of the value, in its ONNX extension the name of the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.files import file_name
from harness.records import save_json
from harness.report.facts import Json, compared, error_ratio, is_nonfinite_value, target_name

BEYOND = 1e9
"""Stands for a value that is not finite, and for more: JSON has no infinity."""
_WRONG, _PASSED_ON, _FINE = "#e57373", "#ffcc80", "#c8e6c9"
_COLOURS = {"nonfinite": _WRONG, "flip": _WRONG, "suspect": _WRONG, "passed_on": _PASSED_ON, "healed": _PASSED_ON,
            "ok": _FINE}  # fmt: skip
_INK = "#1b1f23"


def node_data(report: Json, nodes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the node data of one layer report: local error over its floor, with the colour of the mark.

    ``nodes`` are the names of the ONNX nodes by the values that they make. What was not compared has no entry, and of a
    node that makes several values the worst counts. Without the id of a graph it is for the one that is shown.
    """
    found: dict[str, dict[str, Any]] = {}
    for value in compared(report):
        name = value["name"] if nodes is None else nodes.get(value["name"], "")
        ratio = BEYOND if is_nonfinite_value(value) else error_ratio(value)
        if not name or ratio is None or found.get(name, {}).get("value", -1.0) >= ratio:
            continue
        colour = _COLOURS.get(value["mark"])
        shown = {"bgColor": colour, "textColor": _INK} if colour else {}
        found[name] = {"value": min(ratio, BEYOND), **shown}
    return {"results": found}


def save_node_data(reports: Sequence[Json], path: Path, nodes: Mapping[str, str] | None = None) -> list[Path]:
    """Write one file per layer report and return their paths: ``path``, or of several with their names in it.

    Raises UsageError where there is none, none of whose values has a node, or an ONNX file's nodes are not known.
    """
    if not reports:
        raise UsageError("the records hold no layer report; record one with parity verify SUBJECT --layers --json FILE")
    named = {_path(report, path, alone=len(reports) == 1): report for report in reports}
    if len(named) < len(reports):
        raise UsageError(
            f"several layer reports would be written to one file beside {path}; give the newest record only"
        )
    written = {file: _checked(report, nodes) for file, report in named.items()}
    for file, data in written.items():
        save_json(data, file)
    return list(written)


def _path(report: Json, path: Path, *, alone: bool) -> Path:
    name = file_name(path.stem, report["subject"], target_name(report), report["case"])
    return path if alone else path.with_name(f"{name}{path.suffix}")


def _checked(report: Json, nodes: Mapping[str, str] | None) -> dict[str, Any]:
    label = f"{report['subject']} {target_name(report)} {report['case']}"
    values = compared(report)
    if nodes is None and any(value["op"].startswith("onnx.") for value in values):
        raise UsageError(
            f"{label} is of an ONNX file, whose nodes have other names than their values; give --onnx MODEL"
        )
    data = node_data(report, nodes)
    if not data["results"]:
        where = "" if nodes is None else " at a named node of the file that --onnx names"
        raise UsageError(f"{label}: no value with a local error{where}, so there is nothing to show")
    return data
