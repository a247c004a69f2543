"""The evaluation table of the 2022 preliminary: WeNet's encoder and decoder, from recorded verdicts and latencies.

Columns, formats and limits are those of the contest's testEncoderAndDecoder.py. A row needs a verdict and a latency of
one case and one engine. A case gives batch size and sequence length by its name, which ends with both (``16-64``), as
the contest's own files do (``encoder-16-64.npz``). Outputs are found by their names.

The contest's r is ``median(|a - b| / (|b| + eps))`` and the records have the median of ``|a - b| / |b|``, which is
never smaller, up to the distance of two neighbours in the sorted errors. Elements with b = 0 and a not are outside that
median: they are counted as the largest errors here, so that what is printed is the 99th percentile of the rest, or
``inf`` where even that would be too small.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UsageError, unknown_name
from harness.hackathon.context import MISSING, Context, paragraphs
from harness.hackathon.figures import bench_groups
from harness.records import Json, Records
from harness.report import code, escape, fence, session_latency, target_name


@dataclass(frozen=True, kw_only=True)
class Role:
    """One of the two engines: its outputs by name, and what passes."""

    outputs: tuple[str, str]
    a0: float
    """Largest absolute error of output 0 must be below this."""
    r0: float
    """Median relative error of output 0 must be below this."""
    r1: float
    """The same of output 1; its absolute error is printed and not judged."""


ROLES = {
    "encoder": Role(outputs=("encoder_out", "encoder_out_lens"), a0=3.5e-2, r0=2e-3, r1=1e-1),
    "decoder": Role(outputs=("decoder_out", "best_index"), a0=4e-1, r0=2e-4, r1=1e-1),
}
_HEAD = (
    "----+----+--------+---------+---------+---------+---------+---------+-------------",
    "  bs|  sl|      lt|       tp|       a0|       r0|       a1|       r1| output check",
    "----+----+--------+---------+---------+---------+---------+---------+-------------",
)
_SIZES = re.compile(r"(?:.*[^0-9])?([0-9]+)-([0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one engine."""

    role: str
    subject: str
    target: str
    device: str
    rows: tuple[str, ...]
    """Formatted as the contest does, in order of batch size and sequence length."""


def wenet_roles(options: Sequence[str]) -> dict[str, str]:
    """Return subjects by role from ``encoder=SUBJECT`` and ``decoder=SUBJECT``. Raises UsageError for anything else."""
    found = {}
    for option in options:
        role, equals, subject = option.partition("=")
        if not equals or not subject:
            raise UsageError(f"--wenet {option} is not ROLE=SUBJECT, such as encoder=wenet_encoder")
        if role not in ROLES:
            raise unknown_name("WeNet role", role, ROLES)
        found[role] = subject
    return found


def tables(records: Records, subjects: Mapping[str, str]) -> tuple[list[Table], list[str]]:
    """Return the tables of the subjects that play a role, and a sentence for everything that is missing."""
    found, lacking = [], []
    for role, subject in subjects.items():
        results = [e.data for e in records.results if e.data["subject"] == subject]
        if not results:
            lacking.append(f"no verdict on {subject} was recorded; run parity verify {subject} --json FILE")
        for name in dict.fromkeys(target_name(result) for result in results):
            table, sentences = _table(records, role, subject, [r for r in results if target_name(r) == name])
            found += [table] if table else []
            lacking += sentences
    return found, lacking


def _table(records: Records, role: str, subject: str, results: Sequence[Json]) -> tuple[Table | None, list[str]]:
    rows, lacking, devices = [], [], []
    times = _latencies(records)
    for result in results:
        case, name = result["case"], target_name(result)
        label, device = f"{subject}/{case} [{name}]", (result["provenance"] or {}).get("device", "")
        sizes, problem = _SIZES.fullmatch(case), _problem(role, result)
        time = times.get((subject, case, name, device))
        if sizes is None:
            lacking.append(
                f"{label}: the case's name must end with batch size and sequence length, such as {case}-16-64"
            )
        elif problem:
            lacking.append(f"{label}: {problem}")
        elif time is None:
            lacking.append(f"{label}: no latency on {device}; run parity bench {subject} --case {case} --json FILE")
        else:
            batch, length = map(int, sizes.groups())
            rows.append((batch, length, row(ROLES[role], batch, length, time, result["outputs"])))
            devices.append(device)
    if not rows:
        return None, lacking
    table = Table(
        role=role, subject=subject, target=target_name(results[0]), device=", ".join(dict.fromkeys(devices)),
        rows=tuple(text for _, _, text in sorted(rows)),
    )  # fmt: skip
    return table, lacking


def _latencies(records: Records) -> dict[tuple[str, str, str, str], float]:
    """Return ms of one run by subject, case, target and device, of cases as they are."""
    found = {}
    for session in (item["session"] for measured in bench_groups(records).values() for item in measured):
        time = session_latency(session)
        valid = not any(run["invalid"] for run in session["runs"])
        if session["runner"] == "engine" and not session["sizes"] and time is not None and valid:
            found[session["subject"], session["case"], target_name(session), session["device"]] = time[0]
    return found


def _problem(role: str, result: Json) -> str:
    """Return why this result makes no row; empty when it does."""
    if not result["outputs"]:
        return result["reason"] or "the engine did not run"
    names = [output["name"] for output in result["outputs"]]
    if missing := [name for name in ROLES[role].outputs if name not in names]:
        return f"it has no output {' and no output '.join(missing)}; it has {', '.join(names)}"
    return ""


def row(role: Role, batch: int, length: int, ms: float, outputs: Sequence[Json]) -> str:
    """Return one row in the contest's format; ``ms`` is the latency of one run, throughput is words per second."""
    by_name = {output["name"]: output for output in outputs}
    (a0, r0), (a1, r1) = (_errors(by_name[name]) for name in role.outputs)
    check = "Good" if a0 < role.a0 and r0 < role.r0 and r1 < role.r1 else "Bad"
    words = batch * length / ms * 1000
    figures = ",".join(f"{value:9.3e}" for value in (words, a0, r0, a1, r1))
    return f"{batch:4d},{length:4d},{ms:8.3f},{figures}, {check}"


def _errors(output: Json) -> tuple[float, float]:
    """Return a and r; NaN where an element is not finite on one side only, as the contest's NumPy would."""
    if "absolute" not in output or output["mismatched_nonfinite"] or output["absolute"].get("max") is None:
        return math.nan, math.nan
    absolute, relative = output["absolute"]["max"], output["relative"]
    undefined = int(relative.get("undefined") or 0)
    defined = output["compared"] - undefined
    if not undefined:
        return absolute, _finite(relative.get("median"))
    middle, covered = output["compared"] // 2, 99 * (defined - 1) // 100
    return absolute, _finite(relative.get("p99")) if defined and middle <= covered else math.inf


def _finite(value: float | None) -> float:
    return math.nan if value is None else value


def wenet_tables(context: Context) -> list[str]:
    """Return the tables as blocks, and what they lack; nothing where they were not asked for."""
    words = context.words
    found, lacking = tables(context.records, context.wenet)
    lines = []
    for one in found:
        title = words(
            "readme_wenet", role=one.role, subject=code(one.subject), target=code(one.target), device=escape(one.device)
        )
        lines += paragraphs([title], fence([*_HEAD, *one.rows]))
    if lacking:
        title = f"{MISSING.format(name='wenet')}{words('readme_wenet_missing')}"
        lines += paragraphs([title], [f"- {escape(sentence)}" for sentence in lacking])
    return lines
