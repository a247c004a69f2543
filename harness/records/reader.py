"""What runs have recorded, read back: every JSON document of some files and folders in one structure.

Each document is checked against the dataclasses that wrote it, so whoever renders ``Records`` finds every documented
key with the documented type; keys that were added since are filled with their defaults. What cannot be used is named
in ``Records.broken`` or ``Records.foreign``, one sentence each. docs/json.md documents the JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import UsageError
from harness.machine import CHANGED
from harness.records.accuracy import OutputResult, Result
from harness.records.bisection import Bisection
from harness.records.contest import ContestResult
from harness.records.data import SCHEMA
from harness.records.latency import Measured
from harness.records.schema import ShapeError, checked
from harness.records.stats import ErrorStats
from harness.records.study import StudyResult

Json = dict[str, Any]
_FAMILY = f"{SCHEMA.partition('/')[0]}/"
LARGEST = 512 * 2**20
"""Bytes; a larger file is refused unread."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The keys of ``environment`` that reports read; an empty environment stays empty."""

    gpus: tuple[dict[str, Any], ...] = ()
    no_gpu: str = ""
    driver: str = ""
    cuda: str | None = None
    cpu: str = ""
    cpu_count: int | None = None
    platform: str = ""
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    commit: str = ""
    engines: str = ""
    references: str = ""
    backends: dict[str, dict[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """The keys of an engine that could not be timed."""

    subject: str
    case: str
    backend: str
    precision: str
    reason: str
    runner: str = "engine"
    sizes: dict[str, int] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Document:
    """One JSON file that a command wrote."""

    path: Path
    """Where it is."""
    name: str
    """Its path below the folder that was given, or its file name; with ``/`` on every system."""
    command: str
    complete: bool
    """False when the run was cut short: what it holds is right, and there is less of it than there should be."""
    error: str
    environment: Json
    """Empty where none was recorded."""
    results: tuple[Json, ...] = ()
    bisect: Json | None = None
    bench: tuple[Json, ...] = ()
    """``Measured.to_json()``: ``session``, ``comparison``, ``speed_up``, ``kernels``."""
    not_measured: tuple[Json, ...] = ()
    """Engines that ``parity bench`` could not time: ``subject``, ``case``, ``backend``, ``precision``, ``reason``."""
    study: Json | None = None
    score: Json | None = None
    """``ContestResult.to_json()``."""

    def file(self, relative: str) -> Path:
        """Return a file that this document names, such as a picture of a study.

        Raises UsageError for a path that leaves the document's folder, and for a file that is not there.
        """
        parts = PurePosixPath(relative).parts
        path = self.path.parent.joinpath(*parts)
        try:
            inside = path.resolve().is_relative_to(self.path.parent.resolve())
            there = path.is_file()
        except (OSError, ValueError) as error:  # too long, or with a NUL
            why = f"which is no file's name ({error}); it is not used"
            raise UsageError(f"{self.name} names the file {relative!r:.100}, {why}") from error
        if not parts or not inside:
            raise UsageError(f"{self.name} names the file {relative!r}, which is not in its own folder; it is not used")
        if not there:
            raise UsageError(f"{self.name} names the file {relative!r}, which is not there; put it beside {self.name}")
        return path


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record and the document it is from."""

    data: Json
    document: Document


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that was recorded. Entries are in the order of the documents, which is that of their names."""

    documents: tuple[Document, ...]
    broken: tuple[str, ...] = ()
    """One sentence per file that should be such a document and cannot be read as one."""
    foreign: tuple[str, ...] = ()
    """One sentence per JSON file that is something else."""

    @property
    def results(self) -> tuple[Entry, ...]:
        """Verdicts: ``Result.to_json()``, one per subject, case and target."""
        return tuple(Entry(data=row, document=doc) for doc in self.documents for row in doc.results)

    @property
    def layers(self) -> tuple[Entry, ...]:
        """``LayerReport.to_json()`` of the results that somebody looked into."""
        return tuple(
            Entry(data=entry.data["layers"], document=entry.document) for entry in self.results if entry.data["layers"]
        )

    @property
    def bisections(self) -> tuple[Entry, ...]:
        """``Bisection.to_json()``."""
        return tuple(Entry(data=doc.bisect, document=doc) for doc in self.documents if doc.bisect)

    @property
    def bench(self) -> tuple[Entry, ...]:
        """``Measured.to_json()``, oldest first; a session that several documents hold is there once."""
        rows = [Entry(data=row, document=doc) for doc in self.documents for row in doc.bench]
        found = {entry.data["session"]["id"]: entry for entry in rows}
        return tuple(sorted(found.values(), key=lambda entry: entry.data["session"]["recorded_at"]))

    @property
    def not_measured(self) -> tuple[Entry, ...]:
        """What could not be timed, and why."""
        return tuple(Entry(data=row, document=doc) for doc in self.documents for row in doc.not_measured)

    @property
    def studies(self) -> tuple[Entry, ...]:
        """``StudyResult.to_json()``; ``entry.document.file(name)`` finds their pictures."""
        return tuple(Entry(data=doc.study, document=doc) for doc in self.documents if doc.study)

    @property
    def scores(self) -> tuple[Entry, ...]:
        """``ContestResult.to_json()``: entrants' folders that were judged."""
        return tuple(Entry(data=doc.score, document=doc) for doc in self.documents if doc.score)

    @property
    def environments(self) -> tuple[tuple[Json, tuple[str, ...]], ...]:
        """Each machine once, with the names of the documents recorded on it; folders and commits do not count."""
        found: dict[str, tuple[Json, list[str]]] = {}
        for doc in self.documents:
            if doc.environment:
                machine = {k: v for k, v in doc.environment.items() if k not in ("commit", "engines", "references")}
                found.setdefault(json.dumps(machine, sort_keys=True), (doc.environment, []))[1].append(doc.name)
        return tuple((environment, tuple(names)) for environment, names in found.values())

    @property
    def commands(self) -> tuple[str, ...]:
        """The command lines that recorded it, each once."""
        return tuple(dict.fromkeys(doc.command for doc in self.documents if doc.command))

    @property
    def commits(self) -> tuple[str, ...]:
        """Commits of the code that recorded it, each once; with ``+changes`` where a tree was not clean."""
        found = [doc.environment.get("commit", "") for doc in self.documents]
        found += [(entry.data["provenance"] or {}).get("commit", "") for entry in self.results]
        found += [entry.data["session"]["commit"] for entry in self.bench]
        return tuple(dict.fromkeys(commit for commit in found if commit))

    @property
    def uncommitted(self) -> bool:
        """Whether a commit is not all that was run: its work tree was not clean."""
        return any(commit.endswith(CHANGED) for commit in self.commits)

    @property
    def weights(self) -> tuple[str, ...]:
        """Every kind of weights that occurs: ``trained``, ``random``, ``file``."""
        return self._labels("weights")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every kind of inputs that occurs: ``real``, ``random``."""
        return self._labels("inputs")

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that computed something: names of GPUs, or ``CPU``."""
        return self._labels("device")

    @property
    def twice(self) -> tuple[str, ...]:
        """One sentence per subject, case and target that several documents hold: all of them are shown."""
        where: dict[tuple[str, ...], list[str]] = {}
        for entry in self.results:
            key = tuple(entry.data[name] for name in ("subject", "case", "backend", "precision"))
            where.setdefault(key, []).append(entry.document.name)
        return tuple(
            f"{subject}/{case} [{backend}-{precision}] was recorded {len(names)} times ({', '.join(names)}): all are "
            "shown; leave out the files that no longer count"
            for (subject, case, backend, precision), names in where.items()
            if len(names) > 1
        )

    def _labels(self, key: str) -> tuple[str, ...]:
        found = [(entry.data["provenance"] or {}).get(key, "") for entry in self.results]
        found += [entry.data["session"][key] for entry in self.bench]
        found += [entry.data[key] for entry in self.studies]
        return tuple(sorted({label for label in found if label}))


def load(paths: Sequence[Path]) -> Records:
    """Read files, and every ``*.json`` in and below folders; names that start with a dot are left out.

    A file that cannot be used does not stop the others: it is named in ``broken`` or ``foreign``. Raises UsageError
    when a path is not there, or nothing could be read at all.
    """
    documents, broken, foreign = [], [], []
    names = _files(paths)
    for path, name in names:
        try:
            documents.append(_read(path, name))
        except _Foreign as error:
            foreign.append(f"{name} is not used: {error}")
        except _Broken as error:
            broken.append(f"{name} is not used: {error}")
    if not documents:
        given = ", ".join(str(path) for path in paths) or "no path"
        why = some([*broken, *foreign]) or "it holds no .json file"
        raise UsageError(f"nothing recorded in {given}: {why}; record something with `parity verify SUBJECT --json F`")
    return Records(documents=tuple(documents), broken=tuple(broken), foreign=tuple(foreign))


def some(sentences: Sequence[str]) -> str:
    """Return the first three sentences in one, and how many there are beyond them."""
    more = [f"and {len(sentences) - 3} more"] if len(sentences) > 3 else []
    return "; ".join([*sentences[:3], *more])


class _Foreign(Exception):
    """The file is JSON and not one of ours."""


class _Broken(Exception):
    """The file cannot be read, or says it is one of ours and does not hold what it should."""


def _files(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Return every file once with the name it goes by, in the order of those names."""
    found: dict[Path, tuple[Path, str]] = {}
    for given in paths:
        if given.is_dir():
            below = [(path, path.relative_to(given)) for path in given.rglob("*.json")]
            shown = [(p, name) for p, name in below if p.is_file() and not any(x.startswith(".") for x in name.parts)]
        elif given.is_file():
            shown = [(given, Path(given.name))]
        else:
            raise UsageError(f"there is no {given}; give JSON files that `parity verify --json` wrote, or their folder")
        for path, name in shown:
            found.setdefault(path.resolve(), (path, name.as_posix()))
    twice = {name for name, times in Counter(name for _, name in found.values()).items() if times > 1}
    rows = [(path, path.as_posix() if name in twice else name) for path, name in found.values()]
    return sorted(rows, key=lambda row: row[1])


def _read(path: Path, name: str) -> Document:
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise _Broken(f"it has {size / 2**20:.0f} MiB, which is more than {LARGEST / 2**20:.0f}; split the run")
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise _Broken(f"it cannot be read ({error.strerror or error}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise _Broken(f"it is not JSON ({error}); record it again") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise _Foreign("it is JSON, but not a document of parity (it has no key 'schema')")
    if data["schema"] != SCHEMA:
        words = f"its schema is {data['schema']!r:.60}, and reports are made from {SCHEMA!r}"
        if str(data["schema"]).startswith(_FAMILY):  # verdicts of another version may be in it: they must be missed
            raise _Broken(f"{words}; record it again with this version")
        raise _Foreign(words)
    try:
        return _document(path, name, data)
    except ShapeError as error:
        raise _Broken(f"{error}; record it again") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _document(path: Path, name: str, data: Json) -> Document:
    data = {**data, "bisect": _as_written_today(data.get("bisect"))}
    top = {key: checked(data.get(key, default), kind, key) for key, kind, default in _TOP}
    if top["environment"]:
        top["environment"] = checked(top["environment"], Environment, "environment")
    results = tuple(_result(row, f"results[{i}]") for i, row in enumerate(top.pop("results")))
    bench = tuple(_measured(row, f"bench[{i}]") for i, row in enumerate(top.pop("bench")))
    top["not_measured"] = tuple(top["not_measured"])
    return Document(path=path, name=name, results=results, bench=bench, **top)


_OLD_COMMANDS = ("parity ", "pytest ", "python", "tox ", "cd ", "pip ")
_TOP: tuple[tuple[str, Any, Any], ...] = (
    ("command", str, ""),
    ("complete", bool, True),
    ("error", str, ""),
    ("environment", dict[str, Any], {}),
    ("results", tuple[dict[str, Any], ...], []),
    ("bisect", Bisection | None, None),
    ("bench", tuple[dict[str, Any], ...], []),
    ("not_measured", tuple[NotMeasured, ...], []),
    ("study", StudyResult | None, None),
    ("score", ContestResult | None, None),
)


def _as_written_today(bisection: Any) -> Any:
    """Return a bisection from before ``commands`` was a key as it would be written today; anything else as it is.

    Its advice was text, ``indicator | meaning | action``, with the commands as the last entries; its finding began with
    its kind; and it went by the text of a question whether no is the good answer.
    """
    lines = bisection.get("advice") if isinstance(bisection, dict) and "commands" not in bisection else None
    if not isinstance(lines, list):
        return bisection
    end = len(lines)
    try:
        while end and lines[end - 1].startswith(_OLD_COMMANDS):
            end -= 1
        parts = [[*line.split(" | ", 2), "", ""] for line in lines[:end]]
        return {
            **bisection,
            "finding": bisection["finding"].removeprefix(f"{bisection['kind']}: "),
            "advice": [{"indicator": part[0], "meaning": part[1], "action": part[2]} for part in parts],
            "commands": lines[end:],
            "gates": [
                {"good": "no", **gate} if gate["question"] == "is the engine wrong?" else gate
                for gate in bisection["gates"]
            ],
        }
    except (AttributeError, KeyError, TypeError):  # as no version wrote it: the check that follows says where
        return bisection


def _result(row: Json, where: str) -> Json:
    outputs = row.get("outputs", [])
    data: Json = checked({**row, "outputs": []}, Result, where)
    rows = checked(outputs, tuple[dict[str, Any], ...], f"{where}.outputs")
    data["outputs"] = [_output(output, f"{where}.outputs[{i}]") for i, output in enumerate(rows)]
    return data


def _output(row: Json, where: str) -> Json:
    """Check an output, which holds the figures of ``ErrorStats`` beside its own keys, or none of them."""
    data: Json = checked({**row, "stats": None}, OutputResult, where)
    del data["stats"]
    if "absolute" in row:
        data = checked(data, ErrorStats, where)
    return data


def _measured(row: Json, where: str) -> Json:
    data: Json = checked(row, Measured, where)
    for key in ("benchmark", "metric"):
        checked(data["session"].get(key), str, f"{where}.session.{key}")
    return data
