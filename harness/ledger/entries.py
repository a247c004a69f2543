"""The ledger's file: ``known.toml``, each entry checked field by field, and found by what it names."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import combinations, product
from pathlib import Path
from typing import Any

from harness.errors import UsageError, unknown_name
from harness.fields import described, fits_path, require, require_number, require_one_of
from harness.files import check_is_content
from harness.records import KNOWN_KINDS, MOST, Known, KnownKind, words_of_kind
from harness.repository import source_of

FILE = "known.toml"
"""In the root of the suites' repository."""
MOST_DAYS = 366
"""The farthest from today that an entry may expire."""
WARN_DAYS = 14
"""From so many days before it expires an entry is warned of."""
UPTO = "upto "
"""Before a module it is the model that is cut after it, which is another thing than the module alone."""
_TABLE = "known"
_REQUIRED = ("subject", "target", "reason", "issue", "expires")
_KEYS = ("subject", "source", "target", "case", "part", "kind", "at_most", "reason", "issue", "owner", "expires")


def today() -> date:
    """Return the day on which entries are held against their expiry, the same on every runner: that of UTC."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One known failure."""

    number: int
    """Its place in the file, from 1."""
    subject: str
    """The subject's name, exactly."""
    source: str = ""
    """The file that declares the subject, below the repository, where that is none of the suites of a run."""
    target: tuple[str, ...]
    """Targets such as ``rtx-fp16``; ``*`` stands for any text."""
    case: tuple[str, ...] = ()
    """Cases, patterns as well; empty for all of them."""
    part: tuple[str, ...] = ()
    """The modules whose parts it is about, ``*`` for any name between two dots, with UPTO before them where the model
    is cut there; empty where it is about the outputs of the whole."""
    kind: KnownKind = "wrong_answer"
    """How it fails."""
    at_most: float | None = None
    """How many times its limit a wrong answer may lose, or the largest ratio of a latency to its baseline.

    None for any.
    """
    reason: str
    """Why it fails."""
    issue: str
    """The URL of its issue."""
    owner: str = ""
    """Who mends it; empty for the subject's owner."""
    expires: date
    """The last day on which it holds."""

    @property
    def words(self) -> str:
        """What it is about: ``clip [rtx-fp16]``, with its cases where it names some."""
        cases = f"/{','.join(self.case)}" if self.case else ""
        parts = f" {', '.join(self.part)}" if self.part else ""
        return f"{self.subject}{cases} [{', '.join(self.target)}]{parts}"

    def names(self, subject: str, source: str, target: str, case: str) -> bool:
        """Return whether it is about this target and case."""
        return (
            (self.subject, self.source or source) == (subject, source)
            and _fits(target, self.target)
            and (not self.case or _fits(case, self.case))
        )


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The entries of one file; of none where there is no file."""

    file: str = FILE
    """As it is shown."""
    entries: tuple[Entry, ...] = ()
    day: date = field(default_factory=today)
    """The day on which it was read."""
    launches_all: bool = False
    """Whether parts that are known to crash are launched too."""

    def where(self, entry: Entry) -> str:
        """Return which entry it is: ``known.toml, entry 2``."""
        return f"{self.file}, entry {entry.number}"

    def entry_of(
        self, subject: str, target: str, case: str, *, source: str = "", latency: bool = False, part: str = ""
    ) -> Entry | None:
        """Return the entry about the outputs, the latency or a part of a target (``rtx-fp16``) and a case.

        Raises UsageError where two entries are about it.
        """
        found = [
            entry
            for entry in self.entries
            if (entry.kind == "regressed") == latency
            and entry.names(subject, source, target, case)
            and bool(entry.part) == bool(part)
            and (not part or any(fits_path(part, one) for one in entry.part))
        ]
        if len(found) > 1:
            words = f"{subject}/{case} [{target}]"
            raise self._overlap(found[0], found[1], f"{words} {part}" if part else words)
        return found[0] if found else None

    def known(self, entry: Entry, *, owner: str = "") -> Known:
        """Return what a result says of its entry; ``owner`` is the subject's."""
        return Known(
            file=self.file, entry=entry.number, kind=entry.kind, at_most=entry.at_most, reason=entry.reason,
            issue=entry.issue, owner=entry.owner or owner, expires=entry.expires.isoformat(),
        )  # fmt: skip

    def offer(self, record: Path | None) -> str:
        """Return how what failed becomes a known failure, where it was recorded in this file."""
        options = "--reason ... --issue URL --expires DATE"
        return f"what is known to fail goes into {self.file}: parity known add {record or 'RECORD.json'} {options}"

    def is_expired(self, entry: Entry) -> bool:
        """Return whether its last day is over."""
        return entry.expires < self.day

    def check(
        self, name: str, declared: Mapping[str, Any], *, targets: Iterable[str] = (), cases: Iterable[str] = ()
    ) -> None:
        """Raise UsageError for an entry of a subject that names none of its targets or cases, or two of one thing.

        ``declared`` is what :func:`harness.ledger.declared_by` gives; ``targets`` and ``cases`` are what a run was
        asked for beyond that.
        """
        known_targets, known_cases = {*declared["targets"], *targets}, {*declared["cases"], *cases}
        source = declared["source"]
        for entry in self.entries:
            if entry.subject != name or entry.source not in ("", source):
                continue
            for what, names, known in (("target", entry.target, known_targets), ("case", entry.case, known_cases)):
                for pattern in names:
                    if not any(_fits(one, (pattern,)) for one in known):
                        raise UsageError(f"{self.where(entry)} ({name}): {unknown_name(what, pattern, known)}")
        for target, case, latency in product(known_targets, known_cases, (False, True)):
            self.entry_of(name, target, case, source=source, latency=latency)

    def check_parts(self, subject: str, source: str, modules: Collection[str]) -> None:
        """Raise UsageError for an entry of a subject about a part that is none of the modules of its model."""
        for entry in self.entries:
            if (entry.subject, entry.source or source) != (subject, source):
                continue
            for pattern in entry.part:
                path = pattern.removeprefix(UPTO).partition("#")[0]
                if not any(fits_path(module, path) for module in modules):
                    raise UsageError(f"{self.where(entry)} ({subject}): {unknown_name('part', path, modules)}")

    def _overlap(self, one: Entry, other: Entry, what: str) -> UsageError:
        return UsageError(
            f"{self.file}: entries {one.number} and {other.number} are both about {what}; leave one of them"
        )


