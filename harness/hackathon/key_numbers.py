"""The key numbers of a hackathon report: one row per subject, engine and device, with its error and its speed-up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from harness.hackathon.context import Context, origin, paragraphs
from harness.hackathon.figures import bench_groups
from harness.records import Json, worse
from harness.report import (
    BASELINE,
    case_label,
    code,
    escape,
    floor_ratio,
    is_invalid,
    largest_error,
    session_latency,
    session_target,
    table,
    target_name,
)
from harness.report.text import ms, number, speed_up, worst_error


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """What was recorded of one engine on one device."""

    subject: str
    engine: str
    """``rtx-fp16``."""
    device: str
    """Empty where none was recorded."""
    judged: Sequence[Json]
    """Its results."""
    timed: Sequence[Json]
    """Its measurements that count."""

    @property
    def verdict(self) -> str:
        """The worst verdict of its cases; empty where nothing was verified."""
        return reduce(worse, (result["verdict"] for result in self.judged)) if self.judged else ""

    @property
    def outputs(self) -> list[Json]:
        """The outputs of all its cases."""
        return [output for result in self.judged for output in result["outputs"]]

    @property
    def ratio(self) -> float | None:
        """The largest error of an output over that output's own floor; None where no output has one."""
        ratios = [ratio for output in self.outputs if (ratio := floor_ratio(output)) is not None]
        return max(ratios, default=None)

    @property
    def shown(self) -> Json | None:
        """The measurement that is shown: of the case as it is, else of the first size; one with a speed-up first."""
        best = [item for item in self.timed if BASELINE in item["speed_up"]] or self.timed
        return min(best, key=lambda item: len(item["session"]["sizes"]), default=None)


def key_rows(context: Context) -> list[KeyRow]:
    """Return a row per engine and device; what has no device (it did not run) is on the rows of its engine."""
    timed = _timed(context)
    results = [entry.data for entry in context.records.results]
    judged = [(r["subject"], target_name(r), _device(r)) for r in results if r["verdict"] != "not_judged"]
    keys = list(dict.fromkeys([*judged, *timed]))
    placed = {key[:2] for key in keys if key[2]}
    return [
        KeyRow(
            subject=key[0], engine=key[1], device=key[2], timed=timed.get(key, []),
            judged=[r for r in results if (r["subject"], target_name(r)) == key[:2] and _device(r) in ("", key[2])],
        )
        for key in keys
        if key[2] or key[:2] not in placed
    ]  # fmt: skip


def _device(result: Json) -> str:
    return str((result["provenance"] or {}).get("device", ""))


def _timed(context: Context) -> Mapping[tuple[str, str, str], list[Json]]:
    """Return the measurements of engines that count, by subject, engine and device."""
    found: dict[tuple[str, str, str], list[Json]] = {}
    for item in (item for measured in bench_groups(context.records).values() for item in measured):
        session = item["session"]
        if session["runner"] == "engine" and session_latency(session) is not None and not is_invalid(session):
            found.setdefault((session["subject"], session_target(session), session["device"]), []).append(item)
    return found


def numbers(context: Context) -> list[str]:
    """Return one row per engine and device: verdict, largest error, latency, speed-up against PyTorch FP32."""
    words = context.words
    rows = []
    for row in key_rows(context):
        sources = [
            *(r["provenance"] or {} for r in row.judged if r["provenance"] or r["outputs"]),
            *(item["session"] for item in row.timed),
        ]
        labels = [code(row.subject), code(row.engine), words("list_comma").join(origin(words, sources).values())]
        rows.append([*labels, _verdicts(context, row.judged), *_errors(context, row), *_speed(context, row)])
    if not rows:
        return []
    headings = context.heads("model", "engine", "origin", "verdict", "largest_error", "ratio", "cosine")
    headings += [words("latency_ms"), words("speed_up_against", name="PyTorch FP32")]
    return paragraphs([words("readme_numbers")], table(headings, rows, words=4))


def _speed(context: Context, row: KeyRow) -> list[str]:
    """Return latency and speed-up, with the size where there are several."""
    if row.shown is None:
        return ["-", "-"]
    session, time = row.shown["session"], session_latency(row.shown["session"])
    cases = {item["session"]["case"] for item in row.timed} | {result["case"] for result in row.judged}
    of = escape(case_label(session)) if session["sizes"] or len(cases) > 1 else ""
    return [
        f"{ms(time and time[0])}{context.words('bracketed', inner=of) if of else ''}",
        speed_up(row.shown, BASELINE),
    ]


def _verdicts(context: Context, results: Sequence[Json]) -> str:
    """Return ``3 pass, 1 FAIL``; a dash where nothing was verified."""
    found = [r["verdict"] for r in results]
    counts = [
        context.words("readme_verdict_count", count=found.count(key), verdict=context.verdict(key))
        for key in ("fail", "known", "not_judged", "pass")
        if key in found
    ]
    return context.words("list_comma").join(counts) or "-"


def _errors(context: Context, row: KeyRow) -> list[str]:
    """Return the largest relative error and ratio, and the smallest cosine: none of these beside NaN or infinity."""
    error = largest_error(row.outputs)
    cosines = [output["cosine"] for output in row.outputs if output.get("cosine") is not None]
    finite = error is not None and math.isfinite(error)
    cosine = f"{min(cosines):.7f}" if cosines and finite else "-"
    return [worst_error(row.outputs, context.words), number(row.ratio) if finite else "-", cosine]
