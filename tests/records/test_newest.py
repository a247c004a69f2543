"""Records of one engine from several runs: the newest counts, the older are history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import recorded

from harness.records import Records, load
from harness.report import badge

PASSED = recorded.result()
FAILED = recorded.result("fail", reason="relative error 0.1")


def day(folder: Path, number: int, result: Any, **changes: Any) -> None:
    """Write the record of a run on one day of a month."""
    changes = {"run": f"run-{number}", "recorded_at": f"2026-03-{number:02}T00:00:00+00:00", **changes}
    recorded.document(folder, f"{9 - number}.json", results=[result], **changes)


def verdicts(records: Records) -> tuple[list[str], list[str]]:
    """Return what counts, and what is history."""
    return [e.data["verdict"] for e in records.results], [e.data["verdict"] for e in records.earlier]


def test_the_newest_of_one_program_counts(tmp_path: Path):
    day(tmp_path, 1, FAILED)
    day(tmp_path, 2, PASSED)
    found = load([tmp_path])
    assert verdicts(found) == (["pass"], ["fail"])
    assert badge(found)["message"] == "1 passed"
    assert len(found.twice) == 1
    day(tmp_path, 3, FAILED)
    assert verdicts(load([tmp_path])) == (["fail"], ["pass", "fail"])


def test_nothing_hides_a_failure_that_may_be_of_something_else(tmp_path: Path):
    """Neither another program, plan, suite, device or backend, nor the same run, nor a run without a date."""
    changes: list[tuple[Any, dict[str, Any]]] = [
        (replace(PASSED, provenance=replace(PASSED.provenance, program_sha256="q")), {}),
        (replace(PASSED, provenance=replace(PASSED.provenance, device="CPU")), {}),
        (replace(PASSED, provenance=None), {}),
        (replace(PASSED, plan_source="other.toml"), {}),
        (replace(PASSED, source="other.py"), {}),
        (replace(PASSED, case="two"), {}),
        (PASSED, {"run": "run-1"}),
        (PASSED, {"recorded_at": ""}),
        (PASSED, {"environment": {**recorded.ENVIRONMENT, "backends": {}}}),
    ]
    for number, (result, fields) in enumerate(changes):
        day(tmp_path / str(number), 1, FAILED)
        day(tmp_path / str(number), 2, result, **fields)
        found = load([tmp_path / str(number)])
        assert (len(found.results), badge(found)["color"]) == (2, "red"), number


def test_what_was_not_judged_replaces_nothing(tmp_path: Path):
    day(tmp_path, 1, FAILED)
    day(tmp_path, 2, recorded.result("not_judged", reason="no GPU", outputs=(), provenance=None))
    assert verdicts(load([tmp_path]))[1] == []


def test_an_engine_that_was_looked_into_before_keeps_its_layers(tmp_path: Path):
    import report_fixtures as made

    looked = made.results(values=3)[2]
    assert looked.layers
    assert looked.engine
    day(tmp_path, 1, looked)
    day(tmp_path, 2, replace(looked, layers=None))
    found = load([tmp_path])
    assert [bool(e.data["layers"]) for e in found.results] == [True]
    day(tmp_path, 3, replace(looked, layers=None, engine=replace(looked.engine, sha256="another")))
    assert [bool(e.data["layers"]) for e in load([tmp_path]).results] == [False]
