"""Records that can still be read from a damaged history file, which itself is not written to."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UsageError
from harness.history.rows import Row, make_row, record_of
from harness.temporary import temporary_folder

_BESIDE = ("-wal", "-shm")
PAGE_BYTES = 4096
"""The page size of every history file."""
_UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""SQLite raises the second when its message quotes damaged text."""
_SMALLEST_ROW = 400
"""Bytes of the smallest record: a file of n bytes has at most n / 400 of them."""


def rename_damaged(path: Path) -> Path:
    """Rename a history file and SQLite's files beside it, with a time stamp; return the new path.

    Raises UsageError when the file cannot be renamed.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    damaged = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        path.rename(damaged)
        for end in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + end).rename(damaged.with_name(damaged.name + end))
    except OSError as error:
        raise UsageError(
            f"the history {path} is damaged and cannot be renamed: {error.strerror or error}; rename it"
        ) from error
    return damaged


def recover(damaged: Path, *, table: str, empty: Path) -> list[Row]:
    """Return every whole record that a damaged file still holds; ``empty`` is a sound history without records.

    The first page of a SQLite file holds its header and its schema, the same in every history: if it is damaged, that
    of ``empty`` takes its place.
    """
    with temporary_folder() as folder:
        copy = folder / "copy.sqlite"
        for first_page in (_first_page(damaged), _first_page(empty)):
            for end in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{damaged}{end}", f"{copy}{end}")
            with copy.open("r+b") as file:
                file.write(first_page)
            rows = list(_whole_rows(copy, table))
            if rows:
                return rows
    return []


def _first_page(path: Path) -> bytes:
    """Return the first page without its count of pages (offset 28): SQLite then uses the size of the file."""
    page = bytearray(path.read_bytes()[:PAGE_BYTES])
    page[28:32] = bytes(4)
    return bytes(page)


def _whole_rows(path: Path, table: str) -> Iterator[Row]:
    """Yield the whole records, reading one at a time: a damaged page loses only its own records."""
    most = path.stat().st_size // _SMALLEST_ROW
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        try:
            connection.execute(f"SELECT 1 FROM {table} LIMIT 0")
        except _UNREADABLE:
            return  # the schema itself cannot be read
        for number in range(1, most + 1):
            try:
                found = connection.execute(
                    f"SELECT kind, schema, sha256, data FROM {table} WHERE rowid = ?", (number,)
                ).fetchone()
            except _UNREADABLE:
                continue
            row = _whole(found) if found else None
            if row is not None:
                yield row


def _whole(found: tuple[bytes, int, bytes, bytes]) -> Row | None:
    try:
        kind, sha256, data = (text.decode() for text in (found[0], found[2], found[3]))
        row = make_row(kind, json.loads(data), found[1])
        record_of(row)
    except (AttributeError, TypeError, ValueError, RecursionError):
        return None
    return row if row.sha256 == sha256 and isinstance(row.schema, int) else None
