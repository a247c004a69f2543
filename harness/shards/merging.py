"""Records of shards to one record, as if it had been one run; what keeps it from that is named in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.errors import few
from harness.records import (
    DIED,
    SCHEMA,
    NotMeasured,
    ShardRecord,
    as_ended,
    merged_standings,
    name_of,
    not_judged_of,
    with_missing,
    words_of,
    worse,
)
from harness.sentences import Sentence
from harness.shards.split import LATENCY

Json = dict[str, Any]
_OWN = ("run", "command", "complete", "error", "environment", "parameters")
"""What the top level of a shard's record says of it."""
_MERGED = {
    *_OWN, "schema", "recorded_at", "results", "expected", "elsewhere", "left_out", "bench", "not_measured", "shard",
    "shards", "doubled", "manifest", "known",
}  # fmt: skip
_FOLDERS = ("engines", "references", "history")
_CHOICE = ("-k", "-m")
"""Parameters that choose tests: those of the latency stage are others."""
_SHOWN = 8


def merge(documents: Iterable[Json], manifest: Any = None) -> Json:
    """Return one record of several; their order changes nothing, and merged records may be merged again.

    What is missing, doubled, incomplete or of another run makes it incomplete: ``error`` says so, and what did not
    arrive is not judged. So does what a manifest of ``parity list --json`` expects and none has judged. Raises
    UsageError for a manifest that is none.
    """
    given = sorted(map(as_ended, documents), key=_text)
    parts = sorted((part for data in given for part in parts_of(data)), key=_place)
    tests, missing = _tests(given)
    for entry in missing.values():
        entry["lost"] = _why(entry, parts)
    timed = [one for one in missing.values() if one.get("stage") == LATENCY]
    untimed = [one for one in missing.values() if one.get("stage") != LATENCY]
    results, doubled = _results(given)
    for why in sorted({one["lost"] for one in untimed}):
        results = with_missing(
            results, [one for one in untimed if one["lost"] == why], Sentence("not_judged_since", error=why)
        )
    faults = problems(parts, tests=tests)
    for why in sorted({one["lost"] for one in missing.values()} - set(faults)):
        faults.append(f"{why}: {few(sorted(_key(one) for one in missing.values() if one['lost'] == why), _SHOWN)}")
    silent = sorted(key for key, entry in tests.items() if not entry.get("arrived"))
    known = {name_of(result) for result in results}
    results = with_missing(results, [tests[key] for key in silent if name_of(tests[key]) not in known], DIED)
    if silent and not faults:  # else it is among them why
        faults.append(f"{len(silent)} did not arrive, of runs that say they are complete: {few(silent, _SHOWN)}")
    if doubled:
        faults.append(f"{len(doubled)} arrived more than once: {few(doubled, _SHOWN)}; the worse verdict counts")
    manifests = [*([] if manifest is None else [manifest]), *(data["manifest"] for data in given if "manifest" in data)]
    lacking = sorted({name for one in manifests for name in not_judged_of(one, results)})
    if lacking:
        faults.append(f"{len(lacking)} of the manifest were not judged: {few(lacking, _SHOWN)}")
    runs = {part["run"] for part in parts}
    left_out = {_key(entry): entry for data in given for entry in data.get("left_out", [])}
    bench = {one["session"]["id"]: one for data in given for one in data.get("bench", [])}
    expected = [
        *tests.values(),
        *({**one, "arrived": False, "why": Sentence("not_judged_since", error=one["lost"])} for one in untimed),
    ]
    return {
        **_others(given),
        "schema": SCHEMA,
        "recorded_at": max((str(data.get("recorded_at", "")) for data in given), default=""),
        "command": "; ".join(dict.fromkeys(part["command"] for part in parts)),
        "complete": not faults,
        "error": "; ".join(faults),
        "run": runs.pop() if len(runs) == 1 else "",
        "environment": _common_machine(parts),
        "results": sorted(results, key=_identity),
        "expected": sorted(expected, key=_key),
        "elsewhere": sorted(timed, key=_key),
        "left_out": [left_out[key] for key in sorted(left_out.keys() - tests.keys())],
        "bench": sorted(bench.values(), key=lambda one: (one["session"]["recorded_at"], one["session"]["id"])),
        "not_measured": [_not_measured(one) for one in sorted(timed, key=_key)],
        "known": merged_standings(one for data in given for one in data.get("known", [])),
        "shards": parts,
        "doubled": doubled,
        **(
            {"manifest": {"expected": _unique(row for one in manifests for row in one["expected"])}}
            if manifests
            else {}
        ),
    }


