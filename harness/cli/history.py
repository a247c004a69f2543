"""``parity accept`` and ``parity history``: what was recorded, and what of it is the baseline."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.latency_options import chart, folder, open_history, sizes_of
from harness.cli.options import Document, request_of, settings_of
from harness.errors import NotJudged, UsageError

if TYPE_CHECKING:
    from harness.history import History
    from harness.records import Session
    from harness.subject import Subject


MOST_ACCEPTED = 8
"""Sessions that become a baseline when nobody says how many."""


def accept(options: argparse.Namespace) -> int:
    """Run ``parity accept``."""
    from harness.machine import commit

    if not options.why.strip():
        raise UsageError("accepting needs a reason: --why 'TEXT'")
    subject, _, _ = request_of(options)
    accepted = 0
    with open_history(options) as store:
        _check_readable(store, "nothing was accepted")
        chosen = _series_of(store, subject, options)
        here = [sessions for sessions in chosen if _is_here(sessions[-1])]
        if not here:
            where = " on this machine; a baseline is made of sessions of the same machine" if chosen else ""
            raise NotJudged(f"no such session of {subject.name} is recorded{where}: run parity bench {options.subject}")
        for sessions in here:
            latest = sessions[-1]
            wanted = _to_accept(sessions, store.baseline(latest.benchmark, latest.machine.key), options.last)
            if not wanted:
                print(f"{latest.benchmark}: {_why_none(sessions)}")
                continue
            ids = [session.id for session in wanted]
            store.accept(latest.benchmark, latest.machine.key, ids, options.why, _user(), commit(Path.cwd()))
            accepted += 1
            print(_accepted_words(wanted))
    return 0 if accepted else 3


def _check_readable(store: History, so: str) -> None:
    """Raise NotJudged while a file stands in for a database that is down: it holds few of the records."""
    if not store.readable:
        raise NotJudged(f"the history cannot be read now, so {so}: try again when its database is back")


def _to_accept(sessions: Sequence[Session], baseline: Sequence[Session], last: int | None) -> list[Session]:
    """Return the sessions that become the baseline: valid ones since the last acceptance, or the last so many.

    One that is dated in the future, by a clock that ran ahead, would be the latest for ever, and is left out.
    """
    sound = _sound(sessions)
    if last is not None:
        return sound[-last:]
    known = {session.id for session in baseline}
    newest = max((i for i, session in enumerate(sound) if session.id in known), default=-1)
    return sound[newest + 1 :][-MOST_ACCEPTED:]


def _sound(sessions: Sequence[Session]) -> list[Session]:
    from harness.records import utc

    now = utc(datetime.now(UTC).isoformat())
    return [one for one in sessions if not one.invalid and utc(one.recorded_at) <= now]


def _why_none(sessions: Sequence[Session]) -> str:
    """Return why nothing of a series can be accepted, and what to do."""
    if _sound(sessions):
        return "nothing new since the last acceptance; --last N accepts again"
    return (
        f"none of its {len(sessions)} sessions counts (measured in an invalid environment, or dated in the future); "
        "measure again"
    )


def _accepted_words(sessions: Sequence[Session]) -> str:
    from harness.latency import FEWEST_SESSIONS
    from harness.report import session_latency
    from harness.report.text import ms

    times = [found[0] for session in sessions if (found := session_latency(session.to_json())) is not None]
    young = (
        f"; young: a regression counts from {FEWEST_SESSIONS} sessions on" if len(sessions) < FEWEST_SESSIONS else ""
    )
    count = f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}"
    span = " to ".join(dict.fromkeys((ms(min(times)), ms(max(times)))))
    return f"{sessions[-1].benchmark}: accepted {count}, {span} ms{young}"


def _user() -> str:
    """Return who accepts; empty where the system does not know."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _series_of(store: History, subject: Subject, options: argparse.Namespace) -> list[list[Session]]:
    """Return the recorded series of a subject that the options choose, each oldest first, none empty."""
    found = []
    for one in store.benchmarks():
        latest = store.sessions(one.benchmark, one.machine_key, limit=1)
        if latest and latest[-1].subject == subject.name and _is_chosen(latest[-1], subject, options):
            found.append(store.sessions(one.benchmark, one.machine_key))
    return found


