"""Entries for what a run recorded as failed, written at the end of the ledger: what stands there stays as it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from harness.ledger.entries import FILE, UPTO, Ledger, read
from harness.records import failure_kind, settled_result, times_limit, words_of_kind

Json = dict[str, Any]
MARGIN = 1.5
"""How many times as bad as it was recorded a failure may become: figures differ between machines and builds."""


def proposed(
    results: Iterable[Mapping[str, Any]], latencies: Iterable[Mapping[str, Any]] = (),
    models: Iterable[Mapping[str, Any]] = (),
) -> list[Json]:  # fmt: skip
    """Return the fields of entries for what failed and no entry covers: one per subject, target and kind of failure.

    ``models`` are those that were brought up part by part: each of their parts has an entry of its own.
    """
    found: dict[tuple[str, ...], Json] = {}
    for result in map(settled_result, results):
        _note_failed(found, result, result)
    for model in models:
        for part in model["parts"]:
            name = f"{UPTO if model['upto'] else ''}{part['module']}"
            _note_failed(found, model, part, name)
    for measured in latencies:
        comparison, known = measured["comparison"], measured["known"]
        slower = comparison["verdict"] == "regressed" and comparison["repeated"]
        if slower and (not known or known["why"]):
            _note(found, measured["session"], "regressed", comparison["ratio"])
    for entry in found.values():
        if entry["at_most"] is None:
            del entry["at_most"]
    return list(found.values())


def _note_failed(
    found: dict[tuple[str, ...], Json], one: Mapping[str, Any], judged: Mapping[str, Any], part: str = ""
) -> None:
    """Note what was judged, where it failed and no entry covers that."""
    kind = failure_kind(judged)
    passes = (judged["known"] or {}).get("verdict") == "pass"
    if kind and judged["verdict"] != "known" and not passes:
        _note(found, one, kind, times_limit(judged) if kind == "wrong_answer" else None, part)


def _note(
    found: dict[tuple[str, ...], Json], one: Mapping[str, Any], kind: str, times: float | None, part: str = ""
) -> None:
    names = (one["subject"], f"{one['backend']} {one['precision']}", words_of_kind(kind), part)
    fields = dict(zip(("subject", "target", "kind", "part"), names, strict=True))
    entry = found.setdefault(names, {**fields, "case": [], "at_most": None, "owner": one.get("owner", "")})
    if one["case"] not in entry["case"]:
        entry["case"].append(one["case"])
    if times is not None:
        entry["at_most"] = max(entry["at_most"] or 1.0, _rounded_up(times * MARGIN))


def _rounded_up(value: float) -> float:
    """Return a figure with two digits, no smaller than it is."""
    if not math.isfinite(value):
        return math.inf
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def entry_text(fields: Mapping[str, Any]) -> str:
    """Return an entry as TOML; empty fields are left out."""
    order = ("subject", "target", "case", "part", "kind", "at_most", "reason", "issue", "owner", "expires")
    lines = [f"{key} = {_toml(fields[key])}" for key in order if fields.get(key) not in (None, "", [])]
    return "\n".join(["[[known]]", *lines, ""])


def _toml(value: object) -> str:
    if isinstance(value, list):
        return _toml(value[0]) if len(value) == 1 else f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (date, float)):
        return str(value)
    # A JSON string is a TOML string, but for the one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def with_entries(root: Path, given: Path | None, texts: Sequence[str]) -> tuple[Path, str, Ledger]:
    """Return the ledger's path, its text with these entries at the end, and what that text holds.

    Raises UsageError where it would not be a ledger: a field that is none, an entry that another one overlaps.
    """
    path = given or root / FILE
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    end = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    text = f"{before}{end}{chr(10).join(texts)}"
    return path, text, read(root, path, text=text)