def parts_of(data: Mapping[str, Any]) -> list[Json]:
    """Return the shards of a record, each with all of its fields; a run that was not split is shard 1 of 1."""
    if data.get("shards"):
        return list(data["shards"])
    own = {key: data[key] for key in _OWN if key in data}
    return [{**asdict(ShardRecord(index=1, of=1)), **(data.get("shard") or {}), **own}]


def problems(parts: Sequence[Json], *, tests: Mapping[str, Json] | None = None) -> list[str]:
    """Return a sentence for each thing that keeps shards from being one whole run.

    With ``tests``, what arrived, an unfinished shard and one that is there twice count as well.
    """
    found = []
    runs = sorted({part["run"] for part in parts})
    if len(runs) > 1:
        found.append(f"the records are of {len(runs)} runs ({few(runs, _SHOWN)}): give all PARITY_RUN=ID")
    commits = sorted({part["environment"].get("commit", "") for part in parts if part["environment"]})
    if len(commits) > 1:
        found.append(f"the records are of {len(commits)} commits ({few(commits, _SHOWN)})")
    found += _differences(parts, leave_out=_CHOICE)
    stages: dict[tuple[str, int], list[Json]] = {}
    for part in parts:
        if part["of"] > 1:
            stages.setdefault((part["stage"], part["of"]), []).append(part)
    for (stage, of), shards in stages.items():
        found += _differences(shards, only=_CHOICE)
        if len({one["durations"] for one in shards}) > 1:
            found.append(f"the shards of {of} were split by different durations")
        elif len({one["split_sha256"] for one in shards} - {""}) > 1:
            found.append(f"the shards of {of} collected different tests")
        times = Counter(one["index"] for one in shards)
        for index in range(1, of + 1):
            if not times[index]:
                found.append(f"{_name(stage, index, of)} is missing")
            elif times[index] > 1 and tests is not None:
                found.append(f"{_name(stage, index, of)} is there {times[index]} times")
    for stage in sorted({stage for stage, _ in stages}):
        if len(sizes := sorted(of for other, of in stages if other == stage)) > 1:
            found.append(f"there are shards of {' and of '.join(map(str, sizes))}")
    if tests is not None:
        found += [_unfinished(part) for part in parts if not part["complete"] or part["error"]]
    return found


def _differences(parts: Sequence[Json], *, only: Sequence[str] = (), leave_out: Sequence[str] = ()) -> list[str]:
    """Return a sentence for each parameter that is not the same for all."""
    keys = sorted({key for part in parts for key in part["parameters"] if not only or key in only} - set(leave_out))
    found = []
    for key in keys:
        values: dict[str, str] = {}
        for part in parts:
            if key in part["parameters"]:
                values.setdefault(_text(part["parameters"][key]), part_name(part))
        if len(values) > 1:
            given = (f"{value} in {name}" for value, name in sorted(values.items()))
            found.append(f"the records have different parameters: {key} is {', '.join(given)}")
    return found


def part_name(part: Mapping[str, Any]) -> str:
    """Return ``shard 2 of 3``, or the command of a run that was not split."""
    if part["of"] == 1:
        return part["command"] or "a run that was not split"
    return _name(part["stage"], part["index"], part["of"])


def _name(stage: str, index: int, of: int) -> str:
    return f"{f'{stage} ' if stage else ''}shard {index} of {of}"


