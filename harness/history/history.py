"""The history: sessions, accepted baselines and accuracies, appended and never changed.

docs/history.md describes where it is kept, and what happens when that place fails.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from harness.errors import CannotWrite, NotJudged, UsageError
from harness.files import write_text
from harness.history.formats import ONE_MACHINE, WRITERS, check_format, device_of, of_machine, of_one_system
from harness.history.rows import Record, Row, Series, read_lines, record_of, row_of, write_lines
from harness.records import Acceptance, AccuracyRun, Session, utc

if TYPE_CHECKING:
    from harness.history.store import Store


VARIABLE = "PARITY_HISTORY"
FOLDER = Path(".parity")
"""The default folder of the SQLite file, and of records that wait for a database that is down."""
_SUFFIXES = (".sqlite", ".sqlite3", ".db")
T = TypeVar("T")


class History:
    """Owns a store of records; a context manager. Made by ``open_history``."""

    def __init__(self, store: Store, embedded: Path) -> None:
        self._store = store
        self._embedded = embedded
        """The SQLite file: the history itself, or a substitute for a database that is down."""
        self._is_substitute = False
        self._notes: dict[str, None] = {}

    @property
    def where(self) -> str:
        """The path, or the database without its password."""
        return self._store.where

    @property
    def readable(self) -> bool:
        """Whether its records can be read now; False while its database is down."""
        return not self._is_substitute

    def check_readable(self, consequence: str) -> None:
        """Raise NotJudged with the consequence while the database is down."""
        if self._is_substitute:
            raise NotJudged(f"the history cannot be read now, so {consequence}: try again when its database is back")

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on damaged files, records kept locally and records left out."""
        return tuple(self._notes)

    def note(self, text: str) -> None:
        """Add a sentence to the notes, unless it is empty or there already."""
        if text:
            self._notes[text] = None

    def prepare(self) -> None:
        """Create the table where it is missing, and send the records that waited for the database."""
        database = self._store
        self._with_store(lambda store: store.prepare())
        if self._store is database and self._embedded.exists():
            self._send_waiting()

    def add(self, record: Record) -> None:
        """Record one; a record that is there already is not changed.

        Raises UsageError for a record that could not be read back, and for another record with the same id.
        """
        self.add_all([record])

    def add_all(self, records: Iterable[Record]) -> None:
        """Record all in one transaction, or none. Raises UsageError as ``add`` does."""
        rows = [row_of(record) for record in records]
        self._with_store(lambda store: store.insert(rows))

    def accuracies(self, count: int, *, benchmarks: Sequence[str] | None = None) -> list[AccuracyRun]:
        """Return the last ``count`` records of every series of accuracies, or of some, oldest first."""
        wanted = self._with_store(lambda store: store.newest_of("accuracy", count, benchmarks=benchmarks))
        return [record for record in self._records(wanted) if isinstance(record, AccuracyRun)]

    def newest_acceptances(self, benchmarks: Sequence[str]) -> dict[tuple[str, str], Acceptance]:
        """Return the newest acceptance of each of these benchmarks and each machine that has one."""
        wanted = self._with_store(lambda store: store.newest_of("acceptance", 1, benchmarks=benchmarks))
        found = [record for record in self._records(wanted) if isinstance(record, Acceptance)]
        return {(one.benchmark, one.machine_key): one for one in found}

    def sessions(self, benchmark: str, machine_key: str, *, limit: int | None = None) -> list[Session]:
        """Return the sessions of a benchmark on a machine, oldest first; with ``limit`` only the newest."""
        wanted = self._with_store(
            lambda store: store.rows(kind="session", benchmark=benchmark, machine_key=machine_key, newest=limit)
        )
        return [record for record in self._records(wanted) if isinstance(record, Session)]

    def acceptances(self, benchmark: str, machine_key: str) -> list[Acceptance]:
        """Return the acceptances of a benchmark on a machine, oldest first."""
        wanted = self._with_store(
            lambda store: store.rows(kind="acceptance", benchmark=benchmark, machine_key=machine_key)
        )
        return [record for record in self._records(wanted) if isinstance(record, Acceptance)]

    def benchmarks(self) -> list[Series]:
        """Return every series of the history, by benchmark and machine key."""
        return self._with_store(lambda store: store.series())

    def baseline(self, benchmark: str, machine_key: str) -> list[Session]:
        """Return the sessions of the newest acceptance, oldest first; empty where there is none.

        Those that cannot be used are left out and named in the notes.
        """
        accepted = self.acceptances(benchmark, machine_key)
        if not accepted:
            return []
        newest = accepted[-1]
        known = self._by_id(newest.sessions)
        found = [session for session in known if not _fault(session, benchmark, machine_key)]
        missing = sorted(set(newest.sessions) - {session.id for session in found})
        if missing:
            self.note(
                f"{len(missing)} of the {len(newest.sessions)} sessions of the baseline of {benchmark} cannot be used:"
                f" {', '.join(missing)}"
            )
        return found

    def accept(
        self, benchmark: str, machine_key: str, sessions: Iterable[str], why: str, who: str = "", commit: str = ""
    ) -> Acceptance:
        """Make sessions, given by their ids, the baseline of a benchmark on a machine, and return the record.

        Raises UsageError without a reason or sessions, and for a session that is not there, belongs to another
        benchmark or machine, or was measured in an invalid environment.
        """
        ids = tuple(dict.fromkeys(sessions))
        if not why.strip():
            raise UsageError(f"accepting a baseline for {benchmark} needs a reason: --why 'TEXT'")
        if not ids:
            raise UsageError(f"no session of {benchmark} to accept on this machine; run parity bench first")
        found = {session.id: session for session in self._by_id(ids)}
        for one in ids:
            fault = _fault(found[one], benchmark, machine_key) if one in found else f"is not in {self.where}"
            if fault:
                raise UsageError("; ".join([f"session {one} cannot be accepted: it {fault}", *self.notes]))
        return self._accept(benchmark, machine_key, ids, why, who, commit)

    def accept_accuracy(self, run: AccuracyRun, why: str, who: str = "", commit: str = "") -> Acceptance:
        """Let the trend of a series begin anew with one of its runs. Raises UsageError without a reason."""
        if not why.strip():
            raise UsageError(f"accepting the accuracy of {run.benchmark} needs a reason: --why 'TEXT'")
        return self._accept(run.benchmark, run.machine_key, (run.id,), why, who, commit)

    def _accept(
        self, benchmark: str, machine_key: str, ids: tuple[str, ...], why: str, who: str, commit: str
    ) -> Acceptance:
        acceptance = Acceptance(
            id=uuid.uuid4().hex,
            accepted_at=self._after(self.acceptances(benchmark, machine_key)),
            benchmark=benchmark,
            machine_key=machine_key,
            sessions=ids,
            why=why.strip(),
            who=who,
            commit=commit,
        )
        self.add(acceptance)
        return acceptance

    def _after(self, accepted: Sequence[Acceptance]) -> str:
        """Return the time now, or just after the newest acceptance if that is later: the newest one is the baseline."""
        now = datetime.now(UTC)
        last = max((datetime.fromisoformat(utc(one.accepted_at)) for one in accepted), default=now)
        if last > now:
            self.note(f"the acceptance before is dated {last.isoformat()}: a clock jumped; this one is dated after it")
            now = last + timedelta(microseconds=1)
        return now.isoformat(timespec="microseconds")

    def export(
        self, format: str, path: Path | str, *, machine_key: str | None = None, here: Collection[str] = ()
    ) -> int:
        """Write the history, or the part of one machine, in one of ``FORMATS``; return the number of records.

        ``parity`` takes every record, the other formats valid sessions: ``otava`` all of them, into a folder; the
        others the newest of each benchmark of one machine, which is the only one of the history, or the one whose
        system key is in ``here``. ``machine_key``, the key of a machine or a system or its beginning, selects another.
        Raises UsageError for an unknown format or machine, for a history without sessions or with several machines to
        select from, and for a path that cannot be written. Raises NotJudged while the database is down.
        """
        check_format(format)
        self.check_readable(f"{path} was not written")
        rows = self._with_store(lambda store: store.rows())
        records = self._records(rows)
        sessions = [record for record in records if isinstance(record, Session)]
        kinds = {record.machine_key: record.device for record in records if isinstance(record, AccuracyRun)}
        keys = {key for key in kinds if format == "parity" and machine_key and key.startswith(machine_key)}
        if machine_key and not keys:
            sessions = of_machine(sessions, machine_key)
            keys |= {session.machine.key for session in sessions}
            keys |= {key for key, device in kinds.items() if device in map(device_of, sessions)}
        if format == "parity":
            whole = {record.id for record in records}
            kept = [row for row in rows if row.id in whole and (not machine_key or row.machine_key in keys)]
            write_lines(kept, Path(path))
            return len(kept)
        if format in ONE_MACHINE:
            sessions = of_one_system(sessions, here, format)
            sessions = list({session.benchmark: session for session in sessions}.values())
        count = [session for session in sessions if not session.invalid]
        if len(count) < len(sessions):
            self.note(f"not exported, measured in an invalid environment: {len(sessions) - len(count)}")
        if not count:
            raise UsageError(f"the history {self.where} holds no session to export")
        WRITERS[format](count, Path(path))
        return len(count)

    def import_(self, format: str, path: Path | str) -> int:
        """Add every record of a file, or none, and return how many were new.

        Raises UsageError for a format that cannot be imported, and for wrong lines, which it names.
        """
        check_format(format, importing=True)
        rows = read_lines(Path(path))
        return self._with_store(lambda store: store.insert(rows))

    def close(self) -> None:
        """Close the files and connections."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _by_id(self, ids: Sequence[str]) -> list[Session]:
        return [one for one in self._records(self._with_store(lambda s: s.get(ids))) if isinstance(one, Session)]

    def _records(self, rows: Sequence[Row]) -> list[Record]:
        """Return the records of rows; one that is damaged is left out and noted."""
        records = []
        for row in rows:
            try:
                records.append(record_of(row))
            except ValueError as error:
                self.note(f"{row.kind} {row.id} in {self.where} is damaged and was left out: {error}")
        return records

    def _with_store(self, work: Callable[[Store], T]) -> T:
        """Work on the store, or on its substitute: a new file for a damaged one, a file for a database."""
        from harness.history.store import Damaged, Unreachable, open_embedded

        for _ in range(3):
            try:
                return work(self._store)
            except Unreachable as error:
                self._is_substitute = True
                _keep_out_of_git(self._embedded.parent)
                self.note(
                    f"the history {self.where} cannot be used now ({error}): records are kept in {self._embedded} and"
                    " sent when it is next opened; what it holds cannot be read until then"
                )
            except Damaged:
                pass  # open_embedded() below renames the file, and returns a note
            self._store.close()
            self._store, note = open_embedded(self._embedded)
            self.note(note)
        raise UsageError(f"the history {self.where} is damaged repeatedly; set {VARIABLE} to another file")

    def _send_waiting(self) -> None:
        """Send the waiting records to the database; each is deleted here once it is there."""
        from harness.history.store import Unreachable, open_embedded

        waiting, note = open_embedded(self._embedded)
        self.note(note)
        rows = waiting.rows()
        whole = {record.id for record in self._records(rows)}
        sent: list[Row] = []
        try:
            self._send([row for row in rows if row.id in whole], waiting.where, sent)
        except Unreachable as error:
            self.note(f"records that still wait in {waiting.where}: {len(rows) - len(sent)} ({error})")
        if sent:
            waiting.remove(sent)
            self.note(f"records that waited in {waiting.where} and were sent to {self.where}: {len(sent)}")
        waiting.close()

    def _send(self, rows: Sequence[Row], where: str, sent: list[Row]) -> None:
        """Insert rows at once, or one by one where the database contradicts one; add those that it took to ``sent``."""
        try:
            self._store.insert(rows)
            sent += rows
        except UsageError as error:
            if len(rows) == 1:
                self.note(f"{rows[0].kind} {rows[0].id} stays in {where}: {error}")
            else:
                for row in rows:
                    self._send([row], where, sent)


def open_history(url: str | None = None, *, folder: Path = FOLDER) -> History:
    """Open the history that ``url`` names: a ``postgresql://`` URL, or the path of a SQLite file.

    Without ``url`` it is the one of ``PARITY_HISTORY``, and without that ``history.sqlite`` in ``folder``. While a
    database is down, a file in ``folder`` takes what is recorded; it is sent when the database is next opened. Raises
    UsageError for a place that cannot be used, a wrong password, and a history of a newer version.
    """
    from harness.history.store import connect, open_embedded

    url = url or os.environ.get(VARIABLE) or str(folder / "history.sqlite")
    if "://" in url:
        database = connect(url)
        name = hashlib.sha256(database.where.encode()).hexdigest()[:8]
        history = History(database, folder / f"unsent-{name}.sqlite")
        history.prepare()
        return history
    path = _history_file(url)
    if path.parent == folder:
        _keep_out_of_git(folder)
    store, note = open_embedded(path)
    history = History(store, path)
    history.note(note)
    return history


def _history_file(text: str) -> Path:
    """Return the path of a SQLite history. Raises UsageError for a name without one of ``_SUFFIXES``."""
    path = Path(text)
    if path.suffix not in _SUFFIXES or path.is_dir():
        raise UsageError(
            f"{text} is no place for a history ({VARIABLE}); give a file that ends in {', '.join(_SUFFIXES)}, or a"
            " postgresql:// URL"
        )
    return path


def _keep_out_of_git(folder: Path) -> None:
    """Make git ignore the folder: its files are not changes of the work tree."""
    ignore = folder / ".gitignore"
    try:
        if not ignore.exists():
            write_text("*\n", ignore)
    except (OSError, CannotWrite) as error:
        cause = error.error if isinstance(error, CannotWrite) else error
        raise UsageError(
            f"the folder {folder} cannot be written: {cause.strerror or cause}; set {VARIABLE} to another place"
        ) from error


def _fault(session: Session, benchmark: str, machine_key: str) -> str:
    """Return why a session cannot be part of a baseline, to follow "it"; empty where it can."""
    if session.benchmark != benchmark:
        return f"is of another benchmark, {session.benchmark}"
    if session.machine.key != machine_key:
        return f"is of another machine, {session.machine.key}"
    if session.invalid:
        return f"was measured in an invalid environment: {session.invalid[0]}"
    return ""
