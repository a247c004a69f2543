"""Records of the history as rows of a table and as lines of text, each checked on the way in and on the way out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError
from harness.files import write_text
from harness.records import (
    Acceptance,
    AccuracyRun,
    Session,
    acceptance_from_json,
    accuracy_run_from_json,
    session_from_json,
    utc,
)

Record = Session | Acceptance | AccuracyRun
Kind = Literal["session", "acceptance", "accuracy"]
SCHEMAS: dict[Kind, int] = {"session": 1, "acceptance": 1, "accuracy": 2}
"""Version of each kind of record: a program that does not know a kind refuses the history, and changes nothing."""
SCHEMA = max(SCHEMAS.values())
"""The newest version that is known. A history with a newer record is not read."""
_KINDS: dict[type[Record], Kind] = {Session: "session", Acceptance: "acceptance", AccuracyRun: "accuracy"}
_PARSERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "session": session_from_json,
    "acceptance": acceptance_from_json,
    "accuracy": accuracy_run_from_json,
}
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record as it is stored; all but ``kind`` and ``schema`` is computed from ``data``."""

    id: str
    """The record's own."""
    kind: Kind
    """``session``, ``acceptance`` or ``accuracy``."""
    benchmark: str
    """As of the record: the series."""
    machine_key: str
    """As ``Machine.key``, or ``AccuracyRun.machine_key``."""
    recorded_at: str
    """UTC, ISO 8601 with microseconds, so that the order of the text is the order in time."""
    schema: int
    """Version of the record's form."""
    sha256: str
    """Of ``data``: finds damage that the file or database does not report."""
    data: str
    """The record's JSON, keys sorted, ASCII."""


@dataclass(frozen=True, kw_only=True, order=True)
class Series:
    """All sessions of one benchmark on one machine."""

    benchmark: str
    """As ``Session.benchmark``."""
    machine_key: str
    """As ``Machine.key``."""
    sessions: int
    """Their number."""
    newest: str
    """When the newest was recorded; UTC, ISO 8601."""


def row_of(record: Record) -> Row:
    """Return a record as a row. Raises UsageError for a record that could not be read back."""
    kind = _KINDS[type(record)]
    try:
        return make_row(kind, record.to_json(), SCHEMAS[kind])
    except ValueError as error:
        raise UsageError(f"{kind} {record.id!r} cannot be recorded: {error}") from error


def make_row(kind: str, data: Any, schema: int) -> Row:
    """Return the row of a record's JSON. Raises ValueError, saying why, for anything that is not such a record."""
    record = parse(kind, data)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Row(
        id=record.id,
        kind=_KINDS[type(record)],
        benchmark=record.benchmark,
        machine_key=record.machine.key if isinstance(record, Session) else record.machine_key,
        recorded_at=utc(record.accepted_at if isinstance(record, Acceptance) else record.recorded_at),
        schema=schema,
        sha256=text_sha256(text),
        data=text,
    )


def record_of(row: Row) -> Record:
    """Return the record of a stored row. Raises ValueError, saying why, for one that is damaged."""
    if not isinstance(row.data, str) or text_sha256(row.data) != row.sha256:
        raise ValueError("its checksum does not match")
    return parse(row.kind, json.loads(row.data))


def parse(kind: str, data: Any) -> Record:
    """Return the record that JSON holds. Raises ValueError, saying why, for anything else."""
    if kind not in _PARSERS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(_PARSERS)}")
    try:
        record = _PARSERS[kind](data)
        _check(record)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a {kind} ({type(error).__name__}: {error})") from error
    return record


def _check(record: Record) -> None:
    """Raise ValueError for a record that no verdict could use."""
    names = {"id": record.id, "benchmark": record.benchmark}
    if isinstance(record, Session):
        names |= {"subject": record.subject, "machine key": record.machine.key}
        utc(record.recorded_at)
        if not record.runs:
            raise ValueError("it holds no process")
        if not all(isinstance(ms, int | float) and math.isfinite(ms) and ms > 0 for ms in _all_medians(record)):
            raise ValueError("a median time is not a positive number")
    elif isinstance(record, AccuracyRun):
        names |= {"subject": record.subject, "run": record.run, "machine key": record.machine_key}
        utc(record.recorded_at)
    else:
        names |= {"machine key": record.machine_key, "why": record.why}
        utc(record.accepted_at)
        if not record.sessions or not all(isinstance(one, str) and one for one in record.sessions):
            raise ValueError("it names no sessions")
    for name, text in names.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"its {name} is empty or not text")


def _all_medians(session: Session) -> list[Any]:
    summaries = [s for run in session.runs for s in (run.gpu_ms, run.end_to_end_ms, run.enqueue_ms) if s is not None]
    return [summary.median for summary in summaries]


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_lines(rows: Iterable[Row], path: Path) -> None:
    """Write rows in the format ``parity``: one JSON record a line. Raises UsageError when that is impossible."""
    lines = [
        json.dumps({"schema": row.schema, "kind": row.kind, "sha256": row.sha256, "data": json.loads(row.data)})
        for row in rows
    ]
    write_text("".join(f"{line}\n" for line in lines), path)


def read_lines(path: Path) -> list[Row]:
    """Return the rows of a file that ``write_lines`` wrote.

    Raises UsageError when the file cannot be read, and for lines that are not a whole and known record, named.
    """
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    rows: dict[str, tuple[int, Row]] = {}
    bad = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            row = _row_of_line(text)
            first, same = rows.setdefault(row.id, (number, row))
            if same.sha256 != row.sha256:
                raise ValueError(f"line {first} has another record with the id {row.id}")
        except (ValueError, RecursionError) as error:
            bad.append(f"line {number}: {error}")
    if bad:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise UsageError(f"{path}: nothing was imported: {'; '.join(bad[:_SHOWN])}{more}")
    return [row for _, row in rows.values()]


def _row_of_line(text: bytes) -> Row:
    try:
        line = json.loads(text.decode())
    except ValueError as error:
        raise ValueError(f"not JSON in UTF-8 ({error})") from error
    if not isinstance(line, dict) or not {"schema", "kind", "data"} <= set(line):
        raise ValueError("not a record: 'schema', 'kind' or 'data' is missing")
    schema = line["schema"]
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(f"unknown schema {schema!r}")
    if schema > SCHEMA:
        raise ValueError(f"schema {schema} is newer than {SCHEMA}, the newest that this version knows")
    row = make_row(str(line["kind"]), line["data"], schema)
    if line.get("sha256", row.sha256) != row.sha256:
        raise ValueError("its checksum does not match: the record was changed or damaged")
    return row