def _unfinished(part: Mapping[str, Any]) -> str:
    return f"{part_name(part)}: {part['error'] or 'incomplete'}"


def _why(entry: Mapping[str, Any], parts: Sequence[Json]) -> str:
    """Return why a test that a shard left to another did not arrive."""
    if not entry["shard"]:
        return f"the {LATENCY} stage is missing"
    stage = entry.get("stage", "")
    for part in parts:
        if (part["index"], part["of"], part["stage"]) == (entry["shard"], entry["of"], stage):
            return _unfinished(part) if part["error"] else f"{part_name(part)} does not have it"
    return f"{_name(stage, entry['shard'], entry['of'])} is missing"


def _tests(given: Sequence[Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the tests that runs had, and those that they left to others and nobody had, by what they go by."""
    here: dict[str, Json] = {}
    elsewhere: dict[str, Json] = {}
    for data in given:
        shard = data.get("shard") or {"index": 1, "of": 1}
        place = {"shard": shard["index"], "of": shard["of"]}
        for entry in data.get("expected", []):
            if "lost" in entry:
                elsewhere.setdefault(_key(entry), {**entry})
                continue
            key, known = _key(entry), here.get(_key(entry))
            here[key] = {**place, **entry} if known is None or not entry.get("arrived") else known
        for entry in data.get("elsewhere", []):
            of = {"of": shard["of"], **entry}
            if not elsewhere.get(_key(entry), {}).get("shard"):
                elsewhere[_key(entry)] = of
    return here, {key: entry for key, entry in elsewhere.items() if key not in here}


def _results(given: Sequence[Json]) -> tuple[list[Json], list[str]]:
    """Return the results that arrived, and the names of those that did so more than once, of which the worse counts."""
    found: dict[tuple[str, ...], Json] = {}
    doubled = [name for data in given for name in data.get("doubled", [])]
    for data in given:
        never = {name_of(entry) for entry in data.get("expected", []) if "lost" in entry}
        for result in data["results"]:
            if name_of(result) in never:
                continue
            if (known := found.get(key := _identity(result))) is not None:
                doubled.append(words_of(name_of(result)))
                result = known if known["verdict"] == worse(known["verdict"], result["verdict"]) else result
            found[key] = result
    return list(found.values()), sorted(set(doubled))


def _others(given: Sequence[Json]) -> Json:
    """Return the top-level keys that are not of shards: lists are joined, and others kept where all have the same."""
    found: Json = {}
    for key in dict.fromkeys(key for data in given for key in data if key not in _MERGED):
        values = [data[key] for data in given if key in data]
        if all(isinstance(value, list) for value in values):
            found[key] = _unique(row for value in values for row in value)
        elif len({_text(value) for value in values}) == 1:
            found[key] = values[0]
    return found


def _unique(rows: Iterable[Any]) -> list[Any]:
    return list({_text(row): row for row in rows}.values())


def _common_machine(parts: Sequence[Json]) -> Json:
    """Return the environment that all shards share, folders aside; empty where there are several."""
    found = [part["environment"] for part in parts if part["environment"]]
    machines = {_text({key: value for key, value in one.items() if key not in _FOLDERS}) for one in found}
    return dict(found[0]) if len(machines) == 1 else {}


def _not_measured(entry: Mapping[str, Any]) -> Json:
    subject, case, backend, precision = name_of(entry)
    return NotMeasured(
        subject=subject, case=case, backend=backend, precision=precision, source=str(entry.get("source", "")),
        reason=Sentence("not_judged_since", error=entry['lost']),
    ).to_json()  # fmt: skip


def _key(entry: Mapping[str, Any]) -> str:
    return str(entry.get("test") or words_of(name_of(entry)))


def _identity(result: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(result.get(key, "") for key in ("source", "subject", "backend", "precision", "case", "plan_source")),)


def _place(part: Mapping[str, Any]) -> tuple[Any, ...]:
    return part["stage"], part["of"], part["index"], part["command"], _text(part)


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True)