def read(root: Path, given: Path | None = None, *, text: str | None = None) -> Ledger:
    """Return the ledger of a repository, or of the file that was ``given``; an empty one where there is no file.

    ``text`` stands for what the file holds. Raises UsageError with the file, the entry and what is wrong.
    """
    path = given or root / FILE
    if given is None and text is None and not path.exists():
        return Ledger()
    file = source_of(root, path) if path.resolve().is_relative_to(root.resolve()) else str(path)
    data = _toml(path, text)
    if unknown := sorted(set(data) - {_TABLE}):
        raise UsageError(f"{file}: {unknown_name('key', unknown[0], [_TABLE])}; an entry begins with [[{_TABLE}]]")
    rows = data.get(_TABLE, [])
    require(isinstance(rows, list), f"{file}: {_TABLE}", rows, f"entries, each under [[{_TABLE}]]")
    day = today()
    ledger = Ledger(file=file, entries=tuple(_entry(file, i, row, day) for i, row in enumerate(rows, 1)), day=day)
    for one, other in combinations(ledger.entries, 2):
        if _overlap(one, other):
            raise ledger._overlap(one, other, one.words)
    return ledger


def _toml(path: Path, text: str | None) -> dict[str, Any]:
    try:
        if text is None:
            check_is_content(path)
            text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"ledger {path} cannot be read ({error.strerror}); give an existing TOML file") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"ledger {path} is not valid TOML: {error}") from error


