"""JSON documents read back, each checked against the dataclasses that wrote it.

Keys that were added since are filled with their defaults. What cannot be used is named in ``Records.broken`` or
``Records.foreign``, one sentence each. A record whose parts contradict its verdict is read as ``contradictory``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.files import check_is_content
from harness.records.accuracy import OutputResult, Result
from harness.records.accuracy_run import AccuracyTrend
from harness.records.bisection import Bisection
from harness.records.bringup import BringUp
from harness.records.contest import ContestResult
from harness.records.contradictions import (
    settled_bisection,
    settled_measurement,
    settled_parts,
    settled_result,
    settled_score,
    settled_study,
)
from harness.records.data import SCHEMA
from harness.records.documents import Document, Json, Records
from harness.records.earlier import as_written_today
from harness.records.known import Standing
from harness.records.latency import Measured, NotMeasured
from harness.records.quant_search import QuantSearch
from harness.records.runs import as_ended
from harness.records.schema import ShapeError, checked
from harness.records.shards import ShardRecord
from harness.records.stats import ErrorStats
from harness.records.study import StudyResult
from harness.sentences import Sentence, joined, with_sentences

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
    cudnn: str | None = None
    cublas: str | None = None
    cpu: str = ""
    cpu_count: int | None = None
    memory_bytes: int | None = None
    container: str | None = None
    platform: str = ""
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    engines: str = ""
    references: str = ""
    backends: dict[str, dict[str, str | None]] = field(default_factory=dict)


def load(paths: Sequence[Path], *, without: Path | None = None) -> Records:
    """Read files, and every ``*.json`` in and below folders, ``without`` one; names that start with a dot are left out.

    A file that cannot be used does not stop the others: it is named in ``broken`` or ``foreign``. Raises UsageError
    when a path is not there, or nothing could be read at all.
    """
    documents, broken, foreign = [], [], []
    names = _files(paths)
    for path, name in names:
        if without is not None and path.resolve() == without.resolve():
            continue
        try:
            documents.append(_read(path, name))
        except _Foreign as error:
            foreign.append(Sentence("file_not_used", name=name, error=error))
        except _Broken as error:
            broken.append(Sentence("file_not_used", name=name, error=error))
    if not documents:
        given = ", ".join(str(path) for path in paths) or "no path"
        why = some([*broken, *foreign]) or "it holds no .json file"
        raise UsageError(f"nothing recorded in {given}: {why}; record something with `parity verify SUBJECT --json F`")
    return Records(documents=tuple(documents), broken=tuple(broken), foreign=tuple(foreign))


def some(sentences: Sequence[str]) -> str:
    """Return the first three sentences in one, and how many there are beyond them."""
    more = [Sentence("and_more", count=len(sentences) - 3)] if len(sentences) > 3 else []
    return joined([*sentences[:3], *more])


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
        check_is_content(path)
        if (size := path.stat().st_size) > LARGEST:
            raise _Broken(Sentence("file_too_large", size=size / 2**20, largest=LARGEST / 2**20))
        data = with_sentences(json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant))
    except UsageError as error:
        raise _Broken(str(error)) from error
    except OSError as error:
        raise _Broken(Sentence("file_unreadable", strerror=error.strerror or error)) from error
    except (ValueError, RecursionError) as error:
        raise _Broken(Sentence("file_no_json", error=error)) from error
    if not isinstance(data, dict) or "schema" not in data:
        raise _Foreign(Sentence("file_foreign"))
    if data["schema"] != SCHEMA:
        words = Sentence("file_schema", schema=data["schema"], known=SCHEMA)
        if str(data["schema"]).startswith(_FAMILY):  # verdicts of another version may be in it: they must be missed
            raise _Broken(Sentence("record_with_this", words=words))
        raise _Foreign(words)
    try:
        return _document(path, name, data)
    except ShapeError as error:
        raise _Broken(Sentence("record_again", error=error)) from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _document(path: Path, name: str, data: Json) -> Document:
    data = as_ended(data)
    bisect = as_written_today(data.get("bisect"))
    inside = bisect.get("result") if isinstance(bisect, dict) else None
    data = {**data, "bisect": {**bisect, "result": None} if inside else bisect}
    top = {key: checked(data.get(key, default), kind, key) for key, kind, default in _TOP}
    if top["environment"]:
        top["environment"] = checked(top["environment"], Environment, "environment")
    for i, part in enumerate(top["shards"]):
        if part["environment"]:
            part["environment"] = checked(part["environment"], Environment, f"shards[{i}].environment")
    if isinstance(inside, dict):
        top["bisect"]["result"] = _result(inside, "bisect.result")
    results = [_result(row, f"results[{i}]") for i, row in enumerate(top.pop("results"))]
    bench = [_measured(row, f"bench[{i}]") for i, row in enumerate(top.pop("bench"))]
    top |= {key: tuple(top[key]) for key in ("not_measured", "left_out", "shards", "known", "accuracy_history")}
    brought_up = top.pop("parts")
    contradictory: list[str] = []

    def settled(row: Json, settle: Callable[[Json], Json], where: str) -> Json:
        found = settle(row)
        if found != row:
            contradictory.append(Sentence("parts_contradict", name=name, where=where))
        return found

    for key, settle in (("bisect", settled_bisection), ("study", settled_study), ("score", settled_score)):
        top[key] = settled(top[key], settle, key) if top[key] else top[key]
    return Document(
        path=path,
        name=name,
        results=tuple(settled(row, settled_result, f"results[{i}]") for i, row in enumerate(results)),
        parts=tuple(settled(row, settled_parts, f"parts[{i}]") for i, row in enumerate(brought_up)),
        bench=tuple(settled(row, settled_measurement, f"bench[{i}]") for i, row in enumerate(bench)),
        contradictory=tuple(contradictory),
        **top,
    )


_TOP: tuple[tuple[str, Any, Any], ...] = (
    ("command", str, ""),
    ("recorded_at", str, ""),
    ("complete", bool, True),
    ("error", str, ""),
    ("run", str, ""),
    ("left_out", tuple[dict[str, Any], ...], []),
    ("shard", ShardRecord | None, None),
    ("shards", tuple[ShardRecord, ...], []),
    ("known", tuple[Standing, ...], []),
    ("environment", dict[str, Any], {}),
    ("results", tuple[dict[str, Any], ...], []),
    ("bisect", Bisection | None, None),
    ("quant", QuantSearch | None, None),
    ("parts", tuple[BringUp, ...], []),
    ("bench", tuple[dict[str, Any], ...], []),
    ("not_measured", tuple[NotMeasured, ...], []),
    ("accuracy_history", tuple[AccuracyTrend, ...], []),
    ("study", StudyResult | None, None),
    ("score", ContestResult | None, None),
)


def _result(row: Json, where: str) -> Json:
    outputs = row.get("outputs", [])
    cost = row.get("cost")
    data: Json = checked({**row, "outputs": [], "cost": cost and {**cost, "outputs": []}}, Result, where)
    data["outputs"] = _outputs(outputs, f"{where}.outputs")
    if cost:
        data["cost"]["outputs"] = _outputs(cost.get("outputs", []), f"{where}.cost.outputs")
    return data


def _outputs(outputs: Any, where: str) -> list[Json]:
    rows = checked(outputs, tuple[dict[str, Any], ...], where)
    return [_output(output, f"{where}[{i}]") for i, output in enumerate(rows)]


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
