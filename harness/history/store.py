"""The table that holds the history, in an embedded SQLite file or in PostgreSQL, through SQLAlchemy Core."""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from harness.errors import CannotWrite, NotJudged, UsageError, install_hint
from harness.files import check_is_content, check_writable
from harness.history.recovery import PAGE_BYTES, recover, rename_damaged
from harness.history.rows import SCHEMA, Row, Series
from harness.locks import locked

TABLE = "parity_history"
LOCK_S = 60.0
"""A writer waits this long for another one."""
CONNECT_S = 5
"""A database that does not answer in this time is down; ``?connect_timeout=`` in the URL takes precedence."""
_RETRIES_S = (0.05, 0.2, 1.0)
_METADATA = sa.MetaData()
RECORDS = sa.Table(
    TABLE,
    _METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("benchmark", sa.Text, nullable=False),
    sa.Column("machine_key", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)
_SERIES = sa.Index(f"{TABLE}_series", RECORDS.c.benchmark, RECORDS.c.machine_key, RECORDS.c.kind, RECORDS.c.recorded_at)
_SQLITE_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CREATED_AT_ONCE = ("23505", "42P07", "42710")
"""SQLSTATEs of two clients that create one table at the same time."""
# psycopg gives a refused connection no SQLSTATE: only the server's text has the reason. Only ``_refusal`` searches it.
_SOON_BACK = ("starting up", "shutting down", "not yet accepting", "recovery mode", "too many", "reserved for")
"""Temporary refusals of a PostgreSQL server."""
_REFUSALS = ("FATAL: ", "permission denied ", "no password supplied")
T = TypeVar("T")


class Damaged(Exception):
    """A SQLite file is damaged; the text has the symptom."""


class Unreachable(Exception):
    """A database cannot be used now; the text has the reason, without a password."""

    def __init__(self, text: str, *, refusal: str = "") -> None:
        super().__init__(text)
        self.refusal = refusal
        """Why the server refused the connection; empty for one that is down or temporarily refuses."""


class Store:
    """Owns the connections to one table of records; every call is a transaction of its own."""

    def __init__(self, engine: sa.Engine, where: str, secrets: Sequence[str] = ()) -> None:
        self._engine = engine
        self.where = where
        """The path, or the database without its password."""
        self._secrets = secrets

    def insert(self, rows: Sequence[Row]) -> int:
        """Store all rows or none, and return how many were new. Raises UsageError when an id has other content."""
        if not rows:
            return 0
        dialect: Any = importlib.import_module(f"sqlalchemy.dialects.{self._engine.dialect.name}")
        statement = dialect.insert(RECORDS).on_conflict_do_nothing().returning(RECORDS.c.id)

        def work(connection: sa.Connection) -> int:
            new = len(connection.execute(statement, [vars(row) for row in rows]).all())
            stored = {row.id: row.sha256 for row in _by_id(connection, [row.id for row in rows])}
            other = [row for row in rows if stored[row.id] != row.sha256]
            if other:
                raise UsageError(
                    f"the history {self.where} holds another {other[0].kind} with the id {other[0].id}; nothing was"
                    " recorded; give the new one an id of its own"
                )
            return new

        return self._run(work)

    def rows(
        self,
        *,
        kind: str | None = None,
        benchmark: str | None = None,
        machine_key: str | None = None,
        newest: int | None = None,
    ) -> list[Row]:
        """Return the rows that match, oldest first; with ``newest`` only this number of the last ones."""
        wanted = {"kind": kind, "benchmark": benchmark, "machine_key": machine_key}
        query = sa.select(RECORDS).filter_by(**{name: value for name, value in wanted.items() if value is not None})
        query = query.order_by(RECORDS.c.recorded_at.desc(), RECORDS.c.id.desc()).limit(newest)
        return self._run(lambda connection: _rows(connection.execute(query)))[::-1]

    def newest_of(self, kind: str, count: int, *, benchmarks: Sequence[str] | None = None) -> list[Row]:
        """Return the last ``count`` rows of every series of a kind, or of those of some benchmarks, oldest first."""
        order = (RECORDS.c.recorded_at.desc(), RECORDS.c.id.desc())
        place = sa.func.row_number().over(partition_by=(RECORDS.c.benchmark, RECORDS.c.machine_key), order_by=order)
        every = sa.select(RECORDS, place.label("place")).where(RECORDS.c.kind == kind)

        def work(connection: sa.Connection) -> list[Row]:
            found: list[Row] = []
            wanted = [None] if benchmarks is None else _in_parts(benchmarks)
            for some in wanted:
                part = (every if some is None else every.where(RECORDS.c.benchmark.in_(some))).subquery()
                columns = [column for column in part.c if column.name != "place"]
                found += _rows(connection.execute(sa.select(*columns).where(part.c.place <= count)))
            return sorted(found, key=lambda row: (row.recorded_at, row.id))

        return self._run(work)

    def get(self, ids: Iterable[str]) -> list[Row]:
        """Return the rows with these ids, oldest first; unknown ids are left out."""
        wanted = list(ids)
        return sorted(self._run(lambda c: _by_id(c, wanted)), key=lambda row: (row.recorded_at, row.id))

    def series(self) -> list[Series]:
        """Return every series of sessions, by benchmark and machine key."""
        columns = (RECORDS.c.benchmark, RECORDS.c.machine_key)
        figures = (sa.func.count().label("sessions"), sa.func.max(RECORDS.c.recorded_at).label("newest"))
        query = sa.select(*columns, *figures).where(RECORDS.c.kind == "session").group_by(*columns)
        return sorted(self._run(lambda connection: [Series(**row._mapping) for row in connection.execute(query)]))

    def remove(self, rows: Sequence[Row]) -> None:
        """Delete rows that are now stored elsewhere."""
        statement = sa.delete(RECORDS).where(RECORDS.c.id == sa.bindparam("gone"))
        self._run(lambda connection: connection.execute(statement, [{"gone": row.id} for row in rows]))

    def prepare(self) -> None:
        """Create the table where it is missing.

        Raises UsageError for a table of a newer version, another program's file, and a database that refuses.
        """
        try:
            self._run(self._prepare)
        except Unreachable as error:
            if not error.refusal:
                raise
            raise UsageError(f"the history {self.where} refuses: {error.refusal}; check PARITY_HISTORY") from None

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _prepare(self, connection: sa.Connection) -> None:
        embedded = self._engine.dialect.name == "sqlite"
        if embedded:
            found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
            if found != "ok":
                raise Damaged(" ".join(str(found).split()))
        inspector = sa.inspect(connection)
        tables = inspector.get_table_names()
        if TABLE not in tables and tables and embedded:
            raise UsageError(f"{self.where} is the database of another program; set PARITY_HISTORY to another file")
        _METADATA.create_all(connection)
        columns = {column["name"] for column in sa.inspect(connection).get_columns(TABLE)}
        newest = connection.execute(sa.select(sa.func.max(RECORDS.c.schema))).scalar() if "schema" in columns else None
        if embedded and not isinstance(newest, int | None):
            raise Damaged(f"a record has the schema {newest!r}")
        if not set(RECORDS.c.keys()) <= columns or (newest or 0) > SCHEMA:
            raise UsageError(
                f"the history {self.where} was written by another version of trt-parity (schema {newest or 'unknown'};"
                f" this one knows up to {SCHEMA}); update it, or set PARITY_HISTORY to another history"
            )
        _SERIES.create(connection, checkfirst=True)  # its creator may have been killed before this

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work in a transaction; retry after a short wait where another process held a lock."""
        for wait in (*_RETRIES_S, None):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except sa.exc.DBAPIError as error:
                if wait is None or not _is_temporary(error.orig):
                    # Without its cause: the driver's traceback shows the password.
                    raise self._as_our_error(error.orig) from None
                time.sleep(wait)
            except UnicodeDecodeError as error:  # sqlite3 on a schema that is no text
                raise Damaged(str(error)) from error
        raise AssertionError("unreachable")

    def _as_our_error(self, error: BaseException | None) -> Exception:
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if self._engine.dialect.name == "postgresql":
            return Unreachable(text, refusal=_refusal(text))
        code = _sqlite_code(error)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Damaged(text)
        if code in _SQLITE_LOCKED:
            return NotJudged(
                f"the history {self.where} is locked by another process for more than {LOCK_S:.0f} s; end it and retry"
            )
        if code == sqlite3.SQLITE_FULL:
            return NotJudged(f"no space left for the history {self.where}; free some, or set PARITY_HISTORY")
        return UsageError(f"the history {self.where} cannot be used: {text}; set PARITY_HISTORY to another file")


def open_embedded(path: Path) -> tuple[Store, str]:
    """Open a SQLite file, new where there is none; return it and a note on a damaged file, else an empty string.

    A damaged file is renamed; a new one starts with the records that can be read from it. Raises UsageError for a file
    that cannot be written, is another program's, or was written by a newer version.
    """
    try:
        check_writable(path)
        check_is_content(path)
        with locked(path.with_name(f"{path.name}.lock"), f"the history {path}", most_s=LOCK_S):
            return _open_embedded(path)
    except (OSError, CannotWrite) as error:
        cause = error.error if isinstance(error, CannotWrite) else error
        raise UsageError(
            f"the history {path} cannot be written: {cause.strerror or cause}; set PARITY_HISTORY to another file"
        ) from error


def _open_embedded(path: Path) -> tuple[Store, str]:
    store = Store(_embedded_engine(path), str(path))
    try:
        store.prepare()
        return store, ""
    except Damaged as error:
        store.close()
        damaged, why = rename_damaged(path), str(error)
    store = Store(_embedded_engine(path), str(path))
    store.prepare()
    store.close()  # the new file is then whole, without a write-ahead log
    rows = recover(damaged, table=TABLE, empty=path)
    store.insert(rows)
    return store, (
        f"the history {path} was damaged ({why}): it is kept as {damaged}, and a new one was started; records read from"
        f" the damaged one: {len(rows)}"
    )


def _embedded_engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(
        URL.create("sqlite", database=str(path)), poolclass=NullPool, connect_args={"timeout": LOCK_S}
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.text_factory = lambda data: data.decode(errors="replace")  # the checksum finds damaged text
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # recovery assumes this size
        connection.execute("PRAGMA journal_mode=WAL")  # readers do not block writers
        connection.execute("PRAGMA synchronous=FULL")  # what is committed survives a power cut

    return engine


def connect(url: str) -> Store:
    """Return the store of a ``postgresql://`` URL, which connects on first use.

    Raises UsageError for another URL, and where psycopg is missing.
    """
    parsed = _parsed(url)
    where = f"postgresql://{parsed.username or ''}{'@' if parsed.username else ''}{parsed.host or ''}"
    where += f"{f':{parsed.port}' if parsed.port else ''}/{parsed.database or ''}"
    secrets = [str(secret) for secret in (parsed.password, parsed.query.get("password")) if secret]
    options = {"connect_timeout": CONNECT_S, "application_name": "parity"}
    try:
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={name: value for name, value in options.items() if name not in parsed.query},
        )
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the history {where} needs psycopg, which is not installed; {install_hint('postgres')}"
        ) from error
    return Store(engine, where, secrets)


def _parsed(url: str) -> URL:
    with contextlib.suppress(sa.exc.ArgumentError, ValueError):
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            return parsed
    raise UsageError("the history's URL is not of the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None


def _refusal(text: str) -> str:
    """Return why the server refused the connection; empty for one that is down or temporarily refuses."""
    for sign in _REFUSALS:
        _, found, after = text.rpartition(sign)
        if found and not any(passing in after for passing in _SOON_BACK):
            return (sign + after).removeprefix("FATAL: ").strip()
    return ""


def _is_temporary(error: BaseException | None) -> bool:
    """Return whether the same statement may succeed on a retry."""
    return _sqlite_code(error) in _SQLITE_LOCKED or getattr(error, "sqlstate", "") in _CREATED_AT_ONCE


def _sqlite_code(error: BaseException | None) -> int:
    """Return SQLite's primary result code, the low byte of the extended one; 0 for another driver's error."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _by_id(connection: sa.Connection, ids: Sequence[str]) -> list[Row]:
    found: list[Row] = []
    for some in _in_parts(ids):
        found += _rows(connection.execute(sa.select(RECORDS).where(RECORDS.c.id.in_(some))))
    return found


def _in_parts(names: Sequence[str]) -> list[Sequence[str]]:
    """Return names in parts of at most 500: SQLite takes a limited number of parameters."""
    return [names[start : start + 500] for start in range(0, len(names), 500)]


def _rows(result: sa.CursorResult[Any]) -> list[Row]:
    return [Row(**row._mapping) for row in result]