def _is_chosen(session: Session, subject: Subject, options: argparse.Namespace) -> bool:
    from harness.subject import Target

    if options.case and session.case not in options.case:
        return False
    if (options.batch or options.sweep) and session.sizes not in sizes_of(subject, options.batch, options.sweep):
        return False
    names = [Target("", precision).precision_name for precision in options.precision]
    if names and session.precision not in names:
        return False
    # PyTorch's own series are there to compare with, unless somebody asks for them.
    return session.backend in options.backend if options.backend else session.runner == "engine"


def _is_here(session: Session) -> bool:
    """Return whether a session was measured on this machine as it is now: driver, backend version and all."""
    from harness.backends import BACKENDS
    from harness.machine import machine

    on_gpu = session.device != "CPU"
    if on_gpu and not _has_gpu():
        return False
    backend = BACKENDS.get(session.backend)
    if backend is None or backend.unavailable() is not None:
        return False
    locked = session.machine.facts.get("locked_mhz")
    return machine(session.backend, backend.version(), on_gpu, locked_mhz=locked).key == session.machine.key


def _here() -> set[str]:
    from harness.machine import system_keys

    return system_keys()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def history(options: argparse.Namespace) -> int:
    """Run ``parity history``."""
    if options.move or options.subject in ("export", "import"):
        return _move(options)
    if options.machine:
        raise UsageError("--machine is for history export FORMAT FILE; the series of every machine are shown")
    from harness.report.plots import save_history
    from harness.report.text import history_text, series_of

    subject, _, _ = request_of(options)
    document = Document(options, settings_of(options))
    with open_history(options) as store:
        found = []
        for sessions in _series_of(store, subject, options):
            acceptances = store.acceptances(sessions[-1].benchmark, sessions[-1].machine.key)
            found.append(series_of(sessions, acceptance=acceptances[-1] if acceptances else None))
    document.write(complete=True, history=found)
    if not found:
        raise NotJudged(f"nothing is recorded of {subject.name} as chosen: run parity bench {options.subject}")
    print(history_text(found))
    for one in found:
        name = "".join(letter if letter.isalnum() or letter in "-=" else "-" for letter in one["benchmark"])
        chart(save_history, one, folder(options) / f"{name}-{one['machine_key'][:8]}-history")
    return 0


def _move(options: argparse.Namespace) -> int:
    """Export records to a file, or import them from one."""
    if options.subject not in ("export", "import") or len(options.move) != 2:
        raise UsageError(
            f"history {' '.join([options.subject, *options.move])} is not complete; show a subject with history "
            "SUBJECT, or move records with history export FORMAT FILE or history import FORMAT FILE"
        )
    chosen = {"--case": options.case, "-b": options.backend, "-p": options.precision, "--batch": options.batch,
              "--sweep": options.sweep, "--json": options.json}  # fmt: skip
    if ignored := [name for name, value in chosen.items() if value]:
        raise UsageError(f"history {options.subject} moves all records; leave out {', '.join(ignored)}")
    if options.machine and options.subject == "import":
        raise UsageError("--machine is for history export; an import takes every record of its file")
    from harness.history import ONE_MACHINE, check_format

    form, path = options.move[0], Path(options.move[1])
    with open_history(options) as store:
        if options.subject == "export":
            _check_readable(store, f"{path} was not written")
            check_format(form)
            here = _here() if form in ONE_MACHINE and not options.machine else ()
            count = store.export(form, path, machine_key=options.machine, here=here)
            print(f"{path}: {count} records written as {form}")
        else:
            print(f"{path}: {store.import_(form, path)} new records")
    return 0