def _entry(file: str, number: int, row: object, day: date) -> Entry:
    where = f"{file}, entry {number}"
    if not isinstance(row, dict):
        raise UsageError(f"{where} is {described(row)}; give its fields under [[{_TABLE}]]")
    if unknown := sorted(set(row) - set(_KEYS)):
        raise UsageError(f"{where}: {unknown_name('key', unknown[0], _KEYS)}")
    if missing := [key for key in _REQUIRED if key not in row]:
        raise UsageError(f"{where} has no {missing[0]}; give {_GIVE[missing[0]]}")
    for key in ("subject", "source", "reason", "issue", "owner"):
        value = row.get(key, "-")
        require(isinstance(value, str) and value.strip(), f"{where}: {key}", value, _GIVE[key])
    if any(sign in row["subject"] for sign in "*?"):
        raise UsageError(f"{where}: subject is {row['subject']!r}; name one subject: an entry is about no other")
    address = row["issue"].partition("://")
    require(address[0] in ("http", "https") and address[2].strip("/"), f"{where}: issue", row["issue"], _GIVE["issue"])
    kind, at_most = _kind(where, row)
    part = _names(where, "part", row["part"]) if "part" in row else ()
    if part and kind == "regressed":
        raise UsageError(f"{where}: the latency of a part is not measured; leave out part, or give another kind")
    return Entry(
        number=number, subject=row["subject"], source=row.get("source", ""), kind=kind, at_most=at_most,
        target=tuple(_target(name) for name in _names(where, "target", row["target"])),
        case=_names(where, "case", row["case"]) if "case" in row else (), part=part,
        reason=row["reason"], issue=row["issue"], owner=row.get("owner", ""), expires=_expires(where, row, day),
    )  # fmt: skip


_GIVE = {
    "subject": "the name of a subject, as text",
    "source": "the file that declares the subject, below the repository, as text",
    "target": "a target such as 'rtx fp16', or a list of them",
    "reason": "why it fails, in words",
    "issue": "the URL of its issue, such as 'https://example.com/issues/12'",
    "owner": "who mends it, as text",
    "expires": "the last day on which it holds, such as 2027-03-01, without quotes",
}


def _names(where: str, key: str, value: object) -> tuple[str, ...]:
    """Return one name or a list of them, each once."""
    names = value if isinstance(value, list) else [value]
    good = names and all(isinstance(name, str) and name.strip() for name in names)
    require(good, f"{where}: {key}", value, _GIVE.get(key, f"the name of a {key}, or a list of them"))
    if len(set(names)) < len(names):
        raise UsageError(f"{where}: {key} names {next(name for name in names if names.count(name) > 1)!r} twice")
    return tuple(names)


def _target(name: str) -> str:
    """Return ``rtx-fp16`` of ``rtx fp16``, as a failure's text has it."""
    return "-".join(name.split(maxsplit=1))


def _kind(where: str, row: dict[str, Any]) -> tuple[KnownKind, float | None]:
    given = row.get("kind", "wrong_answer")
    kind: Any = (
        {words_of_kind(kind): kind for kind in KNOWN_KINDS}.get(given, given) if isinstance(given, str) else given
    )
    require_one_of(KNOWN_KINDS, f"{where}: kind", kind)
    at_most = row.get("at_most", MOST.get(kind))
    if at_most == float("inf"):
        at_most = None
    require_number(f"{where}: at_most", at_most, least=1)
    if "at_most" in row and kind not in MOST:
        of = " or ".join(map(words_of_kind, MOST))
        raise UsageError(f"{where}: at_most is the bound of a {of}, and this is a {words_of_kind(kind)}; leave it out")
    return kind, at_most


def _expires(where: str, row: dict[str, Any], day: date) -> date:
    value = row["expires"]
    is_date = isinstance(value, date) and not isinstance(value, datetime)
    require(is_date, f"{where}: expires", value, _GIVE["expires"])
    assert isinstance(value, date)
    if value > day + timedelta(days=MOST_DAYS):
        last = day + timedelta(days=MOST_DAYS)
        raise UsageError(f"{where}: expires is {value}, more than {MOST_DAYS} days ahead; give a day until {last}")
    return value


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _overlap(one: Entry, other: Entry) -> bool:
    """Return whether two entries are plainly about one thing; what only two patterns share is found when it is run."""
    if one.subject != other.subject or (one.kind == "regressed") != (other.kind == "regressed"):
        return False
    pairs = product(one.part, other.part)
    if (one.part or other.part) and not any(fits_path(a, b) or fits_path(b, a) for a, b in pairs):
        return False
    if one.source != other.source and one.source and other.source:
        return False
    cases = not one.case or not other.case or _meet(one.case, other.case)
    return cases and _meet(one.target, other.target)


def _meet(some: Sequence[str], others: Sequence[str]) -> bool:
    return any(_fits(a, (b,)) or _fits(b, (a,)) for a in some for b in others)
