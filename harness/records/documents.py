"""What runs have recorded, as reports use it: every document of some files and folders in one structure.

Every documented key is there with the documented type. docs/json.md documents the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import UsageError
from harness.machine import CHANGED
from harness.sentences import Sentence

Json = dict[str, Any]
LIBRARIES = {"trt": "TensorRT", "rtx": "TensorRT for RTX", "ort-cpu": "ONNX Runtime", "ort-cuda": "ONNX Runtime"}
"""What the version of a backend is the version of."""
_ELSEWHERE = ("commit", "engines", "engines_remote", "engines_remote_mode", "references", "history")
"""What of an environment is no part of the machine."""


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
    recorded_at: str = ""
    """ISO 8601 in UTC; empty of a record from before it was kept."""
    run: str = ""
    """The id of the run; several documents may be of one."""
    shard: Json | None = None
    """``ShardRecord`` of one shard; None of a whole run, and of what several shards made together."""
    shards: tuple[Json, ...] = ()
    """``ShardRecord`` of each shard that this record is merged of."""
    left_out: tuple[Json, ...] = ()
    """Tests of engines that were left out by ``-k``, ``--lf``, ``--deselect``."""
    results: tuple[Json, ...] = ()
    known: tuple[Json, ...] = ()
    """The entries of the ledger of known failures, each with how it came out."""
    bisect: Json | None = None
    quant: Json | None = None
    """``QuantSearch.to_json()``."""
    parts: tuple[Json, ...] = ()
    """``BringUp.to_json()``: the parts of a model, one by one, per target and case."""
    bench: tuple[Json, ...] = ()
    """``Measured.to_json()``: ``session``, ``comparison``, ``speed_up``, ``kernels``."""
    not_measured: tuple[Json, ...] = ()
    """Engines that ``parity bench`` could not time: ``subject``, ``case``, ``backend``, ``precision``, ``reason``."""
    accuracy_history: tuple[Json, ...] = ()
    """``AccuracyTrend.to_json()`` of each output of the run."""
    study: Json | None = None
    score: Json | None = None
    """``ContestResult.to_json()``."""

    contradictory: tuple[str, ...] = ()
    """One sentence per record whose parts contradict its verdict; it is shown with the verdict that they leave."""

    @property
    def machines(self) -> tuple[tuple[Json, str], ...]:
        """The machines that it was recorded on, each with where that is said; several of one that is merged."""
        of_shards = [
            (shard["environment"], f"{self.name} {shard['stage'] or 'shard'} {shard['index']}/{shard['of']}")
            for shard in self.shards
        ]
        return tuple(found for found in of_shards or [(self.environment, self.name)] if found[0])

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
    run: str = ""
    """The run that all documents should be of; empty where none was asked for."""

    @property
    def results(self) -> tuple[Entry, ...]:
        """Verdicts: ``Result.to_json()``, the newest on each subject, case, target and program."""
        return self._by_age[0]

    @property
    def earlier(self) -> tuple[Entry, ...]:
        """Verdicts that a later run reached anew on the same subject, case, target and program: they are history."""
        return self._by_age[1]

    @cached_property
    def _by_age(self) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        """Verdicts that count, and those that a later run replaced.

        Without a date, or in one run, none is the newer; what was not judged has no program to be told by. An engine
        that was looked into before has its layers still.
        """
        entries = [Entry(data=row, document=doc) for doc in self.documents for row in doc.results]
        same: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            same.setdefault(_program(entry), []).append(entry)
        counts, earlier = [], []
        for entry in entries:
            alike = same[_program(entry)]
            newest = max(alike, key=lambda one: one.document.recorded_at)
            if _program(entry)[-1] and _is_later(newest.document, entry.document):
                earlier.append(entry)
            else:
                counts.append(entry if entry.data["layers"] else _with_layers(entry, alike))
        return tuple(counts), tuple(earlier)

    @property
    def contradictory(self) -> tuple[str, ...]:
        """One sentence per record whose parts contradict its verdict."""
        return tuple(sentence for doc in self.documents for sentence in doc.contradictory)

    @property
    def stale(self) -> tuple[str, ...]:
        """One sentence per document of another run than the one that was asked for."""
        return tuple(
            Sentence("of_another_run", name=doc.name, run=doc.run or Sentence("without_id"), run_2=self.run)
            for doc in self.documents
            if self.run and doc.run != self.run
        )

    @property
    def left_out(self) -> tuple[Json, ...]:
        """Tests of engines that runs left out."""
        return tuple(entry for doc in self.documents for entry in doc.left_out)

    @property
    def known(self) -> tuple[Json, ...]:
        """The entries of ledgers with how they came out, as each run saw them."""
        return tuple(entry for doc in self.documents for entry in doc.known)

    @property
    def layers(self) -> tuple[Entry, ...]:
        """``LayerReport.to_json()`` of the results that have layers."""
        return tuple(
            Entry(data=entry.data["layers"], document=entry.document) for entry in self.results if entry.data["layers"]
        )

    @property
    def bisections(self) -> tuple[Entry, ...]:
        """``Bisection.to_json()``."""
        return tuple(Entry(data=doc.bisect, document=doc) for doc in self.documents if doc.bisect)

    @property
    def quant_searches(self) -> tuple[Entry, ...]:
        """``QuantSearch.to_json()``: which operators of quantised models to leave in floats."""
        return tuple(Entry(data=doc.quant, document=doc) for doc in self.documents if doc.quant)

    @property
    def parts(self) -> tuple[Entry, ...]:
        """``BringUp.to_json()``: models that were brought up part by part."""
        return tuple(Entry(data=row, document=doc) for doc in self.documents for row in doc.parts)

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
    def trends(self) -> tuple[Json, ...]:
        """``AccuracyTrend.to_json()``, the newest of each series, in the order in which series first occur."""
        found: dict[tuple[str, ...], Json] = {}
        for trend in (trend for doc in self.documents for trend in doc.accuracy_history):
            key = (trend["benchmark"], trend["machine_key"], trend["output"])
            known = found.setdefault(key, trend)
            if trend["points"] and trend["points"][-1]["recorded_at"] > known["points"][-1]["recorded_at"]:
                found[key] = trend
        return tuple(found.values())

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
            for environment, name in doc.machines:
                machine = {k: v for k, v in environment.items() if k not in _ELSEWHERE}
                found.setdefault(json.dumps(machine, sort_keys=True), (environment, []))[1].append(name)
        return tuple((environment, tuple(names)) for environment, names in found.values())

    @property
    def commands(self) -> tuple[str, ...]:
        """The command lines that recorded it, each once."""
        return tuple(dict.fromkeys(doc.command for doc in self.documents if doc.command))

    @property
    def commits(self) -> tuple[str, ...]:
        """Commits of the code that recorded it, each once; with ``+changes`` where a tree was not clean."""
        found = [environment.get("commit", "") for doc in self.documents for environment, _ in doc.machines]
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
    def versions(self) -> tuple[str, ...]:
        """The libraries of the engines that were judged or timed, each with its version: ``TensorRT 10.13.3``."""
        used = {entry.data["backend"] for entry in self.results}
        used |= {entry.data["session"]["backend"] for entry in self.bench}
        found = {
            f"{LIBRARIES.get(name, name)} {backend['version']}"
            for environment, _ in self.environments
            for name, backend in (environment.get("backends") or {}).items()
            if name in used and backend.get("version")
        }
        return tuple(sorted(found))

    @property
    def twice(self) -> tuple[str, ...]:
        """One sentence per subject, case and target that several documents hold, of which all count or the newest."""
        where: dict[tuple[str, ...], list[str]] = {}
        for entry in self.results:
            where.setdefault((_shown(entry.data), *_identity(entry.data)), []).append(entry.document.name)
        replaced = [
            Sentence("recorded_later", shown=_shown(entry.data), name=entry.document.name) for entry in self.earlier
        ]
        repeated = [
            Sentence("recorded_times", shown=shown, count=len(names), names=list(names))
            for (shown, *_), names in where.items()
            if len(names) > 1
        ]
        return (*repeated, *replaced)

    @property
    def clashes(self) -> tuple[str, ...]:
        """One sentence per name of a subject, case and target by which several models or plans were recorded."""
        where: dict[str, dict[tuple[str, str], str]] = {}
        for entry in self.results:
            where.setdefault(_shown(entry.data), {})[_identity(entry.data)] = entry.document.name
        return tuple(
            Sentence("is_name_of", shown=shown, count=len(found), map=list(map(_identity_words, found, found.values())))
            for shown, found in where.items()
            if len(found) > 1
        )

    def _labels(self, key: str) -> tuple[str, ...]:
        found = [(entry.data["provenance"] or {}).get(key, "") for entry in self.results]
        found += [entry.data["session"][key] for entry in self.bench]
        found += [entry.data[key] for entry in (*self.studies, *self.parts)]
        return tuple(sorted({label for label in found if label}))


def _shown(result: Json) -> str:
    return f"{result['subject']}/{result['case']} [{result['backend']}-{result['precision']}]"


def _program(entry: Entry) -> tuple[str, ...]:
    """Return what was judged on what: name, suite, plan, device, version of the backend, program."""
    result, provenance = entry.data, entry.data["provenance"] or {}
    backend = (entry.document.environment.get("backends") or {}).get(result["backend"]) or {}
    version = str(backend.get("version"))
    return (
        _shown(result),
        *_identity(result),
        provenance.get("device", ""),
        version,
        provenance.get("program_sha256", ""),
    )


def _is_later(one: Document, other: Document) -> bool:
    """Return whether a document is known to be of a later run than another one."""
    return bool(other.recorded_at) and one.recorded_at > other.recorded_at and one.run != other.run


def _with_layers(entry: Entry, alike: Iterable[Entry]) -> Entry:
    """Return a verdict with the layers that an earlier run saw in the same engine, if one looked into it."""

    def engine(one: Entry) -> str:
        return str((one.data["engine"] or {}).get("sha256", ""))

    looked = [one for one in alike if one.data["layers"] and engine(one) and engine(one) == engine(entry)]
    if not looked:
        return entry
    newest = max(looked, key=lambda one: one.document.recorded_at)
    return Entry(data={**entry.data, "layers": newest.data["layers"]}, document=entry.document)


def _identity(result: Json) -> tuple[str, str]:
    return result["source"], result["plan_source"]


def _identity_words(identity: tuple[str, str], document: str) -> str:
    return f"{' with '.join(filter(None, identity)) or 'one of an unknown file'} ({document})"
